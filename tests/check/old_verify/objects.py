"""Any object: its scalars, arrays and links, and what the file stores with it that pynwb has no field for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from hdmf.container import AbstractContainer
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.check.old_verify.conventions import is_mistaken, is_omitted
from tests.check.old_verify.fields import (
    TIMES,
    Field,
    fields_of,
    main_attributes,
    shown_attributes,
    shown_variable,
)
from tests.check.old_verify.findings import Difference, Equal, Finding, Unshown, shortened
from tests.check.old_verify.sides import Sides
from tests.check.old_verify.values import same, unlike


def compare_object(
    container: AbstractContainer,
    path: str,
    shown: xr.Dataset,
    sides: Sides,
    compared: Collection[str] = (),
) -> Iterator[Finding]:
    """Compare every field of an object that is not compared in a way of its own.

    Parameters
    ----------
    container
        The object.
    path
        Where it is in the file.
    shown
        The Dataset that shows it.
    sides
        Both sides.
    compared
        Names of fields, and of datasets, that the caller compares.

    Yields
    ------
    Finding
        One for each field; one for each link; one for each stored dataset or attribute without a field.
    """
    known: set[tuple[str, str | None]] = set()
    for field in fields_of(container, path, sides):
        known.add((field.dataset, field.attribute))
        if field.name not in compared:
            right = _as_stored(path, field, sides) if is_mistaken(container, field) else field
            yield from compare_field(container, path, right, shown, sides)
    for field in _without_field(path, known, sides):
        if field.name not in compared and field.dataset not in compared:
            yield from compare_field(container, path, field, shown, sides)


def _as_stored(path: str, field: Field, sides: Sides) -> Field:
    """A field that pynwb gives wrongly, with the value of the attribute that stores it."""
    node = sides.stored(f"{path}/{field.dataset}".rstrip("/"))
    assert node is not None
    return replace(field, value=node.attributes[field.attribute or ""])


def compare_field(
    container: AbstractContainer, path: str, field: Field, shown: xr.Dataset, sides: Sides
) -> Iterator[Finding]:
    """Compare one field with every place that shows it."""
    linked = list(_containers(field.value))
    if linked:
        yield from _compare_links(container, path, field, linked, shown, sides)
        return
    kind = sides.kind(path)
    outcome = _outcome(field, shown)
    if outcome is None:
        if not is_omitted(field):
            yield Unshown(path, field.name, kind, shortened(field.value))
    elif outcome:
        yield Difference(path, field.name, kind, *outcome)
    else:
        yield Equal(path, field.name, kind)


def _outcome(field: Field, shown: xr.Dataset) -> tuple[str, ...] | None:
    """What the two sides have where they differ; empty where they are equal, None where nothing is shown."""
    found = False
    for raw, variable in _variables(field, shown):
        found = True
        difference = unlike(raw, variable)
        if difference is not None:
            return difference
    for attribute in shown_attributes(shown, field):
        found = True
        value = _as_seconds(field, attribute)
        if not same(_fields_as_list(field.value), value):
            return shortened(field.value), shortened(attribute)
    return () if found else None


def _as_seconds(field: Field, attribute: Any) -> Any:
    """``s`` is how a Dataset says ``seconds``: xarray takes the latter for time differences."""
    is_seconds = field.stored_name == "unit" and same(field.value, "seconds")
    return field.value if is_seconds and attribute == "s" else attribute


def _variables(field: Field, shown: xr.Dataset) -> list[tuple[Any, xr.Variable]]:
    """Arrays and the variables that show them: one for each field of a compound.

    A list that is an attribute of a dataset, such as ``starting_frame`` of external files, may be one too.
    """
    if field.attribute is not None and (not field.dataset or np.ndim(field.value) != 1):
        return []
    names = getattr(getattr(field.value, "dtype", None), "names", None)
    if names is None:
        variable = shown_variable(shown, field.stored_name)
        if variable is None and field.stored_name in TIMES:
            variable = shown_variable(shown, "time")
        return [] if variable is None else [(field.value, variable)]
    compound = np.asarray(field.value[()] if field.value.shape == () else field.value[:])
    pairs = [(compound[name], shown_variable(shown, f"{field.stored_name}_{name}")) for name in names]
    return [(raw, variable) for raw, variable in pairs if variable is not None]


def _fields_as_list(value: Any) -> Any:
    """A single compound as its fields."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    return value if names is None else {name: np.asarray(value[()])[name] for name in names}


def _containers(value: Any) -> Iterator[AbstractContainer]:
    """The objects that a field holds."""
    if isinstance(value, AbstractContainer):
        yield value
    elif isinstance(value, Mapping):
        yield from (each for each in value.values() if isinstance(each, AbstractContainer))
    elif isinstance(value, list | tuple | set):
        yield from (each for each in value if isinstance(each, AbstractContainer))


def holds_objects(value: Any) -> bool:
    """Whether a field holds other objects, or a collection of them, be it empty."""
    return isinstance(value, AbstractContainer | Mapping) or any(True for _ in _containers(value))


def _compare_links(
    container: AbstractContainer,
    path: str,
    field: Field,
    linked: list[AbstractContainer],
    shown: xr.Dataset,
    sides: Sides,
) -> Iterator[Finding]:
    """Objects of this object's own are compared by themselves; of others, the path is shown."""
    kind = sides.kind(path)
    others = [target for target in linked if target.parent is not container]
    names = [field.stored_name, field.name, *(target.name for target in others)]
    values = [each[name] for each in _attribute_sets(shown) for name in dict.fromkeys(names) if name in each]
    paths = sorted(sides.path(target) or target.name for target in others)
    found = sorted(
        {str(path) for value in values for path in (value if isinstance(value, list) else [value])}
    )
    if not others:
        return
    if not values:
        yield Unshown(path, field.name, kind, f"links to {paths}")
    elif found == paths:
        yield Equal(path, field.name, kind)
    else:
        yield Difference(path, field.name, kind, shortened(paths), shortened(found))


def _attribute_sets(shown: xr.Dataset) -> list[Mapping[Any, Any]]:
    return [shown.attrs, main_attributes(shown)]


@dataclass(frozen=True)
class _Lazy:
    """A stored array that is read by indexing, as pynwb's are."""

    array: StoredArray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        return self.array.chunks

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return self.array.read(key)


def _without_field(path: str, known: set[tuple[str, str | None]], sides: Sides) -> Iterator[Field]:
    """What the file stores with an object and pynwb has no field for."""
    for name, value in sides.own_attributes(path):
        if ("", name) not in known:
            yield Field(name, _followed(value), "", name)
    for name in sides.hierarchy.children(path):
        where = f"{path}/{name}".strip("/")
        node = sides.hierarchy[where]
        if not isinstance(node, ArrayNode) or node.neurodata_type is not None:
            continue
        if (name, None) not in known:
            array = StoredArray(sides.hierarchy.file, node)
            yield Field(name, array.read() if node.ndim == 0 else _Lazy(array), name, None)
        for attribute, value in sides.own_attributes(where):
            if (name, attribute) not in known:
                yield Field(f"{name}.{attribute}", value, name, attribute)


def _followed(value: Any) -> Any:
    """An object reference as the path it leads to."""
    if isinstance(value, Mapping) and set(value) == {"_REFERENCE"}:
        return str(value["_REFERENCE"].get("path", "")).strip("/")
    return value
