"""From a scan over a search to a table of results: the catalog's map, and what the page on it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest
import xarray as xr
from pynwb import TimeSeries
from pynwb.file import Subject

import intake_nwbzarr
from intake_nwbzarr import Find
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.map.map_result import MapResult
from tests.servers.s3_server import S3Server
from tests.session_files import empty_session, write

PAGE = Path(__file__).parents[2] / "docs/many-sessions.md"
COUNT = 4


def _write_lab(folder: Path) -> None:
    """Write sessions of mice and rats that run, in two units of speed; one has two such series."""
    for number in range(COUNT):
        species = "Mus musculus" if number < 3 else "Rattus norvegicus"
        nwbfile = empty_session(
            session_id=f"ses-{number}",
            subject=Subject(subject_id=f"m{number}", species=species, age="P90D", sex="F"),
        )
        for unit in range(number + 1):
            nwbfile.add_unit(spike_times=np.arange(0.05, 10, 0.5 + unit / 10))
        unit_of_speed, speed = ("cm/s", 20.0) if number % 2 else ("m/s", 0.2)
        for name in ("running_speed", *(["wheel_speed"] if number == 2 else [])):
            data = np.abs(np.sin(np.arange(100) / 7)) * speed
            nwbfile.add_acquisition(TimeSeries(name=name, data=data, unit=unit_of_speed, rate=10.0))
        write(folder, nwbfile, f"s{number}.nwb.zarr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sessions of a lab: read them only."""
    folder = tmp_path_factory.mktemp("lab")
    _write_lab(folder)
    return folder


@pytest.fixture
def lab(folder: Path, tmp_path: Path) -> SessionCatalog:
    table = tmp_path / "lab.parquet"
    intake_nwbzarr.scan(str(folder), output=str(table))
    catalog: SessionCatalog = intake.open_nwbzarr_sessions(str(table), {"lab": {"prefix": str(folder)}})
    return catalog


def tuning(units: xr.Dataset, speed: xr.Dataset) -> xr.DataArray:
    """Return firing rates by speed in cm/s."""
    counts = units.nwb.bin(0.1, stop=speed.nwb.stop).spike_counts
    running = speed.nwb.resample_like(counts, "mean").data
    running = running * (100 if speed.data.attrs["units"] == "m/s" else 1)
    return (
        (counts / 0.1).groupby_bins(running.rename("speed"), np.arange(-1, 31, 5)).mean("time").rename("rate")
    )


def _found(lab: SessionCatalog) -> SessionCatalog:
    speed = Find("TimeSeries", name="*speed*", unit=["cm/s", "m/s"])
    return lab.search(species="mouse", units=Find("Units"), speed=speed)


def test_the_whole_question_is_answered(lab: SessionCatalog, tmp_path: Path) -> None:
    mice = _found(lab)
    done: Any = mice.map(tuning, name="tuning-1", folder=tmp_path / "results")
    assert done.frame.index.names == ["session", "unit", "speed_bins"]
    assert sorted(set(done.frame.subject_id)) == ["m0", "m1"]
    assert set(done.frame.species) == {"Mus musculus"}
    assert set(done.frame.session_id) == {"ses-0", "ses-1"}
    # Two series match in one session, and nobody said which is meant.
    assert done.failures.error.tolist() == ["OptionError"]
    assert "multiple='first'" in done.failures.message[0]
    for key in done.sessions:
        place = key
        units = xr.open_dataset(place, engine="nwbzarr", group="units")
        speed = xr.open_dataset(place, engine="nwbzarr", group="acquisition/running_speed")
        xr.testing.assert_equal(done.result(key), tuning(units, speed))
    assert done.provenance.tables == lab.tables.digest
    opened = mice.open(done.sessions[0])
    assert set(opened) == {"units", "speed"}


def test_private_sessions_are_read_with_the_options_of_their_storage(
    folder: Path, s3_server: S3Server, tmp_path: Path
) -> None:
    url = s3_server.upload(s3_server.private_bucket, "maplab/s0.nwb.zarr", folder / "s0.nwb.zarr")
    table = tmp_path / "lab.parquet"
    intake_nwbzarr.scan(url, output=str(table), storage_options=s3_server.signed_options, storage="lab")
    trusted = SessionCatalog(str(table), {"lab": s3_server.signed_options})
    done: Any = _found(trusted).map(tuning)
    assert len(done.failures) == 0
    # Without options of their own, results are written with those of the entry for their prefix.
    place = f"s3://{s3_server.private_bucket}/maplab-results"
    entry = {**s3_server.signed_options, "prefix": f"s3://{s3_server.private_bucket}"}
    kept: Any = _found(SessionCatalog(str(table), {"lab": entry})).map(tuning, folder=place)
    assert MapResult.load(place, s3_server.signed_options).sessions == kept.sessions == [url]
    combined = kept.to_xarray("unit")
    middles = [each.mid for each in combined.speed_bins.values]
    combined.assign_coords(speed_bins=middles).to_netcdf(tmp_path / "rates.nc")
    elsewhere = SessionCatalog(str(table), {"lab": {**s3_server.signed_options, "prefix": "s3://another/"}})
    done = _found(elsewhere).map(tuning)
    assert done.failures.session.tolist() == [url]
    assert not done.failures.transient.any()


def test_a_function_that_does_not_fit_the_search_is_refused(lab: SessionCatalog) -> None:
    with pytest.raises(OptionError, match="names of the search's conditions"):
        _found(lab).map(lambda units: 1)
    with pytest.raises(OptionError, match="give='dataset'"):
        lab.map(tuning)
    done: Any = lab.map(lambda session: session.attrs["subject_id"], give="dataset")
    assert sorted(done.frame.value) == ["m0", "m1", "m2", "m3"]


def test_the_block_of_the_page_runs(
    lab: SessionCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text().partition("## Map a function")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {"lab": lab.search(session_id=["ses-0", "ses-1", "ses-3"])}
    for block in blocks:
        exec(compile(block, "many-sessions.md", "exec"), names)
    assert len(names["tried"].sessions) == 3
    assert names["done"].frame.spike_counts.gt(0).any()
    assert len(names["done"].failures) == 0
    assert (tmp_path / "results/tuning-1/provenance.json").exists()
