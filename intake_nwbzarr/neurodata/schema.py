"""Reading type definitions: which type extends which, and what its datasets' dimensions are called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

type DimensionNames = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class TypeDefinition:
    """What a schema says about a type, as far as this package needs it.

    Parameters
    ----------
    parent
        The type it extends, None for the roots ``Container`` and ``Data``.
    dimensions
        For each dataset that it (re)defines with named dimensions: the names, one tuple for each number of
        dimensions allowed, in the schema's order. A type that is itself a dataset, such as ``RGBImage``, has
        its own dimensions under the empty name.
    unnamed
        The datasets that have dimensions, of which the schema gives no names.
    """

    parent: str | None
    dimensions: Mapping[str, DimensionNames] = field(default_factory=dict, hash=False)
    unnamed: frozenset[str] = frozenset()


def definitions(document: Mapping[str, Any]) -> Iterator[tuple[str, TypeDefinition]]:
    """The types that a schema document defines, nested ones included.

    Parameters
    ----------
    document
        A file of the NWB schema language: lists of specifications under ``groups`` and ``datasets``.
    """
    for kind in ("groups", "datasets"):
        for specification in document.get(kind) or ():
            yield from definitions(specification)
            name = _either(specification, "neurodata_type_def", "data_type_def")
            if name is not None:
                parent = _either(specification, "neurodata_type_inc", "data_type_inc")
                itself = {"name": "", "dims": specification.get("dims")}
                dimensions = {
                    str(dataset["name"]): names
                    for dataset in (itself, *(specification.get("datasets") or ()))
                    if dataset.get("name") is not None and (names := _dimension_names(dataset.get("dims")))
                }
                shaped = {
                    str(dataset["name"])
                    for dataset in specification.get("datasets") or ()
                    if dataset.get("name") is not None and (dataset.get("shape") or dataset.get("dims"))
                }
                yield name, TypeDefinition(parent, dimensions, frozenset(shaped - dimensions.keys()))


def _either(specification: Mapping[str, Any], *keys: str) -> str | None:
    return next((str(specification[key]) for key in keys if specification.get(key)), None)


def _dimension_names(dims: Any) -> DimensionNames:
    # The schema language allows one list of names, or a list of such lists for alternative shapes.
    if not dims:
        return ()
    options = dims if all(isinstance(option, list) for option in dims) else [dims]
    return tuple(tuple(map(str, option)) for option in options if not all(map(_is_dummy, option)))


def _is_dummy(name: object) -> bool:
    """Whether a dimension's name says nothing.

    hdmf's `DatasetSpec` writes ``dim_0``, ``dim_1``, ... into a schema that has a shape and no dims: one for
    each axis, or for each of several alternative shapes.
    """
    return re.fullmatch(r"(dim_?\d+|None|null|)", str(name)) is not None
