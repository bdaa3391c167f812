"""The columns of the two tables of many sessions, `sessions` and `objects`, and their types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import pyarrow as pa

type Kind = Literal["sessions", "objects"]

_TEXTS: Final = pa.list_(pa.string())
_INSTANT: Final = pa.timestamp("us", "UTC")


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"description": text}) for name, kind, text in columns])


SESSIONS: Final = _schema(
    ("location", pa.string(), "URL or path of the file, without secrets: the key of both tables"),
    ("storage", pa.string(), "Name of the entry of storage_options with which it is opened; null for none"),
    ("source", pa.string(), "Prefix, list of locations or dandiset in which it was found"),
    ("dandiset", pa.string(), "Identifier of its dandiset, such as 000719"),
    ("version", pa.string(), "Version of the dandiset, such as draft or 0.240409.1542"),
    ("asset_path", pa.string(), "Path of the asset in the dandiset"),
    ("asset_id", pa.string(), "Identifier of the asset"),
    ("title", pa.string(), "Name of the dandiset"),
    ("identifier", pa.string(), "identifier of the NWB file"),
    ("session_id", pa.string(), "session_id"),
    ("session_description", pa.string(), "session_description"),
    ("start", _INSTANT, "session_start_time in UTC; null if it is stored without a time zone"),
    ("start_text", pa.string(), "session_start_time as stored, with its time zone"),
    ("subject_id", pa.string(), "subject_id"),
    ("species", pa.string(), "species of the subject as stored"),
    ("taxon", pa.string(), "Scientific name of the species, such as Mus musculus; null if not recognised"),
    ("age", pa.string(), "age of the subject as stored, an ISO 8601 duration such as P90D"),
    ("age_days", pa.float64(), "Age in days; the middle of a range; null if not recognised"),
    ("sex", pa.string(), "sex of the subject as stored"),
    ("sex_code", pa.string(), "F, M, O (other) or U (unknown); null if not recognised"),
    ("genotype", pa.string(), "genotype of the subject"),
    ("strain", pa.string(), "strain of the subject"),
    ("date_of_birth", pa.string(), "date_of_birth of the subject as stored"),
    ("weight", pa.string(), "weight of the subject as stored"),
    ("institution", pa.string(), "institution"),
    ("lab", pa.string(), "lab"),
    ("experimenter", _TEXTS, "experimenter"),
    ("keywords", _TEXTS, "keywords"),
    ("devices", _TEXTS, "Names of the devices"),
    ("brain_regions", _TEXTS, "Distinct locations of electrodes, imaging planes and the like, sorted"),
    ("unit_count", pa.int64(), "Rows of the table units; null without one"),
    ("electrode_count", pa.int64(), "Rows of the electrodes table; null without one"),
    ("roi_count", pa.int64(), "Rows of all PlaneSegmentation tables; null without one"),
    ("trial_count", pa.int64(), "Rows of the table trials; null without one"),
    ("object_count", pa.int64(), "Rows of this session in the table objects"),
    ("nbytes", pa.int64(), "Bytes of all arrays, decompressed"),
    ("format", pa.string(), "zarr or hdf5"),
    ("zarr_format", pa.int8(), "2 or 3; null for HDF5"),
    ("consolidated", pa.bool_(), "Whether the metadata are consolidated; null for HDF5"),
    ("nwb_version", pa.string(), "nwb_version"),
    ("namespaces", _TEXTS, "Cached extension schemas, such as ndx-pose 0.2.0; null if not listed"),
    ("etag", pa.string(), "ETag of the consolidated metadata or HDF5 file: the state that was scanned"),
    ("zip_etag", pa.string(), "ETag of the zip file, if it is one"),
    ("stale", pa.bool_(), "Whether the consolidated metadata differ from the stored; null if not compared"),
    ("not_read", _TEXTS, "Columns that were not filled, to stay within the requests per session"),
    ("requests", pa.int32(), "Requests that scanning it took, without listing"),
    ("requests_for_all", pa.int32(), "Requests that would fill the columns in not_read as well, or null"),
    ("scanned", _INSTANT, "When it was scanned"),
    ("error", pa.string(), "Why it could not be read, without secrets; null where it could"),
    ("error_type", pa.string(), "Name of the error's class"),
    ("transient", pa.bool_(), "Whether scanning it again may succeed; null without an error"),
    (
        "snapshot",
        pa.binary(),
        "Snapshot, a msgpack document, from which it opens without reading its metadata; mostly null",
    ),
)
"""The columns of the table `sessions`: one row for each file."""

OBJECTS: Final = _schema(
    ("location", pa.string(), "The file's key in the table sessions"),
    ("path", pa.string(), "Path of the object in the file, as group= takes it"),
    ("name", pa.string(), "Last part of the path"),
    ("type", pa.string(), "neurodata_type"),
    ("namespace", pa.string(), "Namespace of the type: core, hdmf-common, or an extension's"),
    ("types", _TEXTS, "The type and all types that it extends, nearest first"),
    ("description", pa.string(), "description, if it is an attribute"),
    ("unit", pa.string(), "unit of the data of a TimeSeries"),
    ("rate", pa.float64(), "rate of a TimeSeries in Hz; null for one with timestamps"),
    ("duration", pa.float64(), "Samples divided by rate, in seconds; null for a TimeSeries with timestamps"),
    ("shape", pa.list_(pa.int64()), "Shape of the data of a TimeSeries or image; (rows,) of a table"),
    ("dtype", pa.string(), "Stored dtype of the data, as NumPy names it; null for a table"),
    ("columns", _TEXTS, "Columns of a table, in its order"),
    ("nbytes", pa.int64(), "Bytes of its arrays, decompressed"),
    ("chunks", pa.int64(), "Stored chunks (or shards) of its arrays: requests to read all of it"),
)
"""The columns of the table `objects`: one row for each neurodata object of each file."""

SCHEMAS: Final[Mapping[Kind, pa.Schema]] = {"sessions": SESSIONS, "objects": OBJECTS}

REPEATED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "sessions": ("storage", "source", "dandiset", "species", "taxon", "sex", "sex_code", "nwb_version"),
    "objects": ("location", "path", "name", "type", "namespace", "types.list.element", "unit", "dtype"),
}
"""Columns with few distinct values in many rows, which are read dictionary-encoded."""

KEYS: Final[Mapping[Kind, tuple[str, ...]]] = {"sessions": ("location",), "objects": ("location", "path")}
"""Columns in which every row has a value."""


def table_of(kind: Kind, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows, whose missing values are null, as a table."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[kind])


def conformed(kind: Kind, table: pa.Table) -> pa.Table:
    """Return a table with all columns in order, in their types; unknown columns follow them unchanged."""
    schema = SCHEMAS[kind]
    columns = [
        table[each.name].cast(each.type)
        if each.name in table.column_names
        else pa.nulls(len(table), each.type)
        for each in schema
    ]
    others = [name for name in table.column_names if name not in schema.names]
    fields = [*schema, *(table.schema.field(name) for name in others)]
    return pa.table([*columns, *(table[name] for name in others)], schema=pa.schema(fields))


def plain_table(table: pa.Table) -> pa.Table:
    """Return a table with the same values, none of them dictionary-encoded."""
    return table.cast(
        pa.schema([field.with_type(without_dictionaries(field.type)) for field in table.schema])
    )


def without_dictionaries(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values, where they are not dictionary-encoded."""
    if pa.types.is_list(kind):
        return pa.list_(without_dictionaries(kind.value_type))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def type_as_read(kind: Kind, name: str, stored: pa.DataType) -> pa.DataType:
    """Return the type in which a column is read."""
    return SCHEMAS[kind].field(name).type if name in SCHEMAS[kind].names else _plain_type(stored)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values without dictionaries, views and 64-bit offsets."""
    types = pa.types
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    return pa.string() if is_text(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is text, however it is stored."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
