"""One Dataset twice: with a lazy time index, and with all timestamps in a pandas index, to compare with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st
from xarray.indexes import Index, PandasIndex

from intake_nwbzarr.errors import NWBZarrError
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex

RATES = [1.0, 3.0, 7.5, 29.97, 30_000.0, 29_999.9, 0.1, 1 / 3, 24_414.0625, 6.1035e4]
STARTS = [0.0, -5.5, 0.1, 1e-3, 86_400.7, 1.6e9, -1.6e9]


@dataclass
class RecordingArray:
    """Stored timestamps that count how often, and how much of them, is read."""

    values: np.ndarray
    chunks: tuple[int, ...]
    blocks: set[int] = field(default_factory=set)
    reads: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        self.reads += 1
        (selected,) = key
        if isinstance(selected, slice):
            selected = np.arange(*selected.indices(len(self.values)))
        self.blocks |= set(np.unique(selected // self.chunks[0]).tolist())
        return self.values[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordingArray) and self.values is other.values

    __hash__ = None  # type: ignore[assignment]


def irregular(times: Any, chunk: int = 3) -> tuple[IrregularTimeIndex, RecordingArray]:
    """An index over stored timestamps, in blocks so small that every search crosses some."""
    array = RecordingArray(np.asarray(times), (chunk,))
    index = IrregularTimeIndex.from_array(array)
    index.view.timestamps.block = chunk
    return index, array


def with_index(index: Index, size: int) -> xr.Dataset:
    """A Dataset along time, of which every sample is different."""
    coordinates = xr.Coordinates.from_xindex(index)
    variables = {
        "data": (("time", "channel"), np.arange(2.0 * size).reshape(size, 2)),
        "count": ("time", np.arange(size)),
    }
    return xr.Dataset(variables, coords=coordinates)


@dataclass(frozen=True)
class Twins:
    lazy: xr.Dataset
    plain: xr.Dataset

    @property
    def times(self) -> np.ndarray:
        return self.plain.time.values


def twins(index: Index, times: Any) -> Twins:
    values = np.asarray(times, dtype=np.float64)
    plain = with_index(PandasIndex(values, "time"), len(values))
    return Twins(with_index(index, len(values)), plain)


def regular_twins(starting_time: float, rate: float, size: int) -> Twins:
    index = RegularTimeIndex.from_rate(starting_time, rate, size)
    return twins(index, starting_time + np.arange(size) / rate)


def irregular_twins(times: Any, chunk: int = 3) -> Twins:
    return twins(irregular(times, chunk)[0], times)


@st.composite
def any_regular_twins(draw: st.DrawFn) -> Twins:
    """Twins of a regular series, or of a slice of one."""
    pair = regular_twins(
        draw(st.sampled_from(STARTS) | st.floats(-1e6, 1e6)),
        draw(st.sampled_from(RATES) | st.floats(1e-2, 1e5)),
        draw(st.integers(0, 40)),
    )
    return sliced(pair, draw(slices(len(pair.times))))


@st.composite
def any_picked_twins(draw: st.DrawFn, *, ordered: bool = False) -> Twins:
    """Twins of single samples, in memory: in any order, or in either order of time."""
    pair = draw(any_regular_twins() | any_irregular_twins())
    size = len(pair.times)
    positions = draw(st.lists(st.integers(0, size - 1), max_size=8, unique=ordered) if size else st.just([]))
    if ordered:
        positions = sorted(positions, reverse=draw(st.booleans()))
    picked = Twins(*(ds.isel(time=np.array(positions, dtype=int)) for ds in (pair.lazy, pair.plain)))
    return sliced(picked, draw(slices(len(positions))))


@st.composite
def any_irregular_twins(draw: st.DrawFn, *, repeated: bool = False) -> Twins:
    """Twins of stored timestamps with gaps, or of a slice of them."""
    gaps = st.sampled_from([1e-4, 0.25, 1.0, 1.1, 1000.0] + [0.0] * repeated)
    steps = draw(st.lists(gaps, max_size=40))
    dtype = draw(st.sampled_from([np.float64, np.float32, np.dtype(">f8")]))
    times = (draw(st.sampled_from([0.0, -3.0, 5.5])) + np.cumsum(steps)).astype(dtype)
    if not repeated:
        times = np.unique(times)
    pair = irregular_twins(times, draw(st.integers(1, 12)))
    return sliced(pair, draw(slices(len(times))))


def slices(size: int) -> st.SearchStrategy[slice]:
    """Positional slices, often everything, sometimes strided or backwards."""
    ends = st.none() | st.integers(-size - 2, size + 2)
    steps = st.sampled_from([None, 1, 2, 3, 7, -1, -2, -5])
    return st.just(slice(None)) | st.builds(slice, ends, ends, steps)


def sliced(pair: Twins, positions: slice) -> Twins:
    return Twins(pair.lazy.isel(time=positions), pair.plain.isel(time=positions))


def labels_near(times: np.ndarray) -> st.SearchStrategy[float]:
    """Labels on samples, one bit beside them, between them, and outside of them."""
    if not times.size:
        return st.floats(-10, 10)
    exact = st.sampled_from(times.tolist())
    return (
        exact
        | exact.map(lambda time: float(np.nextafter(time, np.inf)))
        | exact.map(lambda time: float(np.nextafter(time, -np.inf)))
        | st.tuples(exact, exact).map(lambda both: (both[0] + both[1]) / 2)
        | st.sampled_from([times.min() - 1, times.max() + 1])
        | st.floats(times.min() - 2, times.max() + 2)
    )


def assert_same(pair: Twins, operation: Callable[[xr.Dataset], Any]) -> Any:
    """Both twins give equal results, coordinates included, or both refuse, the lazy one with our error."""
    try:
        expected = operation(pair.plain)
    except (KeyError, ValueError, TypeError, IndexError, NotImplementedError, AttributeError) as error:
        with pytest.raises((NWBZarrError, type(error))):
            force(operation(pair.lazy))
        return None
    found = operation(pair.lazy)
    assert_equal(found, expected)
    return found


def force(result: Any) -> Any:
    return result.compute() if isinstance(result, xr.Dataset | xr.DataArray) else result


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, xr.Dataset | xr.DataArray):
        xr.testing.assert_equal(found.compute(), expected.compute())
        assert set(found.xindexes) == set(expected.xindexes)
        assert list(found.coords) == list(expected.coords)
        for name, index in found.xindexes.items():
            # An index that disagrees with its coordinate would select the wrong samples later.
            np.testing.assert_array_equal(index.to_pandas_index(), expected.xindexes[name].to_pandas_index())
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif hasattr(expected, "equals"):
        assert found.equals(expected)
    else:
        np.testing.assert_array_equal(found, expected)
