"""Regions: the rows of a table that a series or another object points at, as labels and joined columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import xarray as xr
from hdmf.common import DynamicTable, DynamicTableRegion, VectorData, VectorIndex
from hdmf.common.table import EnumData
from hdmf.container import AbstractContainer
from numpy.typing import NDArray
from pynwb.base import TimeSeriesReferenceVectorData

from tests.check.old_verify.fields import main_attributes
from tests.check.old_verify.findings import Difference, Equal, Finding, Unshown, shortened
from tests.check.old_verify.objects import compare_object
from tests.check.old_verify.sides import Sides
from tests.check.old_verify.values import unlike

# What a dimension along a region's rows is called.
_WORDS: Final = {
    "electrodes": ("channel", "electrode", "region"),
    "source_channels": ("channel", "electrode", "region"),
    "rois": ("roi", "region"),
}


def compare_region(
    region: DynamicTableRegion, name: str, path: str, shown: xr.Dataset, sides: Sides
) -> Iterator[Finding]:
    """Compare a region: the ids of its rows with the labels of a dimension, the table's columns as joined.

    Parameters
    ----------
    region
        As pynwb read it.
    name
        Of the field that holds it: ``electrodes``, ``rois``.
    path
        The object that holds it.
    shown
        The Dataset that shows that object.
    sides
        Both sides.
    """
    kind = sides.kind(path)
    rows = np.atleast_1d(np.asarray(region.data[:], np.int64))
    table = region.table
    # An extension may call a region as it likes: it labels an axis of the data all the same.
    axes = [str(axis) for axis in shown["data"].dims[1:]] if "data" in shown.variables else []
    words = _WORDS.get(name, (name, name.removesuffix("s"), *axes))
    dimension = _dimension(shown, path, words, rows.size)
    if dimension is None:
        yield Unshown(path, name, kind, shortened(rows))
        return
    ids = rows if table is None else np.asarray(table.id.data[:])[rows]
    difference = unlike(ids, shown.variables[dimension])
    yield Equal(path, name, kind) if difference is None else Difference(path, name, kind, *difference)
    yield from _compare_attributes(region, name, path, shown, dimension, sides)
    if table is not None:
        yield from _compare_joined(table, rows, name, path, shown, dimension, kind, sides)


def _dimension(shown: xr.Dataset, path: str, words: tuple[str, ...], size: int) -> str | None:
    own = path.rpartition("/")[2]
    names = [name for word in words for name in (word, f"{own}_{word}")]
    found = [name for name in names if name in shown.variables and shown.sizes.get(name) == size]
    return found[0] if found else None


def _compare_attributes(
    region: DynamicTableRegion, name: str, path: str, shown: xr.Dataset, dimension: str, sides: Sides
) -> Iterator[Finding]:
    """What describes the region, ``<region>_description``; its table is where the labels come from."""
    main = main_attributes(shown)
    prefix = f"{name}_"
    attributes = {
        str(key).removeprefix(prefix): value
        for key, value in {**main, **shown.attrs}.items()
        if str(key).startswith(prefix)
    }
    ids = str(shown[dimension].attrs.get("nwb_path", ""))
    attributes.setdefault("table", ids.rpartition("/")[0])
    # Several series may share one region, each by a link of its own.
    yield from compare_object(
        region, f"{path}/{name}", xr.Dataset(attrs=attributes), sides, compared=("data",)
    )


def _compare_joined(
    table: DynamicTable,
    rows: NDArray[np.int64],
    name: str,
    path: str,
    shown: xr.Dataset,
    dimension: str,
    kind: str,
    sides: Sides,
) -> Iterator[Finding]:
    """Every plain column of the table is a coordinate along the rows; prefixed where its name is taken."""
    for column in filter(_is_plain, map(table.__getitem__, table.colnames)):
        label = f"{name}.{column.name}"
        names = (column.name, f"electrode_{column.name}", f"{dimension}_{column.name}")
        joined = (shown.variables.get(each) for each in names if each != dimension)
        variable = next((each for each in joined if each is not None and each.dims == (dimension,)), None)
        values = _chosen(column, rows, sides)
        if variable is None:
            yield Unshown(path, label, kind, shortened(values))
            continue
        difference = unlike(values, variable)
        yield Equal(path, label, kind) if difference is None else Difference(path, label, kind, *difference)


def _is_plain(column: VectorData) -> bool:
    compound = getattr(getattr(column.data, "dtype", None), "names", None)
    apart = isinstance(column, VectorIndex | DynamicTableRegion | TimeSeriesReferenceVectorData)
    return not apart and not compound and len(np.shape(column.data)) == 1


def _chosen(column: VectorData, rows: NDArray[np.int64], sides: Sides) -> NDArray[Any]:
    values = column.data[:] if len(column.data) else []
    if len(values) and isinstance(values[0], AbstractContainer):
        return np.asarray([sides.path(values[row]) for row in rows], object)
    if isinstance(column, EnumData):
        return np.asarray(column.elements.data[:])[np.asarray(values)[rows]]
    return np.asarray(values)[rows]
