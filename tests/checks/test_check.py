"""Each fault of a session has a finding, which the same session without the fault does not have."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from intake_nwbzarr import check
from intake_nwbzarr.checks import checked
from intake_nwbzarr.checks.codes import CODES
from intake_nwbzarr.checks.report import Report
from tests.checks.checked_sessions import (
    ELECTRODES,
    LICKS,
    RAW,
    ROIS,
    Damage,
    added_without_consolidating,
    attribute,
    damaged_chunk,
    damaged_document,
    edit_documents,
    good_session,
    link,
    texts,
    unconsolidated,
    values,
    without,
)
from tests.conftest import written_once
from tests.session_files import copy_of, edit, rewrite, write

SORTED = np.sort(np.random.default_rng(1).uniform(0, 4, 200))


@pytest.fixture(scope="module")
def good(shared_folder: Path) -> Path:
    """The session without a fault: read it only."""
    return written_once(shared_folder / "checked", lambda folder: write(folder, good_session()))


def _swap(path: Path) -> None:
    """Store the data of ROIs with these first."""
    rewrite(path, "processing/ophys/traces/data", np.zeros((3, 60), np.float32) + np.arange(60))


def _long_trials(path: Path) -> None:
    rewrite(path, "intervals/trials/start_time", np.arange(4, dtype=np.float32) * 5000)


def _late_start(path: Path) -> None:
    rewrite(path, f"{RAW}/starting_time", np.array(100_000.7, np.float32))
    edit(path, f"{RAW}/starting_time", lambda each: each["attributes"].update(rate=1000.0))


def _doubled_ids(path: Path) -> None:
    rewrite(path, "units/id", np.array([1, 1, 2]))


def _codec(path: Path) -> None:
    edit_documents(path, "units/waveform_mean", lambda each: each["codecs"].append({"name": "lab.codec"}))


def _waveforms(path: Path) -> None:
    rewrite(path, "units/waveform_mean", np.zeros((3, 2_000_000), np.int8))
    edit(
        path,
        "units/waveform_mean",
        lambda each: each["attributes"].update(sampling_rate=30000.0, time_before_peak_in_ms=1.0),
    )


@dataclass(frozen=True)
class Case:
    """A fault that a copy of the good session is given."""

    code: str
    path: str
    damage: Damage
    found: str = ""  # part of what the finding says


CASES = (
    Case("not-consolidated", "", unconsolidated, "no consolidated metadata"),
    Case("stale-metadata", "", added_without_consolidating, "1 missing (intervals/trials/score)"),
    Case("unknown-codec", "units/waveform_mean", _codec, "'lab.codec'"),
    Case("damaged-object", "intervals/trials/stim", damaged_document, "'four'"),
    Case("damaged-object", f"{LICKS}/timestamps", damaged_chunk, "timestamps"),
    # Links
    Case("dangling-link", "acquisition/lost", link("acquisition", "lost", "/nowhere"), "'/nowhere'"),
    Case(
        "external-link",
        "acquisition/raw2",
        link("acquisition", "raw2", "/raw", "s3://somebody/else.nwb.zarr"),
        "somebody",
    ),
    Case(
        "dangling-link",
        "acquisition/beside",
        link("acquisition", "beside", "/raw", "../beside.nwb.zarr"),
        "beside.nwb.zarr",
    ),
    Case(
        "dangling-reference",
        "units/spike_times_index",
        attribute(
            "units/spike_times_index", "target", {"_REFERENCE": {"source": ".", "path": "/units/gone"}}
        ),
        "/units/gone",
    ),
    Case(
        "dangling-reference",
        f"{ELECTRODES}/group",
        texts(f"{ELECTRODES}/group", ["/general/nothing"] * 4),
        "'/general/nothing'",
    ),
    Case("region-out-of-range", f"{RAW}/electrodes", values(f"{RAW}/electrodes", [0, 1, 2, 4]), "4 rows"),
    Case(
        "region-out-of-range",
        "units/electrodes",
        values("units/electrodes", [0, 1, 0, 1, 0, 17]),
        "0 to 17, and the table has 4",
    ),
    Case("region-without-table", f"{RAW}/electrodes", without(ELECTRODES), "not in the file"),
    Case("invalid-region", f"{RAW}/electrodes", values(f"{RAW}/electrodes", [0.0, np.nan, 2.0, 3.0])),
    Case("region-length", RAW, values(f"{RAW}/electrodes", [0, 1, 2])),
    Case(
        "damaged-index",
        "units/spike_times_index",
        values("units/spike_times_index", np.array([30, 60, 5000], np.uint16)),
        "ends at 5,000, and its target at 90",
    ),
    Case(
        "damaged-index",
        "units/spike_times_index",
        values("units/spike_times_index", np.array([60, 30, 90], np.uint8)),
        "The end of row 1 is 30, and that of the row before 60",
    ),
    # Times
    Case(
        "unsorted-times",
        f"{LICKS}/timestamps",
        values(f"{LICKS}/timestamps", np.r_[SORTED[:99], 0.0, SORTED[100:]]),
        "the first at 99",
    ),
    Case(
        "nan-times",
        f"{LICKS}/timestamps",
        values(f"{LICKS}/timestamps", np.r_[SORTED[:50], np.nan, SORTED[51:]]),
        "1, the first at 50",
    ),
    Case(
        "regular-timestamps",
        f"{LICKS}/timestamps",
        values(f"{LICKS}/timestamps", 3 + np.arange(200) / 30),
        "Rate 30 Hz from 3 s",
    ),
    Case(
        "float32-times",
        f"{LICKS}/timestamps",
        values(f"{LICKS}/timestamps", (100_000 + SORTED / 10).astype(np.float32)),
        "0.0078 s apart",
    ),
    Case("float32-times", "intervals/trials/start_time", _long_trials, "15,000 s"),
    Case(
        "float32-times",
        "units/spike_times",
        values("units/spike_times", np.linspace(0, 4000, 90, dtype=np.float32)),
        "4,000 s",
    ),
    Case("float32-times", f"{RAW}/starting_time", _late_start),
    Case("unix-times", f"{LICKS}/timestamps", values(f"{LICKS}/timestamps", 1.7e9 + SORTED), "1970"),
    Case(
        "unix-times", "units/spike_times", values("units/spike_times", 1.7e9 + np.linspace(0, 4, 90)), "1970"
    ),
    Case(
        "unsorted-times",
        "units/spike_times",
        values("units/spike_times", np.r_[SORTED[:30], SORTED[29::-1], SORTED[:30]]),
        "Within 1 of 3 units, the first in row 1",
    ),
    Case(
        "times-in-samples",
        "units/spike_times",
        values("units/spike_times", np.tile(np.arange(30.0) * 1000, 3)),
        "All are whole numbers, up to 29,000, and the series of the session end at",
    ),
    Case(
        "stop-before-start",
        "intervals/trials/stop_time",
        values("intervals/trials/stop_time", [0.5, 1.5, -1.0, np.nan]),
        "1 of 4, the first in row 2: from 2 to -1 s",
    ),
    Case("unix-times", RAW, values(f"{RAW}/starting_time", np.array(1.7e9)), "1970"),
    Case(
        "no-time-zone",
        "timestamps_reference_time",
        texts("timestamps_reference_time", "2024-05-01T12:00:00"),
        "'2024-05-01T12:00:00'",
    ),
    Case("no-time-zone", "session_start_time", texts("session_start_time", "2024-05-01T12:00:00")),
    Case("invalid-date", "session_start_time", texts("timestamps_reference_time", "May")),
    Case("invalid-times", RAW, attribute(f"{RAW}/starting_time", "rate", -1.0)),
    Case("timestamps-length", LICKS, values(f"{LICKS}/data", np.ones(199))),
    # Values
    Case("implausible-values", f"{RAW}/data", attribute(f"{RAW}/data", "conversion", 1.0), "1e-06"),
    Case("implausible-values", f"{RAW}/data", attribute(f"{RAW}/data", "conversion", 1e-12), "1e+06"),
    Case(
        "implausible-values",
        "processing/behavior/Position/place/data",
        values("processing/behavior/Position/place/data", np.full((50, 2), 4e3)),
        "1e-03",
    ),
    Case("channel-conversion-shape", RAW, values(f"{RAW}/channel_conversion", np.ones(3))),
    Case("attribute-not-a-number", RAW, attribute(f"{RAW}/data", "conversion", "1e-6 V")),
    Case("axis-order", "processing/ophys/traces", _swap, "roi"),
    Case(
        "unknown-unit",
        "general/optophysiology/plane",
        attribute("general/optophysiology/plane/origin_coords", "unit", "pixels"),
    ),
    Case("implausible-waveform-rate", "units/waveform_mean", _waveforms),
    # Tables
    Case("missing-column", "intervals/trials", without("intervals/trials/stim")),
    Case("column-length", "intervals/trials", values("intervals/trials/stop_time", np.arange(3.0))),
    Case("repeated-ids", "units", _doubled_ids),
)


@pytest.fixture(scope="module")
def good_report(good: Path) -> Report:
    """The report of the session without a fault."""
    return check(good)


def test_a_session_without_a_fault_has_no_findings(good_report: Report) -> None:
    assert good_report.findings == ()
    assert good_report.unchecked == ()
    assert good_report.ok
    assert good_report.fresh
    assert "nothing found" in str(good_report)


def test_some_spikes_of_very_many_are_read(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "WHOLE", 8000)
    path = copy_of(good, tmp_path)
    times = np.tile(np.linspace(0.1, 4, 800), 3)

    def found() -> list[tuple[str, str]]:
        rewrite(path, "units/spike_times", times, chunks=(100,))
        findings = check(path).findings
        return [(each.path, each.found) for each in findings if each.code == "unsorted-times"]

    rewrite(path, "units/spike_times_index", np.array([800, 1600, 2400], np.uint16))
    assert found() == []
    times[[-2, -1]] = times[[-1, -2]]
    assert found() == [
        (
            "units/spike_times",
            "Within 1 of 3 units, the first in row 2 (800 of 2,400 spikes were read).",
        )
    ]


def test_intervals_too_many_to_be_read_are_named(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "WHOLE", 24)
    assert (
        "values of intervals/trials/start_time: they are too many to be read whole" in check(good).unchecked
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code} {case.path}")
def test_a_fault_has_a_finding(case: Case, good: Path, tmp_path: Path) -> None:
    path = copy_of(good, tmp_path)
    case.damage(path)
    report = check(path)
    found = [each for each in report.findings if (each.code, each.path) == (case.code, case.path)]
    assert len(found) == 1, str(report)
    assert case.found in found[0].found, found[0].found
    known = CODES[case.code]
    assert (found[0].severity, found[0].why) == (known.severity, known.why)
    assert f"[{case.code}]" in str(report)
    assert report.ok == all(each.severity == "hint" for each in report.findings)
    # The report says once which session it is about.
    assert str(path) not in found[0].found
    # What is found of one fault is not a list of others that do not exist.
    assert len({each.code for each in report.findings}) <= 4, str(report)


def test_what_a_finding_says_mends_it(good: Path, tmp_path: Path) -> None:
    path = copy_of(good, tmp_path)
    added_without_consolidating(path)
    from intake_nwbzarr import consolidate, is_fresh

    assert not is_fresh(path)
    (stale,) = (each for each in check(path).findings if each.code == "stale-metadata")
    assert stale.mend == f"nwbzarr consolidate {path}"
    consolidate(path)
    assert is_fresh(path)
    assert {each.code for each in check(path).findings} == set()


def test_one_mend_command_quotes_a_location_with_spaces(good: Path, tmp_path: Path) -> None:
    path = copy_of(good, tmp_path, "a session.nwb.zarr")
    unconsolidated(path)
    (only,) = check(path).findings
    assert only.mend == f"nwbzarr consolidate '{path}'"


def test_a_document_of_damaged_consolidated_metadata_is_a_finding_and_the_rest_is_checked(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = copy_of(corpus_dir("ecephys", "0.8.0"), tmp_path)
    document = path / ".zmetadata"
    document.write_bytes(document.read_bytes()[:-100])
    report = check(path)
    assert report.findings[0].code == "cannot-open"
    assert report.findings[0].path == ".zmetadata"
    assert {"zarr-2", "pickled-objects"} <= {each.code for each in report.findings}
    assert report.costs


def test_a_damaged_root_is_a_finding(good: Path, tmp_path: Path) -> None:
    path = copy_of(good, tmp_path)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "gro')
    report = check(path)
    assert [each.code for each in report.findings] == ["cannot-open"]
    assert report.format is None
    assert not report.ok


def test_codes_of_warnings_are_in_the_table() -> None:
    package = Path(__file__).parents[2] / "intake_nwbzarr"
    of_opening = ("hdf5", "transport", "hierarchy", "arrays", "indexes", "mapping", "copies")
    used: set[str] = set()
    for folder in of_opening:
        for file in (package / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn_caller":
                    (code,) = (each.value for each in node.keywords if each.arg == "code")
                    used |= {each.value for each in ast.walk(code) if isinstance(each, ast.Constant)}
    assert used
    assert used <= set(CODES) | {None}
    assert {"dangling-link", "damaged-object"} <= set(CODES)


def test_every_code_of_a_session_is_tested() -> None:
    tests = "".join(file.read_text() for file in sorted(Path(__file__).parent.glob("test_check*.py")))
    untested = [
        code.name
        for code in CODES.values()
        if f'"{code.name}"' not in tests and code.area != "Of opening and copying only"
    ]
    assert untested == []


def test_the_document_can_be_read_as_json(good_report: Report, good: Path) -> None:
    document = json.loads(json.dumps(good_report.document))
    assert document["document"] == "nwbzarr-check 1.0"
    assert document["location"] == f"file://{good}"
    assert document["ok"] is True
    data = next(each for each in document["costs"] if each["path"] == f"{RAW}/data")
    assert data["window"]["requests"] == data["whole"]["requests"] == 1
    assert (
        data["stored_bytes"]
        == data["whole"]["nbytes"]
        == sum(file.stat().st_size for file in (good / RAW / "data/c").rglob("*") if file.is_file())
    )


def test_a_finding_of_something_removed_does_not_stop_the_check(good: Path, tmp_path: Path) -> None:
    path = copy_of(good, tmp_path)
    shutil.rmtree(path / ROIS)
    report = check(path)
    assert "stale-metadata" in {each.code for each in report.findings}


@pytest.mark.parametrize("document", [b"", b"{", b"\xff\xfe"])
def test_a_stored_document_that_is_damaged_is_a_finding(document: bytes, good: Path, tmp_path: Path) -> None:
    path = copy_of(good, tmp_path)
    (path / "units/id/zarr.json").write_bytes(document)
    report = check(path)
    assert [(each.code, each.path) for each in report.findings] == [("damaged-object", "units/id/zarr.json")]
    assert report.fresh is None


def test_a_region_whose_table_is_gone_is_one_finding(good: Path, tmp_path: Path) -> None:
    path = copy_of(good, tmp_path)
    without(ELECTRODES)(path)
    found = [each.code for each in check(path).findings if each.path == f"{RAW}/electrodes"]
    assert found == ["region-without-table"]
