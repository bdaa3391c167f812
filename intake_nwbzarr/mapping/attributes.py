"""Attributes, links and small datasets of objects and of the session, as xarray attributes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import Readable, StoredArray
from intake_nwbzarr.arrays.computed import Elementwise
from intake_nwbzarr.errors import LinkError, MetadataError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, Reference, parse_reference
from intake_nwbzarr.hierarchy.nodes import ArrayNode, Node
from intake_nwbzarr.mapping.model import ArrayPart, Dimension, Mapper, free_name, stored, values_or_none
from intake_nwbzarr.mapping.schema import core_type, definition_of, is_scalar
from intake_nwbzarr.untrusted_input import LONGEST_ATTRIBUTE

_STRINGS = np.dtype(object)


def as_text(array: Readable) -> Readable:
    """Return fixed-width text as Python strings, which xarray can compute with; other arrays unchanged."""
    return Elementwise(_strings, (array,), _STRINGS) if array.dtype.kind in "SU" else array


def path_text(array: Readable) -> Readable:
    """Return object references as the paths of their targets, without leading slash; empty where missing."""
    return Elementwise(paths_of, (array,), _STRINGS)


def short_name(array: Readable) -> Readable:
    """Return object references as the names of their targets."""
    return Elementwise(_names, (array,), _STRINGS)


def valid_path(path: Readable, start: Readable, count: Readable) -> Readable:
    """Return the paths of references to samples; empty where start and count are negative (none)."""
    return Elementwise(_valid_paths, (path, start, count), _STRINGS)


def translated(array: Readable, pairs: tuple[tuple[str, str], ...]) -> Readable:
    """Return object references as the text that `pairs` has for each path; empty for other paths."""
    return Elementwise(_translated, (array,), _STRINGS, (pairs,))


def as_strings(values: NDArray[Any]) -> NDArray[Any]:
    """Return values that have been read as `as_text` would."""
    return _strings(values) if values.dtype.kind in "SU" else values


def _strings(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return values.astype(object)


def paths_of(values: NDArray[Any]) -> NDArray[Any]:
    """Return references that have been read as `path_text` would."""
    return _each(_path, values)


def _names(values: NDArray[Any]) -> NDArray[Any]:
    return _each(lambda value: _path(value).rpartition("/")[2], values)


def _valid_paths(paths: NDArray[Any], starts: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    recorded = (np.asarray(starts) >= 0) & (np.asarray(counts) >= 0)
    return np.where(recorded, paths_of(paths), "").astype(object)


def _translated(pairs: tuple[tuple[str, str], ...], values: NDArray[Any]) -> NDArray[Any]:
    meaning = dict(pairs)
    return _each(lambda value: meaning.get(_path(value), ""), values)


def _each(function: Callable[[object], str], values: NDArray[Any]) -> NDArray[Any]:
    result = np.empty(np.shape(values), object)
    for position, value in np.ndenumerate(values):
        result[position] = function(value)
    return result


def _path(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if not text:
        return ""
    try:
        return linked(parse_reference(text, where="An object reference"))
    except LinkError:
        return text


SUBJECT = "general/subject"

# The groups whose datasets and attributes are metadata of the session.
_OF_SESSION = ("", "general", SUBJECT)

# The first attributes; the others follow in the file's order.
_FIRST = (
    "session_description",
    "session_start_time",
    "timestamps_reference_time",
    "identifier",
    "session_id",
)

# The attributes of a single object's Dataset: its subject, and the session's zero of time.
_ESSENTIAL = (
    "session_start_time",
    "timestamps_reference_time",
    "identifier",
    "general/session_id",
    f"{SUBJECT}/subject_id",
    f"{SUBJECT}/species",
)

OF_WHOM = ("session_id", "subject_id", "subject_species")
"""Attributes of the session in a single object's Dataset, unless the object has attributes of these names."""

# Lists in the schema, also if they have one element; other datasets of one element are scalars.
_LISTS = frozenset({"experimenter", "keywords", "related_publications", "file_create_date"})

# Attributes about how objects are stored, or that are mapped otherwise.
_INTERNAL = frozenset({"namespace", "object_id", "neurodata_type", ".specloc", "colnames", "categories"})

# xarray uses these for encoding, and cannot write a variable that has them as attributes.
_RESERVED = frozenset({"coordinates", "dtype", "grid_mapping", "scale_factor", "add_offset", "missing_value"})

# Attributes that this package writes; the file's own attributes of these names are renamed.
_OURS = frozenset(
    {
        "nwb_path",
        "nwb_object",
        "nwb_role",
        "nwb_column",
        "nwb_table",
        "nwb_core_type",
        "nwb_field",
        "nwb_derived",
        "nwb_group",
        "nwb_location",
        "nwb_unmapped",
        "ragged_values",
        "ragged_length",
        "ragged_bound",
    }
)

# Scalars in the schema, which some writers store as a list of one element.
_SCALARS = frozenset({"description", "comments", "unit", "help", "continuity"})


def map_session(hierarchy: Hierarchy, *, whole: bool) -> Mapper[dict[str, Any]]:
    """Map the metadata of the session and its subject to attributes."""
    # A single object's Dataset has the essential ones only, so that opening it takes few requests.
    wanted = list(_session_arrays(hierarchy)) if whole else []
    if not whole:
        wanted = [
            (_name_of(*path.rpartition("/")[::2]), hierarchy[path])
            for path in _ESSENTIAL
            if path in hierarchy
        ]
    arrays = [
        (name, node) for name, node in wanted if isinstance(node, ArrayNode) and describes_session(node)
    ]
    values = yield from values_or_none([stored(hierarchy, node) for _, node in arrays])
    found: dict[str, Any] = {}
    for (name, node), value in zip(arrays, values, strict=True):
        if value is None:
            continue
        found[name] = plain(value.reshape(()) if _is_session_scalar(hierarchy, node) else value)
        for key, more in node.attributes.items():
            if not key.startswith("_") and key not in _INTERNAL and whole:
                found[f"{name}_{key}"] = more
    for name, more in _own_attributes(hierarchy) if whole else ():
        found[free_name(name, found)] = more
    ordered = {name: found.pop(name) for name in _FIRST if name in found} | found
    ordered["nwb_version"] = scalar(hierarchy[""].attributes.get("nwb_version"))
    return storable(ordered)


def _session_arrays(hierarchy: Hierarchy) -> Iterator[tuple[str, Node]]:
    for group in _OF_SESSION:
        for name in hierarchy.children(group):
            # `find_objects` warns about damaged datasets.
            with suppress(MetadataError):
                yield _name_of(group, name), hierarchy[f"{group}/{name}".strip("/")]


def _own_attributes(hierarchy: Hierarchy) -> Iterator[tuple[str, Any]]:
    """Yield the attributes and links that an extension defines for the session or its subject."""
    for group in _OF_SESSION:
        if group not in hierarchy:
            continue
        attributes = object_attributes(hierarchy, group)
        links = {name: linked(reference) for name, reference in hierarchy.links(group).items()}
        for name, value in (attributes | links).items():
            if name not in {"neurodata_type", "nwb_core_type", "nwb_path", "nwb_version"}:
                yield _name_of(group, name), value


def _name_of(group: str, name: str) -> str:
    """Return the name of a dataset, attribute or link of the session's groups among the attributes."""
    return f"subject_{name.removeprefix('subject_')}" if group == SUBJECT else name


def _is_session_scalar(hierarchy: Hierarchy, node: ArrayNode) -> bool:
    """Return whether a dataset of the session's groups, stored with shape (1,), is a scalar in the schema."""
    group, _, name = node.path.rpartition("/")
    if node.shape != (1,) or name in _LISTS:
        return False
    kind = hierarchy[group].neurodata_type
    known = kind if kind and definition_of(kind, hierarchy) else "Subject" if group == SUBJECT else "NWBFile"
    return is_scalar(known, name, node, hierarchy)


def describes_session(node: ArrayNode) -> bool:
    """Return whether a dataset of the session's groups is small enough to be an attribute of the session."""
    return node.neurodata_type is None and node.ndim <= 2 and node.size <= LONGEST_ATTRIBUTE


def object_attributes(hierarchy: Hierarchy, path: str) -> dict[str, Any]:
    """Return an object's type, path, attributes and links, as attributes of its main variable."""
    node = hierarchy[path]
    own = {
        f"stored_{name}" if name in _OURS else name: scalar(value) if name in _SCALARS else value
        for name in sorted(own_names(node), key=lambda name: name != "description")
        if (value := node.attributes[name]) not in _PLACEHOLDERS
    }
    core = core_type(hierarchy, node)
    return identity(node) | ({} if core is None else {"nwb_core_type": core}) | storable(own)


def own_names(node: Node) -> Iterator[str]:
    """Return the names of an object's attributes, except those about how it is stored."""
    return (name for name in node.attributes if not name.startswith("_") and name not in _INTERNAL)


# pynwb's defaults for missing texts.
_PLACEHOLDERS = ("no description", "no comments", "")


def identity(node: Node) -> dict[str, Any]:
    """Return the attributes of every variable: the type and path of its object."""
    own_type = {} if node.neurodata_type is None else {"neurodata_type": node.neurodata_type}
    return {**own_type, "nwb_path": node.path}


def linked(reference: Reference) -> str:
    """Return a link as text: the target's path, after the file's name if it is another file."""
    path = reference.path.strip("/")
    return path if reference.source == "." else f"{reference.source}/{path}"


def scalar(value: Any) -> Any:
    """Return an attribute that is a scalar in the schema, also if it is stored as a list of one element.

    >>> scalar([30000.0]), scalar("volts"), scalar([1, 2])
    (30000.0, 'volts', [1, 2])
    """
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value


def plain(value: np.ndarray[Any, Any]) -> Any:
    """Return a small array's value in Python's own types."""
    return value.item() if value.ndim == 0 else value.tolist()


def scalar_attributes(
    values: Mapping[str, np.ndarray[Any, Any]], arrays: Mapping[str, StoredArray]
) -> dict[str, Any]:
    """Return scalars and short lists that are stored as datasets, as attributes: ``gain``, ``gain_unit``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found[name] = plain(value)
        for key, more in arrays[name].node.attributes.items():
            if not key.startswith("_") and key not in _INTERNAL:
                found[f"{name}_{key}"] = more
    return storable(found)


def storable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as netCDF and Zarr can store them.

    None and empty lists are dropped, booleans become 0 and 1, references become paths, NumPy's types become
    Python's, nested and mixed values become JSON; names that xarray reserves are prefixed with ``nwb_``.

    >>> storable({"rate": np.float64(30.0), "valid": True, "notes": None, "dtype": "a", "limits": {"low": 1}})
    {'rate': 30.0, 'valid': 1, 'nwb_dtype': 'a', 'limits': '{"low": 1}'}
    """
    stored: dict[str, Any] = {}
    for name, value in attributes.items():
        kept = _storable_value(value)
        if kept is not None:
            key = name.replace("/", "_")
            stored[f"nwb_{key}" if key in _RESERVED else key] = kept
    return stored


def _storable_value(value: Any) -> str | int | float | list[Any] | None:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    match value:
        case None:
            return None
        case bool():
            return int(value)
        case bytes():
            return value.decode("utf-8", "replace")
        case int() if not -(2**63) <= value < 2**63:
            return str(value)
        case str() | int() | float():
            return value
        case {"_REFERENCE": {"path": str(path), **rest}}:
            return linked(Reference(str(rest.get("source") or "."), path))
        case list() | tuple() if not value:
            return None
        case list() | tuple():
            return _storable_list(value)
        case _:
            return json.dumps(_plain(value), default=str)


def _storable_list(value: list[Any] | tuple[Any, ...]) -> list[Any] | str:
    items = [_plain(item) for item in value]
    if not any(isinstance(item, list | dict) for item in items):
        items = [_storable_value(item) for item in items]
        kinds = {type(item) for item in items}
        if kinds == {str} or kinds <= {int, float}:
            return items
    return json.dumps(items, default=str)


def _plain(value: Any) -> Any:
    """Return a nested value with references as paths and without NumPy's types, for JSON."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case {"_REFERENCE": {"path": str()}}:
            return _storable_value(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case _:
            return value


# Attributes that identify an array, or become `units`.
_SHOWN_OTHERWISE = frozenset({"neurodata_type", "namespace", "object_id", "unit"})


def array_parts(
    owner: Node,
    name: str,
    array: StoredArray,
    dimensions: tuple[Dimension, ...],
    role: Literal["main", "variable"] = "variable",
) -> Iterator[ArrayPart]:
    """Return the variables of an array `name` of the object `owner`, with one dimension for each axis."""
    attributes = array_attributes(owner, array)
    if array.dtype.names is not None:
        for each in array.dtype.names:
            one = array.field(each)
            made = path_text(one) if each in array.node.reference_fields else as_text(one)
            yield ArrayPart(f"{name}_{each}", dimensions, made, attributes | {"nwb_field": each})
    elif array.node.is_reference:
        yield ArrayPart(name, dimensions, path_text(array), attributes, role)
    else:
        yield ArrayPart(name, dimensions, as_text(array), attributes, role)


def array_attributes(owner: Node, array: StoredArray) -> dict[str, Any]:
    """Return an array's own attributes, and the identity of its object."""
    own = {
        name: value
        for name, value in array.node.attributes.items()
        if not name.startswith("_") and name not in _SHOWN_OTHERWISE
    }
    unit = array.node.attributes.get("unit")
    units = {"units": "s" if unit == "seconds" else unit}
    return identity(owner) | identity(array.node) | storable(units | own)
