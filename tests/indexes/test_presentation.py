"""What is shown of an index is what is known of it, without reading timestamps."""

import numpy as np
import pytest
import xarray as xr

from intake_nwbzarr.indexes import IrregularTimeIndex, LazyTimeIndex, RegularTimeIndex
from tests.indexes.twins import RecordingArray

REGULAR = RegularTimeIndex.from_rate(0.1, 30_000.0, 3_000_001)
STORED = IrregularTimeIndex.from_array(
    RecordingArray(np.arange(50.0), (7,)), source="'a<b' in s3://b/s.nwb.zarr"
)
IN_MEMORY = IrregularTimeIndex.from_array([0.5, 2.25, 7.0], dim="event")


def part(index: LazyTimeIndex, step: int) -> LazyTimeIndex:
    found = index.isel({index.dim: slice(None, None, step)})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("index", "brief"),
    [
        (REGULAR, "RegularTimeIndex (30000 Hz)"),
        (part(REGULAR, 24), "RegularTimeIndex (30000 Hz, step 24)"),
        (part(REGULAR, -1), "RegularTimeIndex (30000 Hz, step -1)"),
        (RegularTimeIndex.from_rate(0.0, 24_414.0625, 1), "RegularTimeIndex (24414.1 Hz)"),
        (STORED, "IrregularTimeIndex (stored)"),
        (IN_MEMORY, "IrregularTimeIndex (in memory)"),
    ],
)
def test_a_line_of_xarrays_repr_says_the_kind_and_the_rate(index: LazyTimeIndex, brief: str) -> None:
    dataset = xr.Dataset(coords=index.coordinates())
    assert repr(dataset).splitlines()[-1].split() == [str(index.name), *brief.split()]
    assert brief in dataset._repr_html_()


@pytest.mark.parametrize(
    ("index", "full"),
    [
        (REGULAR, "RegularTimeIndex(starting_time=0.1, rate=30000.0, size=3000001, dim='time')"),
        (
            part(part(RegularTimeIndex.from_rate(0.0, 2.5, 9), 2), -1),
            "RegularTimeIndex(starting_time=0.0, rate=2.5, first=8, stride=-2, size=5, dim='time')",
        ),
        (STORED, "IrregularTimeIndex(size=50, dim='time', source=\"'a<b' in s3://b/s.nwb.zarr\")"),
        (IN_MEMORY, "IrregularTimeIndex(size=3, dim='event')"),
    ],
)
def test_the_repr_of_an_index_says_all_that_is_known(index: LazyTimeIndex, full: str) -> None:
    assert repr(index) == full


def test_html_shows_rate_size_and_span() -> None:
    shown = REGULAR._repr_html_()
    for expected in ("RegularTimeIndex", "3,000,001 along time", "30000.0 Hz", "0.1 s to 100.1 s"):
        assert expected in shown
    assert "every -2 samples" in part(REGULAR, -2)._repr_html_()
    assert ">span<" in IN_MEMORY._repr_html_()
    assert "0.5 s to 7.0 s" in IN_MEMORY._repr_html_()
    assert REGULAR._repr_html_() in xr.Dataset(coords=REGULAR.coordinates())._repr_html_()


def test_html_of_stored_times_names_where_they_are_and_reads_none() -> None:
    array = RecordingArray(np.arange(50.0), (7,))
    index = IrregularTimeIndex.from_array(array, source="'a<b' in s3://b/s.nwb.zarr")
    shown = index._repr_html_()
    assert "50 along time" in shown
    assert "a&lt;b" in shown
    assert "a<b" not in shown
    assert array.reads == 0


def test_no_samples_are_shown_without_a_span() -> None:
    for index in (RegularTimeIndex.from_rate(0.0, 1.0, 0), IrregularTimeIndex.from_array([])):
        assert "0 along time" in index._repr_html_()
        assert ">span<" not in index._repr_html_()
