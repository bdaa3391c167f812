"""A converted session is what hdmf-zarr's export writes of it, and plain NWBZarrIO reads the same values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBHDF5IO

from intake_nwbzarr import convert, open_hierarchy, open_nwb
from tests.conftest import SESSIONS
from tests.conversion.sessions import nodes, read_by_upstream

type Corpus = Callable[[str, str], Path]


def _as_written_now(found: dict[str, Any]) -> dict[str, Any]:
    """Return nodes without what pynwb writes in its own version, whatever it read."""
    for attributes, _, _ in found.values():
        attributes.pop("nwb_version", None)
        if attributes.get("neurodata_type") == "ElectrodesTable":
            attributes |= {"neurodata_type": "DynamicTable", "namespace": "hdmf-common"}
    return found


@pytest.mark.parametrize(("kind", "release"), SESSIONS)
def test_a_session_of_any_release_becomes_what_hdmf_zarr_exports(
    kind: str, release: str, corpus_dir: Corpus, tmp_path: Path
) -> None:
    source, target, exported = corpus_dir(kind, release), tmp_path / "a.nwb.zarr", tmp_path / "exported"
    done = convert(source, target)
    assert done.is_equal
    assert done.verification is not None
    assert (done.problems, done.skipped, done.unverified) == ({}, {}, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_nwb(source) as nwbfile, NWBZarrIO(str(exported), "w") as io:
            io.export(nwbfile.read_io, nwbfile=nwbfile, write_args={"link_data": False})
    assert _as_written_now(nodes(target)) == _as_written_now(nodes(exported))
    by_upstream = read_by_upstream(target, source)
    assert by_upstream.different == ()
    assert len(by_upstream.equal) > 100
    # The cached schemas as well, which hdmf-zarr before 0.14 left out of the consolidated metadata.
    before = open_hierarchy(source, consolidated=False)
    after = open_hierarchy(target)
    assert after.consolidated
    assert (after.zarr_format, set(after)) == (3, set(before))
    assert after[""].attributes[".specloc"] == "specifications"


@pytest.mark.parametrize(
    ("kind", "release"), [("ecephys", "0.14.0"), pytest.param("icephys", "0.14.0", marks=pytest.mark.slow)]
)
def test_an_hdf5_file_becomes_what_hdmf_zarr_exports(
    kind: str, release: str, corpus_dir: Corpus, tmp_path: Path
) -> None:
    source, target, exported = tmp_path / "a.nwb", tmp_path / "a.nwb.zarr", tmp_path / "exported"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_nwb(corpus_dir(kind, release)) as nwbfile, NWBHDF5IO(str(source), "w") as io:
            io.export(nwbfile.read_io, nwbfile=nwbfile, write_args={"link_data": False})
        with NWBHDF5IO(str(source), "r") as opened, NWBZarrIO(str(exported), "w") as io:
            io.export(opened, write_args={"link_data": False})
    assert convert(source, target).is_equal
    assert nodes(target) == nodes(exported)
    assert read_by_upstream(target, source).different == ()


@pytest.mark.slow
def test_a_session_of_every_type_becomes_what_hdmf_zarr_reads(
    every_type_path: Path, every_series_path: Path, tmp_path: Path
) -> None:
    for number, source in enumerate((every_type_path, every_series_path)):
        target = tmp_path / f"{number}.nwb.zarr"
        assert convert(source, target).is_equal
        assert nodes(target) == nodes(source)
        assert read_by_upstream(target, source).different == ()
