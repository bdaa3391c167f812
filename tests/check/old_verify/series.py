"""Series: data as stored and in units, times bit for bit, and the rows of the tables they point at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr
from hdmf.common import DynamicTableRegion
from numpy.typing import NDArray
from pynwb import TimeSeries

from tests.check.old_verify.fields import main_attributes
from tests.check.old_verify.findings import Difference, Equal, Finding, Unshown, shortened
from tests.check.old_verify.objects import compare_object
from tests.check.old_verify.regions import compare_region
from tests.check.old_verify.sides import Sides
from tests.check.old_verify.values import Slices, same, unlike

# The schema fixes their conversion, or their values are codes.
_NEVER_SCALED: Final = frozenset({"IndexSeries", "AnnotationSeries", "IntervalSeries"})

# What is compared here rather than field by field.
_COMPARED: Final = (
    "data",
    "timestamps",
    "starting_time",
    "rate",
    "conversion",
    "offset",
    "channel_conversion",
    "channel_conversion.axis",
    "features",
    "bands",
)

# Floating point: products in another order differ by a few units in the last place.
_ROUNDING = 8 * np.finfo(np.float64).eps


def compare_series(series: TimeSeries, path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare a series.

    Its data are expected to be ``data * conversion * channel_conversion + offset``, with channel_conversion
    along axis 1 as the schema says. pynwb's own ``get_data_in_units()`` is not asked: it raises on lazy data
    with channel_conversion, and scales the samples instead of the channels of three-dimensional data.

    Parameters
    ----------
    series
        As pynwb read it.
    path
        Where it is in the file.
    shown
        The Dataset that shows it, values in units.
    sides
        Both sides.
    """
    kind = sides.kind(path)
    yield from _compare_data(series, path, shown, kind)
    stored = sides.stored_node(path)
    if stored is not None:
        yield from _compare_as_stored(series, path, stored, sides)
    yield from _compare_time(series, path, shown, kind)
    regions = {name: each for name, each in series.fields.items() if isinstance(each, DynamicTableRegion)}
    for name, region in regions.items():
        yield from compare_region(region, name, path, shown, sides)
    if "features" in series.fields:
        yield _labels(path, "features", kind, series.features, shown, "feature")
    yield from compare_object(series, path, shown, sides, compared=(*_COMPARED, *regions))


def _compare_data(series: TimeSeries, path: str, shown: xr.Dataset, kind: str) -> Iterator[Finding]:
    data = series.data
    if data is None:
        return
    if "data" not in shown.variables:
        yield Unshown(path, "data", kind, shortened(data))
        return
    conversion = None
    if _is_scaled(series):
        conversion = partial(_in_units, series, _channel_factors(series, np.shape(data)))
    difference = unlike(data, shown.variables["data"], conversion)
    yield Equal(path, "data", kind) if difference is None else Difference(path, "data", kind, *difference)


def _is_scaled(series: TimeSeries) -> bool:
    if any(kind.__name__ in _NEVER_SCALED for kind in type(series).__mro__):
        return False
    numeric = np.dtype(getattr(series.data, "dtype", object)).kind in "biuf"
    factors = getattr(series, "channel_conversion", None)
    changes = _conversion(series) != 1.0 or _offset(series) != 0.0 or factors is not None
    return numeric and changes


def _conversion(series: TimeSeries) -> float:
    return 1.0 if series.conversion is None else float(series.conversion)


def _offset(series: TimeSeries) -> float:
    return 0.0 if series.offset is None else float(series.offset)


def _channel_factors(series: TimeSeries, shape: tuple[int, ...]) -> tuple[int, NDArray[Any]] | None:
    """The axis that channel_conversion lies along, 1 in the schema, and the factors; None: they fit none."""
    factors = getattr(series, "channel_conversion", None)
    if factors is None:
        return None
    values = np.asarray(factors[:], np.float64)
    # Data that are stored channels first have them along axis 0.
    axes = [axis for axis in (1, 0) if axis < len(shape) > 1 and shape[axis] == values.size]
    return (axes[0], values) if axes else None


def _in_units(
    series: TimeSeries, channels: tuple[int, NDArray[Any]] | None, block: NDArray[Any], place: Slices
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A block of data in units, and how far rounding may be from it."""
    product = block.astype(np.float64) * _conversion(series)
    if channels is not None:
        axis, factors = channels
        along = [1] * block.ndim
        along[axis] = -1
        product = product * factors[place[axis]].reshape(along)
    offset = _offset(series)
    return product + offset, (np.abs(product) + abs(offset)) * _ROUNDING


def _compare_as_stored(series: TimeSeries, path: str, stored: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """What ``mask_and_scale=False`` shows: the stored values, and what they are to be scaled with."""
    kind = sides.kind(path)
    if series.data is None:
        return
    if "data" not in stored.variables:
        yield Unshown(path, "data as stored", kind, shortened(series.data))
        return
    variable = stored.variables["data"]
    difference = unlike(series.data, variable)
    name = "data as stored"
    yield Equal(path, name, kind) if difference is None else Difference(path, name, kind, *difference)
    unit = sides.stored(f"{path}/data")
    expected = {
        "conversion": _conversion(series),
        "offset": _offset(series),
        # As the file has it: pynwb knows better for some types.
        "target_unit": None if unit is None else unit.attributes.get("unit"),
    }
    for name, value in expected.items():
        if value is None:
            continue
        if name not in variable.attrs:
            yield Unshown(path, name, kind, shortened(value))
        elif same(value, variable.attrs[name]):
            yield Equal(path, name, kind)
        else:
            yield Difference(path, name, kind, shortened(value), shortened(variable.attrs[name]))
    factors = getattr(series, "channel_conversion", None)
    if factors is not None:
        yield _variable(path, "channel_conversion", kind, factors, stored)


def _variable(path: str, name: str, kind: str, raw: Any, shown: xr.Dataset) -> Finding:
    if name not in shown.variables:
        return Unshown(path, name, kind, shortened(raw))
    difference = unlike(raw, shown.variables[name])
    return Equal(path, name, kind) if difference is None else Difference(path, name, kind, *difference)


def _compare_time(series: TimeSeries, path: str, shown: xr.Dataset, kind: str) -> Iterator[Finding]:
    name = _coordinate(shown, path, ("time", "timestamps"))
    timestamps = series.timestamps
    if timestamps is not None:
        if name is None:
            yield Unshown(path, "timestamps", kind, shortened(timestamps))
        else:
            difference = unlike(timestamps, shown.variables[name])
            yield (
                Equal(path, "timestamps", kind)
                if difference is None
                else Difference(path, "timestamps", kind, *difference)
            )
    elif series.rate is not None:
        yield from _compare_regular(series, path, shown, name, kind)


def _compare_regular(
    series: TimeSeries, path: str, shown: xr.Dataset, name: str | None, kind: str
) -> Iterator[Finding]:
    start, rate = float(series.starting_time), float(series.rate)
    if name is None:
        for field, value in (("starting_time", start), ("rate", rate)):
            attributes = {**main_attributes(shown), **shown.attrs}
            if field not in attributes:
                yield Unshown(path, field, kind, shortened(value))
            elif same(value, attributes[field]):
                yield Equal(path, field, kind)
            else:
                yield Difference(path, field, kind, shortened(value), shortened(attributes[field]))
        return
    variable = shown.variables[name]
    samples = _samples(series, shown, str(variable.dims[0]) if variable.dims else "")
    difference = unlike(_Regular(start, rate, samples), variable)
    found = Equal(path, "starting_time, rate", kind)
    yield found if difference is None else Difference(path, "starting_time, rate", kind, *difference)


def _samples(series: TimeSeries, shown: xr.Dataset, along: str) -> int:
    """How many samples a regular series has: of its data along time, or as many as an external movie says."""
    shape = np.shape(series.data)
    if "data" in shown.variables and along in shown.variables["data"].dims:
        return int(shape[shown.variables["data"].dims.index(along)])
    count = getattr(series, "num_samples", None)
    return int(shape[0] if count is None else count)


class _Regular:
    """``starting_time + k / rate``, computed where it is indexed."""

    def __init__(self, start: float, rate: float, samples: int) -> None:
        self.start, self.rate = start, rate
        self.shape = (samples,)

    def __getitem__(self, key: tuple[slice]) -> NDArray[np.float64]:
        (part,) = key
        # Bit for bit, so in this order.
        return self.start + np.arange(part.start, part.stop) / self.rate


def _coordinate(shown: xr.Dataset, path: str, words: tuple[str, ...]) -> str | None:
    """The name of a coordinate: the object's comes first where a node above has a dimension of that name."""
    own = path.rpartition("/")[2]
    names = [name for word in words for name in (word, f"{own}_{word}")]
    return next((name for name in names if name in shown.variables), None)


def _labels(path: str, name: str, kind: str, raw: Any, shown: xr.Dataset, word: str) -> Finding:
    """Short lists that label a dimension, or are an attribute where they do not fit it."""
    found = _coordinate(shown, path, (word,))
    if found is not None:
        difference = unlike(raw, shown.variables[found])
        return Equal(path, name, kind) if difference is None else Difference(path, name, kind, *difference)
    main = main_attributes(shown)
    for attributes in (main, shown.attrs):
        if name in attributes and same(raw, attributes[name]):
            return Equal(path, name, kind)
    return Unshown(path, name, kind, shortened(raw))
