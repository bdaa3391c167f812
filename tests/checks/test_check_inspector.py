"""Findings of nwbinspector beside those of a check, as it gives them of the same session."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from nwbinspector import inspect_nwbfile
from pynwb import NWBHDF5IO, NWBFile

from intake_nwbzarr import check
from intake_nwbzarr.checks.report import Report
from intake_nwbzarr.errors import MissingPackageError
from tests.checks.checked_sessions import good_session
from tests.session_files import write


@pytest.fixture
def nwbfile() -> NWBFile:
    """A session that lacks what NWB's best practices ask for."""
    found = good_session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.add_unit(spike_times=[3.0, 2.0, 1.0], waveform_mean=[0.0] * 40, electrodes=[0, 1])
    return found


def _inspected(report: Report) -> set[tuple[str, str]]:
    assert report.inspected is not None
    return {(each.code, each.path) for each in report.inspected}


def test_findings_of_an_hdf5_file_are_those_of_nwbinspector_itself(tmp_path: Path, nwbfile: NWBFile) -> None:
    path = tmp_path / "a.nwb"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(path, "w") as io:
            io.write(nwbfile)
        expected = {
            (each.check_function_name, (each.location or "").strip("/"))
            for each in inspect_nwbfile(nwbfile_path=path, skip_validate=True)
            if each is not None
        }
    report = check(path, inspect=True)
    # The name of a file is no matter of a session on a server.
    names = {each for each, _ in expected}
    assert {each for each, _ in _inspected(report)} <= names
    assert names - {each for each, _ in _inspected(report)} <= {
        "check_subject_exists",
        "check_name_extension",
    }
    assert "check_ascending_spike_times" in names


def test_findings_of_a_zarr_session_and_what_nwbinspector_cannot_check_of_it(
    tmp_path: Path, nwbfile: NWBFile
) -> None:
    report = check(write(tmp_path, nwbfile), inspect=True)
    assert "check_ascending_spike_times" in {each for each, _ in _inspected(report)}
    assert not report.ok
    assert "of nwbinspector" in str(report)
    assert "[check_ascending_spike_times]" in str(report)
    # Checks that fail on arrays of Zarr 3 are no findings of the session.
    assert any("check_small_dataset_compression" in each for each in report.unchecked)
    assert all("Traceback" not in each.found for each in report.inspected or ())


def test_without_being_asked_for_it_is_not_run(tmp_path: Path) -> None:
    report = check(write(tmp_path, good_session()))
    assert report.inspected is None
    assert "nwbinspector" not in str(report)


def test_without_nwbinspector_the_error_names_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nwbinspector", None)
    with pytest.raises(MissingPackageError) as caught:
        check(tmp_path, inspect=True)
    assert caught.value.next_step == 'Install it with: pip install "intake-nwbzarr[nwbinspector]".'
