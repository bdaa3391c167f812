"""One stored array as variables: numbers, texts, references as paths, a compound as one for each field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.hierarchy.nodes import Node
from intake_nwbzarr.neurodata.metadata import identity, storable
from intake_nwbzarr.neurodata.pieces import Dimension, Part
from intake_nwbzarr.neurodata.texts import as_text, path_text

# Attributes that identify an array, or that are shown as `units`.
_SHOWN_OTHERWISE = frozenset({"neurodata_type", "namespace", "object_id", "unit"})


def array_parts(
    owner: Node,
    name: str,
    array: StoredArray,
    dimensions: tuple[Dimension, ...],
    role: Literal["main", "variable"] = "variable",
) -> Iterator[Part]:
    """The variables of an array.

    Parameters
    ----------
    owner
        The object that the array is a part of.
    name
        The array's.
    array
        The array.
    dimensions
        One for each axis.
    role
        See `Part`.
    """
    attributes = array_attributes(owner, array)
    if array.dtype.names is not None:
        for each in array.dtype.names:
            one = array.field(each)
            made = path_text(one) if each in array.node.reference_fields else as_text(one)
            yield Part(f"{name}_{each}", dimensions, made, attributes)
    elif array.node.is_reference:
        yield Part(name, dimensions, path_text(array), attributes, role)
    else:
        yield Part(name, dimensions, as_text(array), attributes, role)


def array_attributes(owner: Node, array: StoredArray) -> dict[str, Any]:
    """An array's own attributes, and what it is a part of."""
    own = {
        name: value
        for name, value in array.node.attributes.items()
        if not name.startswith("_") and name not in _SHOWN_OTHERWISE
    }
    unit = array.node.attributes.get("unit")
    units = {"units": "s" if unit == "seconds" else unit}
    return identity(owner) | identity(array.node) | storable(units | own)
