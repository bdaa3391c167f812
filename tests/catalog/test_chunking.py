"""Datasets of dask arrays: what is chunked, what is not, and how."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import intake
import numpy as np
import pytest
import xarray as xr

from intake_nwbzarr.catalog import chunking
from intake_nwbzarr.catalog.reader import NWBZarrReader
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.transport.request_log import track_requests

SERIES, TIME = "ElectricalSeriesAP", "ElectricalSeriesAP_time"


@pytest.fixture
def session(corpus_dir: Callable[[str, str], Path]) -> Path:
    return corpus_dir("ecephys", "0.14.0")


def read(session: Path, chunks: Any = "auto") -> xr.Dataset:
    dataset: xr.Dataset = intake.open_nwbzarr(session, chunks=chunks).read()
    return dataset


class TestLabels:
    """Coordinates that say what the rows of an axis are."""

    def test_data_are_grouped_by_them(self, session: Path) -> None:
        series = read(session)[SERIES]
        assert dask.is_dask_collection(series.data)
        means = series.groupby("electrodes_location").mean()
        expected = xr.open_dataset(session, engine="nwbzarr")[SERIES].groupby("electrodes_location").mean()
        xr.testing.assert_allclose(means.compute(), expected)

    def test_masks_of_them_select(self, session: Path) -> None:
        dataset = read(session)
        location = str(dataset.electrodes_location.values[0])
        chosen = dataset.isel(electrodes=dataset.electrodes_location == location)
        count = int((dataset.electrodes_location.values == location).sum())
        assert chosen[SERIES].sizes["electrodes"] == count > 0
        assert dask.is_dask_collection(chosen[SERIES].data)

    def test_they_are_read_when_they_are_used_and_once(self, session: Path) -> None:
        with track_requests() as log:
            dataset = read(session)
            opened = log.requests
            repr(dataset)
            assert log.requests == opened
            first = dataset.electrodes_location == "CA1"
            loaded = log.requests
            assert loaded > opened
            xr.testing.assert_equal(dataset.electrodes_location == "CA1", first)
            assert log.requests == loaded

    def test_very_many_are_chunked(self, session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunking, "SMALL_COORDINATE", 7)
        assert dask.is_dask_collection(read(session).electrodes_location.data)


class TestSizes:
    """The argument ``chunks``."""

    @pytest.mark.parametrize("chunks", [{}, "auto", {TIME: "auto"}, {TIME: None}])
    def test_preferred_chunks_unless_asked_for_others(self, session: Path, chunks: Any) -> None:
        preferred = xr.open_dataset(session, engine="nwbzarr")[SERIES].encoding["preferred_chunks"]
        assert read(session, chunks)[SERIES].chunksizes == {dim: (size,) for dim, size in preferred.items()}

    @pytest.mark.parametrize("chunks", ["auto", "64MB", {"units": "64MB"}, 500, -1])
    def test_all_are_accepted_for_sessions_with_strings(self, session: Path, chunks: Any) -> None:
        dataset = read(session, chunks)
        assert dataset["units_quality"].dtype == object
        xr.testing.assert_identical(dataset.compute(), xr.open_dataset(session, engine="nwbzarr").compute())

    @pytest.mark.parametrize("given", [{}, {"group": "units"}])
    def test_none_gives_lazy_variables_without_dask(self, session: Path, given: dict[str, Any]) -> None:
        expected = xr.open_dataset(session, engine="nwbzarr", **given)
        source = intake.open_nwbzarr(session, chunks=None, **given)
        again = pickle.loads(pickle.dumps(source))
        reader = NWBZarrReader(str(session), chunks=None, **given)
        for entry in (source, again, reader):
            with track_requests() as log:
                dataset = entry.read()
                opened = log.requests
                assert not any(dask.is_dask_collection(each.variable._data) for each in dataset.values())
                assert log.requests == opened
            xr.testing.assert_identical(dataset.compute(), expected.compute())
            assert any(map(dask.is_dask_collection, entry.to_dask().values()))
            assert not any(map(dask.is_dask_collection, entry.to_datatree().to_dict().values()))
        assert "chunks: null" in source.yaml()
        assert "chunks" not in intake.open_nwbzarr(session).yaml()

    def test_bytes_size_numeric_arrays_along_their_first_dimension(self, session: Path) -> None:
        dataset = read(session, "64kB")
        (first, *_), channels = dataset[SERIES].chunks
        assert channels == (8,)
        assert first == 64_000 // (8 * 8)
        assert dataset["units_quality"].chunks == ((6,),)

    def test_bytes_for_a_dimension_size_that_one(self, session: Path) -> None:
        series = read(session, {"electrodes": "48kB"})[SERIES]
        assert series.chunks == ((3000,), (2, 2, 2, 2))
        halves = read(session, {"electrodes": "48kB", TIME: 1500})[SERIES]
        assert halves.chunks == ((1500, 1500), (4, 4))

    def test_larger_chunks_are_whole_multiples_of_the_preferred(self) -> None:
        preferred = {"preferred_chunks": {"t": 30, "c": 2}}
        variable = xr.Variable(("t", "c"), np.zeros((1000, 2)), encoding=preferred)
        assert chunking._chunk_sizes(variable, 16.0 * 100) == {"t": 90, "c": 2}
        assert chunking._chunk_sizes(variable, 16.0 * 10_000) == {"t": 1000, "c": 2}
        assert chunking._chunk_sizes(variable, 1.0) == {"t": 1, "c": 2}
        assert chunking._chunk_sizes(variable, {"t": 16.0 * 100, "c": -1}) == {"t": 90, "c": -1}

    @pytest.mark.parametrize("wrong", [0, -2, True, 1.5, "", "0MB", "many", (), (1, 0), object])
    @pytest.mark.parametrize("by_dimension", [False, True])
    def test_what_means_nothing_is_an_error_that_says_what_would(
        self, session: Path, wrong: Any, by_dimension: bool
    ) -> None:
        with pytest.raises(OptionError, match="chunks must be a length, -1 for a whole dimension, bytes"):
            read(session, {TIME: wrong} if by_dimension else wrong)
