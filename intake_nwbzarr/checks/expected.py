"""Expected values: what xarray should show of an array that pynwb reads, by the type of its object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from hdmf.common import DynamicTableRegion, VectorIndex
from hdmf.common.table import EnumData
from hdmf.container import AbstractContainer
from numpy.typing import NDArray
from pynwb import NWBFile, TimeSeries
from pynwb.base import TimeSeriesReferenceVectorData
from pynwb.event import TimestampVectorData

from intake_nwbzarr.checks.compare import Allowed, Conversion, OneField, Slices
from intake_nwbzarr.checks.raw_fields import RawField, RawFile

# The schema fixes the conversion of these series, or their values are codes.
_NEVER_SCALED: Final = frozenset({"IndexSeries", "AnnotationSeries", "IntervalSeries"})

# Floating point: products in another order differ by a few units in the last place.
_ROUNDING = 8 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Expected:
    """The values that a variable is expected to have."""

    name: str  # in findings
    part: str  # the variable's `nwb_field`, `ragged_bound` or `nwb_derived`; empty for the array itself
    values: Any
    conversion: Conversion | None = None  # to what is shown
    is_optional: bool = False  # no finding where it is not shown


def expected_values(
    field: RawField, raw: RawFile, samples: int | None, *, in_units: bool
) -> Iterator[Expected]:
    """Yield the values that are expected of the variables of a field's array.

    `samples` is how many times are shown of a series that has a `starting_time`.
    """
    column, name, data = field.container, field.name, field.value
    if field.attribute is not None:
        yield Expected(name, field.attribute, data)
    elif isinstance(column, TimeSeries) and name == "starting_time" and samples is not None:
        yield Expected("starting_time, rate", "", _RegularTimes(float(data), column.rate, samples))
    elif isinstance(column, TimeSeries) and name == "data" and in_units and _is_scaled(column):
        yield Expected(name, "", data, _scaled(column, np.shape(data)))
    elif isinstance(column, VectorIndex):
        yield from _bounds(name.removesuffix("_index"), np.asarray(data[:], np.int64))
    elif isinstance(column, TimeSeriesReferenceVectorData):
        yield from _sample_references(name, data, raw)
    elif isinstance(column, DynamicTableRegion):
        yield Expected(name, "", data)
        if column.table is not None:
            yield Expected(f"{name}_id", "id", data, _looked_up(column.table.id.data))
    elif isinstance(column, EnumData):
        yield Expected(name, "", data, _looked_up(column.elements.data))
    elif isinstance(column, TimestampVectorData):
        yield Expected(name, "", data, _from_start_of(raw.nwbfile))
    elif _holds_objects(data):
        paths = [raw.path_or_name(each) for each in _every(data)]
        yield Expected(name, "", np.asarray(paths, object))
        names = np.asarray([path.rpartition("/")[2] for path in paths], object)
        yield Expected(f"{name}_name", "name", names, is_optional=True)
    elif fields := _field_names(compound := _as_stored(data)):
        for each in fields:
            yield Expected(f"{name}_{each}", each, OneField(compound, each))
    else:
        yield Expected(name, "", data)


def _as_stored(data: Any) -> Any:
    """Return the dataset below one that lists the types of its fields, as hdmf reads compounds of HDF5."""
    return data.dataset if isinstance(getattr(data, "dtype", None), list) else data


def _field_names(data: Any) -> tuple[str, ...]:
    return getattr(getattr(data, "dtype", None), "names", None) or ()


def _bounds(name: str, ends: NDArray[np.int64]) -> Iterator[Expected]:
    """Yield the start and count of each row's values; the start of an empty row may be any."""
    starts = np.concatenate([[0], ends[:-1]]) if ends.size else ends
    counts = ends - starts
    yield Expected(f"{name}_count", "count", counts)
    allowed = np.where(counts > 0, 0.0, np.inf)
    yield Expected(f"{name}_start", "start", starts, lambda block, place: (block, lambda: allowed[place]))


def _looked_up(table: Any) -> Conversion:
    """Return a conversion of positions to what is there."""
    values = np.asarray(table[:])
    return lambda block, _: (values[np.asarray(block, np.int64)], None)


def _from_start_of(nwbfile: NWBFile) -> Conversion:
    """Return a conversion of times from the session's start to times from its zero of time."""
    offset = (nwbfile.session_start_time - nwbfile.timestamps_reference_time).total_seconds()
    return lambda block, _: (np.asarray(block, np.float64) + offset, None)


def _sample_references(name: str, data: Any, raw: RawFile) -> Iterator[Expected]:
    """Yield references to samples of series; start and count of -1 say that nothing was recorded."""
    references = [tuple(each) for each in _every(data)]
    starts, counts = (np.asarray([each[at] for each in references], np.int32) for at in (0, 1))
    paths = ["" if min(start, count) < 0 else raw.path_or_name(series) for start, count, series in references]
    yield Expected(f"{name}_sample_start", "idx_start", starts)
    yield Expected(f"{name}_sample_count", "count", counts)
    yield Expected(f"{name}_path", "timeseries", np.asarray(paths, object))


def _every(data: Any) -> list[Any]:
    return [data[position] for position in range(len(data))]


def _holds_objects(data: Any) -> bool:
    shape = getattr(data, "shape", None) or np.shape(data)
    return len(shape) == 1 and shape[0] > 0 and isinstance(data[0], AbstractContainer)


@dataclass(frozen=True)
class _RegularTimes:
    """The times ``starting_time + k / rate``, computed when indexed."""

    start: float
    rate: float | None
    samples: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.samples,)

    def __getitem__(self, key: tuple[slice]) -> NDArray[np.float64]:
        (part,) = key
        # Bit for bit, so in this order.
        return self.start + np.arange(part.start, part.stop) / (self.rate or 1.0)


def _is_scaled(series: TimeSeries) -> bool:
    if any(kind.__name__ in _NEVER_SCALED for kind in type(series).__mro__):
        return False
    numeric = np.dtype(getattr(series.data, "dtype", object)).kind in "biuf"
    factors = getattr(series, "channel_conversion", None)
    return numeric and (series.conversion not in {None, 1.0} or bool(series.offset) or factors is not None)


def _scaled(series: TimeSeries, shape: tuple[int, ...]) -> Conversion:
    """Return a conversion to ``data * conversion * channel_conversion + offset``, and its rounding.

    channel_conversion lies along axis 1, as the schema says; along axis 0 of data stored channels first.
    pynwb's own ``get_data_in_units()`` is not asked: it raises on lazy data with channel_conversion, and
    scales the samples instead of the channels of three-dimensional data.
    """
    conversion = 1.0 if series.conversion is None else float(series.conversion)
    offset = float(series.offset or 0.0)
    stored = getattr(series, "channel_conversion", None)
    factors = np.ones(1) if stored is None else np.asarray(stored[:], np.float64)
    axes = [axis for axis in (1, 0) if axis < len(shape) > 1 and shape[axis] == factors.size]

    def convert(block: NDArray[Any], place: Slices) -> tuple[NDArray[Any], Allowed]:
        product = np.multiply(block, conversion, dtype=np.float64)
        if stored is not None and axes:
            along = [1] * block.ndim
            along[axes[0]] = -1
            product *= factors[place[axes[0]]].reshape(along)
        # Adding 0 takes as long as all the rest.
        values = product + offset if offset else product
        return values, lambda: (np.abs(product) + abs(offset)) * _ROUNDING

    return convert
