"""Verify a session: join pynwb's fields with xarray's variables and attributes by path, and compare them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from hdmf.common import AlignedDynamicTable, DynamicTable, ElementIdentifiers, VectorIndex
from hdmf.container import AbstractContainer, Data
from pynwb import NWBFile, TimeSeries
from zarr.abc.store import Store

from intake_nwbzarr.arguments import takes_storage_options
from intake_nwbzarr.checks.chunks import count_chunks
from intake_nwbzarr.checks.compare import (
    Difference,
    Equal,
    Finding,
    Unshown,
    Verification,
    same,
    shortened,
    unlike,
)
from intake_nwbzarr.checks.expected import Expected, expected_values
from intake_nwbzarr.checks.raw_fields import (
    RawField,
    RawFile,
    enumerated_columns,
    is_region_of_object,
    join,
    raw_fields,
)
from intake_nwbzarr.errors import (
    ChunkError,
    MappingWarning,
    MetadataError,
    NWBZarrWarning,
    UnconsolidatedWarning,
)
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.hierarchy.nodes import GroupNode
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.mapping.time_coordinates import reference_time
from intake_nwbzarr.raw import open_nwb, read_by_pynwb

# What reading one damaged array, or looking up what it points at, raises: LimitError and MetadataError are
# ValueErrors. Other errors, of access and of the network, end the comparison.
_DAMAGED: Final = (ChunkError, IndexError, ValueError)

# Attributes that the mapping makes, and no file has: where a Dataset or variable is from, and its layout.
_MADE: Final = frozenset(
    {
        *("neurodata_type", "nwb_core_type", "nwb_path", "nwb_object", "nwb_role"),
        *("nwb_column", "nwb_table", "nwb_field", "nwb_derived"),
        *("nwb_group", "nwb_location", "nwb_storage_options", "nwb_unmapped", "nwb_snapshot"),
        *("nwb_axis_order", "ragged_bound", "time_offset", "comment", "help", "subject_help"),
    }
)
# Units that the schema fixes, shown where the file does not repeat them.
_UNITS_OF_SCHEMA: Final = frozenset({"s", "Hz", "volts"})

# Other names that attributes of arrays are shown by.
_SHOWN_AS: Final = {"unit": ("units", "target_unit"), "target": ("ragged_values",)}

# xarray keeps these attributes for encoding: they get a prefix.
_RESERVED = frozenset({"coordinates", "dtype", "grid_mapping", "scale_factor", "add_offset", "missing_value"})

# What values are scaled with; shown where they are as stored.
_SCALING: Final = frozenset({"conversion", "offset", "channel_conversion"})

# Texts that pynwb and hdmf write where a caller gave nothing; a Dataset says nothing either.
_SAYS_NOTHING: Final = (
    "no description",
    "no comments",
    "",
    "Table for describing the bands that DecompositionSeries was generated from.",
)
_ELEMENTS: Final = "fixed set of elements referenced by "

# The schema fixes these: the time of every series is in seconds, at every sample.
_FIXED: Final = {"starting_time_unit": "seconds", "timestamps_unit": "seconds", "interval": 1}


@dataclass(frozen=True)
class VerifyProgress:
    """The progress of a verification, as passed to its function `progress`.

    Parameters
    ----------
    fields, of_fields
        How many fields were compared, and how many there are.
    path
        The object that is compared now.
    """

    fields: int
    of_fields: int
    path: str


@takes_storage_options
def verify(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[VerifyProgress], None] | None = None,
) -> Verification:
    """Check that xarray shows the same values as pynwb, field by field; reads the whole session twice.

    Every field of every object that can be reached from the `pynwb.NWBFile` is compared with the variable or
    attribute of the DataTree that has its path: data of series as stored and in physical units, times bit for
    bit, tables row by row, images, masks, metadata, links. Arrays are compared in blocks, so memory use stays
    small. An HDF5 file is read by pynwb's own NWBHDF5IO, with the HDF5 library.

    Parameters
    ----------
    location
        A path, a URL (``https``, ``s3``, or any that fsspec knows), or an open Zarr store.
    storage_options
        Credentials and other options, named as in s3fs and fsspec.
    progress
        Called with a `VerifyProgress` before each field.

    Returns
    -------
    Verification
        The fields that are equal, that differ, and that xarray does not show. Differences are also arrays
        with damaged chunks, whose other chunks are compared, and variables that only xarray shows.

    Raises
    ------
    NWBZarrError
        When the file cannot be opened, as `intake_nwbzarr.open_nwb`.
    MetadataError
        When pynwb cannot make an object of what is in the file.
    """
    hierarchy = open_hierarchy(location, storage_options)
    is_hdf5 = hierarchy.location.is_hdf5
    with warnings.catch_warnings():
        # The same as of the first time, as are all of the second tree.
        warnings.simplefilter("ignore", UnconsolidatedWarning)
        in_units = _open_tree(location, storage_options, mask_and_scale=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NWBZarrWarning)
            as_stored = _open_tree(location, storage_options, mask_and_scale=False)
        raw = read_by_pynwb(hierarchy) if is_hdf5 else open_nwb(location, storage_options)
    with raw as nwbfile:
        compared = compare(nwbfile, in_units, hierarchy, as_stored=as_stored, progress=progress)
    return replace(compared, chunks=count_chunks(hierarchy))


def _open_tree(
    location: Any, storage_options: Mapping[str, Any] | None, *, mask_and_scale: bool
) -> xr.DataTree:
    return xr.open_datatree(
        location, engine="nwbzarr", storage_options=storage_options, mask_and_scale=mask_and_scale
    )


def compare(
    nwbfile: NWBFile,
    tree: xr.DataTree,
    hierarchy: Hierarchy,
    *,
    as_stored: xr.DataTree | None = None,
    progress: Callable[[VerifyProgress], None] | None = None,
) -> Verification:
    """Compare a raw object with the DataTree of its file, and with the one of ``mask_and_scale=False``."""
    raw = RawFile(nwbfile, hierarchy)
    stored = None if as_stored is None else _shown(as_stored, raw)
    return Verification.of(str(hierarchy.location), _findings(raw, _shown(tree, raw), stored, progress))


@dataclass(frozen=True)
class _Shown:
    """The Datasets of a tree by the path of their object, and what of them has been joined."""

    nodes: Mapping[str, xr.Dataset]
    variables: Mapping[tuple[str, str], Sequence[str]]  # names, by the paths of object and array
    joined: set[tuple[str, str, str]] = field(default_factory=set)  # object, variable, attribute; or empty

    def variables_of(self, each: RawField, raw: RawFile) -> Iterator[tuple[str, str, xr.Variable]]:
        """Yield the variables of the array that stores a field: their object, name and values."""
        for path in self.objects_of(each):
            for name in self.variables.get((path, raw.stored_path(each.at)), ()):
                yield path, name, self.nodes[path].variables[name]

    def objects_of(self, each: RawField) -> Iterator[str]:
        """Yield the objects whose Datasets may show a field: the nearest above it, and groups in between."""
        path = ""
        for path in _ancestors(each.shown_by or each.at):
            if path in self.nodes:
                yield path
                if "nwb_path" in self.nodes[path].attrs:
                    break
        if path and each.at.split("/")[0] == "general":
            yield ""  # the session, which has the metadata stored below `general`


def _shown(tree: xr.DataTree, raw: RawFile) -> _Shown:
    nodes: dict[str, xr.Dataset] = {}
    variables: dict[tuple[str, str], list[str]] = {}
    for node in tree.subtree:
        path = node.path.strip("/")
        if raw.node(path) is None:
            # An object whose name a variable of its parent has is at another place.
            path = str(node.attrs.get("nwb_path", path))
        nodes[path] = dataset = node.to_dataset(inherit=False)
        for name, variable in dataset.variables.items():
            place = str(variable.attrs.get("nwb_path", ""))
            if _is_main(str(name), dataset) and isinstance(raw.node(path), GroupNode):
                place = raw.stored_path(join(path, "data"))
            variables.setdefault((path, place), []).append(str(name))
    return _Shown(nodes, variables)


def _is_main(name: str, dataset: xr.Dataset) -> bool:
    """Return whether a variable is the data that stand for their object; a column called ``data`` is not."""
    if name != "data" or name not in dataset.variables:
        return False
    attributes = dataset.variables[name].attrs
    return bool(
        attributes.get("nwb_role") == "data" and attributes.get("nwb_path") == dataset.attrs.get("nwb_path")
    )


def _ancestors(path: str) -> Iterator[str]:
    """Yield a path and those of the groups that hold it, up to the root."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def _findings(
    raw: RawFile,
    shown: _Shown,
    as_stored: _Shown | None,
    progress: Callable[[VerifyProgress], None] | None,
) -> Iterator[Finding]:
    missing: set[str] = set()  # objects that one side does not have
    unshown: set[str] = set()  # arrays, whose attributes are not shown either
    for finding in _compare_objects(raw, shown):
        missing.update([] if finding.name else [finding.path])
        yield finding
    elements = enumerated_columns(raw)
    fields = list(raw_fields(raw))
    for number, each in enumerate(fields):
        if progress is not None:
            progress(VerifyProgress(number, len(fields), each.path))
        if not missing.isdisjoint(_ancestors(each.at)) or not missing.isdisjoint(_ancestors(each.shown_by)):
            continue
        if each.attribute is not None and each.at in unshown:
            continue
        try:
            findings = list(_compare_field(each, elements, raw, shown, as_stored))
        except _DAMAGED as error:
            findings = [_difference(each, each.name, *[f"cannot be read: {error}"] * 2)]
            shown.joined.update((path, name, "") for path, name, _ in shown.variables_of(each, raw))
        if each.attribute is None and any(isinstance(finding, Unshown) for finding in findings):
            unshown.add(each.at)
        yield from findings
    yield _compare_zero(raw, shown)
    yield from _only_shown(raw, shown, missing)


def _compare_objects(raw: RawFile, shown: _Shown) -> Iterator[Finding]:
    """Compare which objects there are, and what their Datasets say of their path and type."""
    read: set[str | None] = set()
    for container in raw.nwbfile.objects.values():
        path = raw.path(container)
        read.add(path)
        if path is None and not _is_part(container):
            yield Unshown(container.name, "", container.data_type, "an object that is not in this file")
        if path is None:
            continue
        if path in shown.nodes:
            yield from _compare_identity(path, raw, shown.nodes[path])
        elif not _is_part(container):
            yield Unshown(path, "", raw.neurodata_type(path), "the whole object")
    for node in raw.hierarchy.valid_nodes():
        if isinstance(node, GroupNode) and node.neurodata_type and node.path not in read:
            unread = (node.path, "", node.neurodata_type, "an object that pynwb does not read")
            yield Difference(*unread, "shown") if node.path in shown.nodes else Unshown(*unread)


def _is_part(container: AbstractContainer) -> bool:
    """Return whether an object is shown by the one that holds it: columns, images, categories, bands."""
    if isinstance(container, Data):
        return not isinstance(container.parent, NWBFile)
    return isinstance(container, DynamicTable) and isinstance(
        container.parent, AlignedDynamicTable | TimeSeries
    )


def _compare_identity(path: str, raw: RawFile, dataset: xr.Dataset) -> Iterator[Finding]:
    kind = raw.neurodata_type(path)
    # The root is the session: it has no need to say so.
    if path:
        expected = str((raw.stored_path(path), kind))
        says = str((dataset.attrs.get("nwb_path"), dataset.attrs.get("neurodata_type")))
        found = (path, "neurodata_type", kind)
        yield Equal(*found) if says == expected else Difference(*found, expected, says)
    # What another file holds says its place there.
    for name, variable in () if raw.is_elsewhere(path) else dataset.variables.items():
        types = map(raw.neurodata_type, _ancestors(str(variable.attrs.get("nwb_path", ""))))
        nearest, shown_type = next(filter(None, types), ""), variable.attrs.get("neurodata_type")
        # Timestamps that are another series' are of the type of the one that shows them.
        if shown_type not in (None, nearest, kind):
            yield Difference(path, f"identity of {name}", kind, nearest, str(shown_type))


def _compare_field(
    each: RawField, elements: Mapping[str, str], raw: RawFile, shown: _Shown, as_stored: _Shown | None
) -> Iterator[Finding]:
    """Compare one field with every variable and attribute that shows it."""
    of_series = isinstance(each.container, TimeSeries)
    is_scaling = (of_series and each.name in _SCALING) or each.name.startswith("channel_conversion.")
    linked = list(_containers(each.value))
    if linked:
        yield from _compare_links(each, linked, raw, shown)
    elif not is_scaling:
        yield from _compare_values(each, elements, raw, shown, in_units=True)
    else:
        # Factors that fit no axis are shown beside values in units.
        shown.joined.update((path, name, "") for path, name, _ in shown.variables_of(each, raw))
        places = _attributes(each, elements, raw, shown)
        shown.joined.update((path, variable, name) for path, variable, name, _ in places)
    if as_stored is not None and (is_scaling or (of_series and each.name in {"data", "unit"})):
        yield from _compare_values(each, elements, raw, as_stored, in_units=False)


def _compare_values(
    each: RawField, elements: Mapping[str, str], raw: RawFile, shown: _Shown, *, in_units: bool
) -> Iterator[Finding]:
    if isinstance(each.value, Exception):
        raise each.value
    attributes = list(_attributes(each, elements, raw, shown))
    shown.joined.update((path, variable, name) for path, variable, name, _ in attributes)
    found = [_attribute_difference(each, value) for *_, value in attributes]
    is_in_time = isinstance(each.container, TimeSeries) and each.name == "rate"
    is_in_time = is_in_time and any(shown.variables_of(each, raw))
    for expected in expected_values(each, raw, _samples(each, raw, shown), in_units=in_units):
        differences = [*_differences(each, expected, raw, shown), *found]
        name = expected.name
        if not in_units:
            name = {"data": "data as stored", "unit": "target_unit"}.get(name, name)
        if any(differences):
            yield _difference(each, name, *next(filter(None, differences)))
        elif differences:
            yield Equal(each.path, name, each.neurodata_type)
        elif not (expected.is_optional or each.is_optional or is_in_time or _is_omitted(each)):
            yield Unshown(each.path, name, each.neurodata_type, shortened(expected.values))


def _difference(each: RawField, name: str, raw: str, shown: str) -> Difference:
    return Difference(each.path, name, each.neurodata_type, raw, shown)


def _differences(
    each: RawField, expected: Expected, raw: RawFile, shown: _Shown
) -> list[tuple[str, str] | None]:
    """Compare values with the variables that show them: one entry for each, None where they are equal.

    An object may have several regions of one table, each with variables of its own: one of them is right.
    """
    found: list[tuple[str, str] | None] = []
    for path, name, variable in shown.variables_of(each, raw):
        if _part(variable) == expected.part:
            found.append(unlike(expected.values, variable, expected.conversion))
            if found[-1] is None or not each.is_joined:
                shown.joined.add((path, name, ""))
    return [None] if each.is_joined and None in found else found


def _part(variable: xr.Variable) -> str:
    """Return what a variable shows of the array at its path; empty for the array itself."""
    parts = (variable.attrs.get(name, "") for name in ("nwb_field", "ragged_bound", "nwb_derived"))
    part = str(next(filter(None, parts), ""))
    return "" if part == "row" else part  # the numbers of a region, where its table has no ids


def _samples(each: RawField, raw: RawFile, shown: _Shown) -> int | None:
    """Return how many times of a regular series are shown: as many as its data, or as a movie has frames."""
    if not isinstance(each.container, TimeSeries) or each.name != "starting_time":
        return None
    for path, _, time in shown.variables_of(each, raw):
        shape, dataset = np.shape(each.container.data), shown.nodes[path]
        if "data" in dataset.variables and time.dims[0] in dataset.variables["data"].dims:
            return int(shape[dataset.variables["data"].dims.index(time.dims[0])])
        count = getattr(each.container, "num_samples", None)
        return int(shape[0] if count is None else count)
    return None


type Attribute = tuple[str, str, str, Any]  # object, variable if it is of one, name, value


def _attributes(
    each: RawField, elements: Mapping[str, str], raw: RawFile, shown: _Shown
) -> Iterator[Attribute]:
    """Yield the attributes that show a field: of the variables of its array, and of its object."""
    if each.attribute is not None:
        own = (each.attribute, *_SHOWN_AS.get(each.attribute, ()))
        for path, name, variable in shown.variables_of(each, raw):
            if each.attribute not in {"description", "unit"} or not _is_made_of(variable):
                yield from _named(own, path, name, shown)
    for path in () if each.is_joined else shown.objects_of(each):
        yield from _of_object(tuple(_attribute_names(each, path)), path, shown)
    if each.at in elements and each.attribute is None:
        for path, name, _ in shown.variables_of(replace(each, at=elements[each.at]), raw):
            yield from _named(("meanings",), path, name, shown)


def _is_made_of(variable: xr.Variable) -> bool:
    """Return whether a variable is made of the array at its path, with a description and units of its own."""
    return not {"nwb_derived", "ragged_bound"}.isdisjoint(variable.attrs)


def _of_object(names: Sequence[str], path: str, shown: _Shown) -> Iterator[Attribute]:
    """Yield the attributes of some names of a Dataset, and of the data that stand for its object."""
    yield from _named(names, path, "", shown)
    if _is_main("data", shown.nodes[path]):
        yield from _named(names, path, "data", shown)


def _named(names: Sequence[str], path: str, variable: str, shown: _Shown) -> Iterator[Attribute]:
    dataset = shown.nodes[path]
    attributes = dataset.variables[variable].attrs if variable else dataset.attrs
    for name in dict.fromkeys(names):
        for key in (f"nwb_{name}" if name in _RESERVED else name, f"stored_{name}"):
            if key in attributes and key not in _MADE:
                yield path, variable, key, attributes[key]


def _attribute_names(each: RawField, path: str) -> Iterator[str]:
    """Yield what a field is called among the attributes of an object."""
    inside = each.at.removeprefix(path).strip("/").replace("/", "_")
    own = (each.attribute or "").replace("/", "_")
    yield "_".join(filter(None, (inside, own)))
    if inside == "starting_time":
        yield own
    # The session's metadata are attributes of the root, wherever below `general` they are stored.
    group, _, name = each.at.rpartition("/")
    if not path and each.at in {"general", "general/subject"}:
        group, name, own = each.at, own, ""
    if not path and group in {"general", "general/subject"}:
        name = name if group == "general" else f"subject_{name.removeprefix('subject_')}"
        yield "_".join(filter(None, (name, own)))


def _attribute_difference(each: RawField, shown: Any) -> tuple[str, str] | None:
    value = each.value
    names = getattr(getattr(value, "dtype", None), "names", None)
    if names is not None:
        value = {name: np.asarray(value[()])[name] for name in names}  # a single compound
    # xarray takes `seconds` for time differences: it is shown as `s`.
    is_seconds = each.attribute == "unit" and shown == "s" and str(value).lower() == "seconds"
    return None if is_seconds or same(value, shown) else (shortened(each.value), shortened(shown))


def _is_omitted(each: RawField) -> bool:
    """Return whether a Dataset may be silent about a field's value.

    - ``resolution`` -1 means unknown in the schema, and 0 is none either.
    - What says nothing: "no description", "no comments", empty texts and lists, and what hdmf says of every
      index and enumeration.
    - The unit and interval of timestamps, which the schema fixes.
    - The ids of frequency bands that are their positions: their names are the labels.
    """
    value, container = each.value, each.container
    if each.name in _FIXED:
        return bool(value == _FIXED[each.name])
    if each.name == "resolution":
        return same(-1.0, value) or same(0.0, value)
    if isinstance(container, ElementIdentifiers) and isinstance(container.parent.parent, TimeSeries):
        return np.array_equal(value[:], np.arange(len(value)))
    if isinstance(container, VectorIndex) and value == f"Index for VectorData {container.target.name!r}":
        return True
    if isinstance(value, str):
        return value in _SAYS_NOTHING or value.startswith(_ELEMENTS)
    if each.attribute is None and isinstance(container, Data):
        return False
    return getattr(value, "shape", None) == (0,) or (isinstance(value, list | tuple | dict) and not value)


def _containers(value: Any) -> Iterator[AbstractContainer]:
    """Yield the objects that a field holds."""
    values = value.values() if isinstance(value, Mapping) else value
    for each in values if isinstance(values, list | tuple | set | type({}.values())) else [value]:
        if isinstance(each, AbstractContainer):
            yield each


def _compare_links(
    each: RawField, linked: list[AbstractContainer], raw: RawFile, shown: _Shown
) -> Iterator[Finding]:
    """Compare links with the paths that are shown; objects of the object's own are compared by themselves."""
    others = [target for target in linked if target.parent is not each.container]
    name = each.attribute or each.at.rpartition("/")[2]
    names = [name, each.name, *(str(target.name) for target in others)]
    each = replace(each, shown_by=each.shown_by or each.path)
    places = list(_attributes(each, {}, raw, shown))
    for path in shown.objects_of(each):
        places += _of_object(names, path, shown)
    link = raw.link(each.at)
    paths = [link] if link is not None else sorted(map(raw.path_or_name, others or linked))
    values = (value if isinstance(value, list) else [value] for *_, value in places)
    found = sorted({str(path) for value in values for path in value})
    # The table of a region is where the ids of its rows are compared.
    if (not places and is_region_of_object(each.container)) or (not others and found != paths):
        return
    shown.joined.update((path, variable, key) for path, variable, key, _ in places)
    if found == paths:
        yield Equal(each.path, each.name, each.neurodata_type)
    elif places:
        yield _difference(each, each.name, shortened(paths), shortened(found))
    else:
        yield Unshown(each.path, each.name, each.neurodata_type, f"links to {paths}")


def _compare_zero(raw: RawFile, shown: _Shown) -> Finding:
    """Compare the instants that times count from: decoded times are as far apart as these."""
    name, kind = "zero of decoded times", raw.neurodata_type("")
    expected = raw.nwbfile.timestamps_reference_time
    with warnings.catch_warnings():
        # Opening warns of what the file lacks; here, the two are compared.
        warnings.simplefilter("ignore", MappingWarning)
        try:
            found = reference_time(shown.nodes[""].attrs, raw.hierarchy.location).instant
        except MetadataError as error:
            return Difference("", name, kind, expected.isoformat(), str(error))
    if found == expected:
        return Equal("", name, kind)
    return Difference("", name, kind, expected.isoformat(), found.isoformat())


def _only_shown(raw: RawFile, shown: _Shown, missing: Set[str]) -> Iterator[Finding]:
    """Yield variables and attributes that the join left over: the file does not have them."""
    for path, dataset in shown.nodes.items():
        kind = raw.neurodata_type(path)
        if raw.node(path) is None:
            yield Difference(path, "", kind, "no such object", "shown")
        if raw.node(path) is None or not missing.isdisjoint(_ancestors(path)):
            continue
        for name, variable in dataset.variables.items():
            place = str(variable.attrs.get("nwb_path", ""))
            is_derived = "nwb_derived" in variable.attrs and raw.node(place) is not None
            if not is_derived and (path, name, "") not in shown.joined:
                yield Difference(path, f"identity of {name}", kind, "no such object", place)
            for key, value in variable.attrs.items():
                if (path, name, key) not in shown.joined and not _is_made(str(key), value, variable):
                    yield Difference(path, f"{name}.{key}", kind, "not in the file", shortened(value))
        for key, value in dataset.attrs.items():
            if (path, "", key) not in shown.joined and key not in _MADE:
                yield Difference(path, str(key), kind, "not in the file", shortened(value))


def _is_made(name: str, value: Any, variable: xr.Variable) -> bool:
    """Return whether the mapping makes an attribute of a variable, and the file does not have it."""
    if name == "units":
        return value in _UNITS_OF_SCHEMA or "nwb_derived" in variable.attrs
    return name in _MADE or (_is_made_of(variable) and name == "description")
