"""Object arrays of Zarr 2: texts, compounds and references, decoded from JSON, pickles and VLen codecs."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import Buffer, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, NoReturn, Self

import numpy as np
from numcodecs import VLenBytes, VLenUTF8
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer as ZarrBuffer
from zarr.abc.codec import BytesBytesCodec

from intake_nwbzarr.bounds import LARGEST_OBJECT, LARGEST_OBJECT_CHUNK
from intake_nwbzarr.errors import LegacyObjectError, LimitError
from intake_nwbzarr.hierarchy.decompress import decompress
from intake_nwbzarr.hierarchy.nodes import numpy_dtype
from intake_nwbzarr.hierarchy.zarr2.pickles import (
    ArrayRecord,
    DtypeRecord,
    ReferenceRecord,
    element_dtype,
    interpret,
)
from intake_nwbzarr.zarr_internals import ArraySpec

VARIABLE_LENGTH: Final = frozenset({"vlen-utf8", "vlen-bytes"})
"""The serializers of variable-length items."""

_ALWAYS: Final = 16 * 2**20
_EACH: Final = 64 * 2**10


def text_limit(shape: tuple[int, ...], fields: int = 1) -> int:
    """How many bytes a chunk of strings or objects may expand to; their metadata declare no size.

    Parameters
    ----------
    shape
        The chunk's.
    fields
        How many values each item has.
    """
    return min(LARGEST_OBJECT, _ALWAYS + _EACH * prod(shape) * fields)


def check_count(data: Buffer, count: int) -> None:
    """Compare the number of items that a chunk claims to hold with the declared one.

    The library reserves a reference for each claimed item before it reads the first.

    Raises
    ------
    ValueError
        When they differ, or there is no number.
    """
    view = memoryview(data).cast("B")
    if len(view) < 4:
        raise ValueError(f"it has {len(view)} bytes, too few to say how many items it holds")
    (found,) = struct.unpack_from("<I", view)
    if found != count:
        raise ValueError(f"it holds {found} elements where {count} are declared")


def decode_items(name: Literal["vlen-utf8", "vlen-bytes"], data: Buffer, count: int) -> NDArray[Any]:
    """The items of a chunk, decompressed before.

    Raises
    ------
    ValueError
        When there are not as many as declared, or they are damaged.
    """
    check_count(data, count)
    items: NDArray[Any] = (VLenUTF8() if name == "vlen-utf8" else VLenBytes()).decode(data)
    return items


REPEATED_RECORDS: Final = "repeated-records"
"""What is named in place of an object codec for compounds with every field repeated (see `objects`)."""

type Column = list[str] | NDArray[Any]

# Containers from a pickle are never formatted: lists that share their items are short and print for ever.


def object_items(
    data: bytes, configuration: Mapping[str, Any], count: int, fields: list[Any] | None, where: str
) -> Sequence[Any]:
    """The elements in C order, inert but unchecked.

    Raises
    ------
    LegacyObjectError, ValueError
        When the chunk is not what the configuration says, or not of `count` elements.
    LimitError
        When `count` is beyond what is read at once.
    """
    if count > LARGEST_OBJECT_CHUNK // 8:
        raise LimitError(
            f"{where} is declared to hold {count} objects; {LARGEST_OBJECT_CHUNK // 8} are allowed."
        )
    match configuration["object_codec"]:
        case "pickle":
            # A reference takes 20 opcodes, or 40 in the oldest protocol; a number or string at most 4.
            allowed = 1000 + count * (16 + 48 * (len(fields) if fields else 1))
            record = interpret(data, maximum_opcodes=allowed, where=where)
            return _array_items(record, count, fields)
        case "json2":
            _check_json(data, 1000 + count * (16 + 48 * (len(fields) if fields else 1)))
            *items, _, shape = json.loads(data)
            return _flat(items[0] if not shape else items, _checked_shape(shape, count))
        case "vlen-utf8" | "vlen-bytes" as name:
            decoded = decode_items(name, data, count)
            # These were written in the order of memory.
            return decoded.reshape(configuration["shape"], order=configuration["order"]).ravel().tolist()
        case name:
            raise ValueError(f"it is encoded by {name!r}")


_JSON_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def _check_json(data: bytes, allowed: int) -> None:
    """Refuse JSON of more values than can be meant: three bytes of it become a list of 56."""
    structure = _JSON_TEXT.sub(b"", data)
    found = structure.count(b",") + structure.count(b"[") + structure.count(b"{")
    if found > allowed:
        raise ValueError(f"it holds {found} JSON values where at most {allowed} can be meant")


def repeated_columns(data: Buffer, configuration: Mapping[str, Any], count: int) -> dict[str, Column]:
    """Columns from rows of which each field was written as a record of its own.

    Raises
    ------
    ValueError
        When the records are not of that form.
    """
    fields = configuration["content"]
    dtype = np.dtype([(field["name"], numpy_dtype(field["kind"])) for field in fields])
    dtype = dtype.newbyteorder(">" if configuration["endian"] == "big" else "<")
    if memoryview(data).nbytes != count * len(fields) * dtype.itemsize:
        raise ValueError(f"it holds {memoryview(data).nbytes} bytes where {count} rows are declared")
    rows = np.frombuffer(data, dtype).reshape(count, len(fields))
    first = rows[:, 0]
    of_same_kind = [field["name"] for field in fields if dtype[field["name"]].kind in "iu"]
    if any((first[name] != first[of_same_kind[0]]).any() for name in of_same_kind[1:]):
        raise ValueError("its records are not repetitions of one value")
    return {field["name"]: rows[field["name"]][:, position] for position, field in enumerate(fields)}


def _array_items(record: Any, count: int, fields: list[Any] | None) -> Sequence[Any]:
    if not isinstance(record, ArrayRecord) or record.dtype is None:
        raise ValueError(f"it is a pickled {type(record).__name__}, not an array")
    shape = _checked_shape(record.shape, count)
    dtype = record.dtype
    if isinstance(record.content, list):
        if dtype.names is not None:
            _check_fields(dtype, fields)
        elif not _is_object(dtype):
            raise ValueError(f"it is a list of elements of the type {dtype.code[:40]!r}")
        return record.content
    plain = element_dtype(dtype)
    content = record.content or b""
    if len(content) != count * plain.itemsize:
        raise ValueError(f"it holds {len(content)} bytes for {count} elements of {plain}")
    if not content:
        return [plain.type()] * count
    return np.frombuffer(content, plain).reshape(shape, order="F" if record.fortran else "C").ravel().tolist()


def _is_object(dtype: DtypeRecord) -> bool:
    return dtype.code in ("O", "O4", "O8") and dtype.names is None


def _check_fields(dtype: DtypeRecord, fields: list[Any] | None) -> None:
    """The pickle's own description of a compound against the array's metadata."""
    declared = [field["name"] for field in fields or ()]
    if list(dtype.names or ()) != declared or not isinstance(dtype.fields, Mapping):
        raise ValueError(f"its fields are not those that are declared, {declared}")
    for field in fields or ():
        inner = dtype.fields[field["name"]][0]
        if not isinstance(inner, DtypeRecord):
            raise ValueError("a field has no type")
        if field["kind"] in ("text", "reference"):
            if not _is_object(inner):
                raise ValueError(
                    f"its field {field['name']!r} is of the type {inner.code!r:.40}, not objects"
                )
        elif element_dtype(inner).newbyteorder("=") != numpy_dtype(field["kind"]).newbyteorder("="):
            raise ValueError(
                f"its field {field['name']!r} is of the type {inner.code!r:.40}, not {field['kind']}"
            )


def _checked_shape(shape: Any, count: int) -> tuple[int, ...]:
    if (
        not isinstance(shape, (tuple, list))
        or len(shape) > 32
        or not all(type(length) is int and 0 <= length < 2**40 for length in shape)
        or prod(shape) != count
    ):
        raise ValueError(f"its shape is not one of the {count} elements that are declared")
    return tuple(shape)


def _flat(items: Any, shape: tuple[int, ...]) -> list[Any]:
    """Lists nested as deep as an array has dimensions."""
    if not shape:
        return [items]
    if not isinstance(items, list) or len(items) != shape[0]:
        raise ValueError("its lists are not nested as its shape says")
    return items if len(shape) == 1 else [item for inner in items for item in _flat(inner, shape[1:])]


def strings(items: Sequence[Any], *, is_reference: bool) -> list[str]:
    """Elements as strings.

    Raises
    ------
    ValueError
        When one is neither text nor a number, or no reference where `is_reference`.
    LimitError
        When they take more than 1 GiB.
    """
    if all(type(item) is str for item in items):
        return list(items)
    convert = _reference if is_reference else _text
    result, made = [], 0
    for item in items:
        if type(item) is not str:
            item = convert(item)
            made += len(item)
            if made > LARGEST_OBJECT_CHUNK:  # one value may be meant many times over
                raise LimitError(f"its text takes more than {LARGEST_OBJECT_CHUNK} bytes")
        result.append(item)
    return result


def _text(item: Any) -> str:
    match item:
        case str():
            return item
        case bytes():
            return item.decode()
        case None | bool() | int() | float() | complex() | np.generic():
            return str(item)
        case ReferenceRecord():
            return _reference(item)
        case _:
            raise ValueError(f"it holds a {type(item).__name__}")


def _reference(item: Any) -> str:
    if isinstance(item, str):
        return item
    if _is_fill(item):
        return ""
    values = item.values if isinstance(item, ReferenceRecord) else item
    if not isinstance(values, Mapping) or not isinstance(path := values.get("path"), str):
        raise ValueError(f"it holds a {type(item).__name__} that is no reference")
    source = values.get("source")
    if source in (None, "", ".", "./"):
        return path
    if not isinstance(source, str):
        raise ValueError("it holds a reference without a source")
    return json.dumps({"source": source, "path": path})


def columns(rows: Sequence[Any], fields: list[Any]) -> dict[str, Column]:
    """Rows as columns, by field.

    Raises
    ------
    ValueError
        When a row does not hold what the fields declare.
    """
    filled = [
        None if row is None or (type(row) is int and row == 0) else _row(row, len(fields)) for row in rows
    ]
    result: dict[str, Column] = {}
    for position, field in enumerate(fields):
        values = [None if row is None else row[position] for row in filled]
        if field["kind"] in ("text", "reference"):
            is_reference = field["kind"] == "reference"
            result[field["name"]] = strings(
                ["" if _is_fill(value) else value for value in values], is_reference=is_reference
            )
        else:
            result[field["name"]] = _numbers(values, numpy_dtype(field["kind"]))
    return result


def _is_fill(value: Any) -> bool:
    return value is None or (type(value) is int and value == 0)


def _row(row: Any, length: int) -> Sequence[Any]:
    if not isinstance(row, (tuple, list)) or len(row) != length:
        raise ValueError(f"a row is a {type(row).__name__}, where one of {length} fields is declared")
    return row


def _numbers(values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    allowed: tuple[type, ...] = {
        "b": (bool, np.bool_),
        "i": (int, np.integer),
        "u": (int, np.integer),
        "c": (complex, float, int, np.number),
    }.get(dtype.kind, (float, int, np.number) if dtype.kind == "f" else (str, bytes))
    if not all(value is None or isinstance(value, allowed) for value in values):
        raise ValueError(f"a field of {dtype} holds something else")
    zero = np.zeros((), dtype)[()]
    return np.array([zero if value is None else value for value in values], dtype)


CODEC_NAME: Final = "nwbzarr.legacy_objects"

_DAMAGED: Final = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
    RecursionError,
)


def decode_legacy_objects(
    data: Buffer, configuration: Mapping[str, Any], *, where: str | None = None
) -> list[str] | dict[str, Column]:
    """Decode one chunk.

    Parameters
    ----------
    data
        The chunk as stored.
    configuration
        Of the codec ``nwbzarr.legacy_objects``, as `translate_array` writes it.
    where
        The array and the chunk, for errors.

    Returns
    -------
    list of str, or dict
        The elements in C order of the chunk's shape; of a compound, a column for each field, text and
        references as lists of strings of any length.

    Raises
    ------
    LegacyObjectError
        When the chunk holds anything but strings, numbers and references, or not as many as declared.
    ChunkError, LimitError
        When it cannot be decompressed, or is larger than 1 GiB.
    """
    where = where or f"A chunk of the array {configuration.get('array')!r}"
    try:
        content, count = configuration["content"], prod(configuration["shape"])
        stored = memoryview(data).cast("B")
        fields = content if isinstance(content, list) else None
        limit = min(LARGEST_OBJECT_CHUNK, text_limit(tuple(configuration["shape"]), len(fields or [0])))
        for compressor in reversed(configuration["compressors"]):
            stored = decompress(compressor, stored, limit, where=where)
        if len(stored) > limit:
            raise LimitError(f"{where} holds {len(stored)} bytes; {limit} are allowed for {count} objects.")
        if configuration["object_codec"] == REPEATED_RECORDS:
            return repeated_columns(stored, configuration, count)
        items = object_items(bytes(stored), configuration, count, fields, where)
        if len(items) != count:
            raise ValueError(f"it holds {len(items)} elements where {count} are declared")
        if fields is None:
            return strings(items, is_reference=content == "reference")
        return columns(items, fields)
    except LimitError:
        raise
    except _DAMAGED as error:
        raise LegacyObjectError(
            f"{where} cannot be read as strings, numbers and object references: {error}. "
            "The chunk is damaged, or does not belong to this array."
        ) from error


@dataclass(frozen=True)
class LegacyObjectsCodec(BytesBytesCodec):
    """The codec ``nwbzarr.legacy_objects``: undoes a Zarr 2 object encoding, for reading only.

    zarr demands that ``vlen-utf8`` serializes strings, and ``bytes`` compounds. So this one comes after them,
    as if it compressed, and encodes anew what it decoded: strings for ``vlen-utf8``, compounds as packed
    little-endian records with text of fixed width.

    Parameters
    ----------
    configuration
        ``array`` (its path, for errors), ``shape`` and ``order`` of a chunk, ``object_codec``,
        ``compressors`` (Zarr 3 documents) and ``content``: ``"text"``, ``"reference"`` or a list of fields
        with ``name`` and ``kind`` (``"text"``, ``"reference"`` or a Zarr 3 data type).
    """

    configuration: Mapping[str, Any]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From a codec document of array metadata."""
        return cls(data["configuration"])

    def to_dict(self) -> dict[str, Any]:
        """The codec document."""
        return {"name": CODEC_NAME, "configuration": dict(self.configuration)}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> NoReturn:
        """Unknown, as for any compressor."""
        raise NotImplementedError

    def _decode_sync(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> ZarrBuffer:
        decoded = decode_legacy_objects(chunk_data.to_bytes(), self.configuration)
        where = f"A chunk of the array {self.configuration['array']!r}"
        if isinstance(decoded, dict):
            encoded = _records(
                decoded, self.configuration["content"], chunk_spec.dtype.to_native_dtype(), where
            )
        else:
            encoded = _variable_length(decoded, where)
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    async def _decode_single(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> ZarrBuffer:
        # Hundreds of thousands of strings take a while, which zarr's event loop has better uses for.
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, _chunk_data: ZarrBuffer, _chunk_spec: ArraySpec) -> NoReturn:
        raise LegacyObjectError(
            f"The array {self.configuration['array']!r} is stored as Zarr 2 objects, which can only be read. "
            "Convert the file to Zarr 3 to change it."
        )

    async def _encode_single(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> NoReturn:
        self._encode_sync(chunk_data, chunk_spec)


def _variable_length(texts: list[str], where: str) -> bytes:
    # One string may be meant many times over: what comes out is not bounded by what went in.
    _check_size(4 * sum(map(len, texts)), where)
    try:
        array = np.empty(len(texts), object)
        array[:] = texts
        return bytes(VLenUTF8().encode(array))
    except UnicodeEncodeError as error:
        raise LegacyObjectError(f"{where} holds text that is not valid Unicode: {error}.") from error


def _records(decoded: dict[str, Column], fields: list[Any], dtype: np.dtype[Any], where: str) -> bytes:
    count = len(next(iter(decoded.values())))
    _check_size(count * dtype.itemsize, where)
    records = np.zeros(count, dtype.newbyteorder("<"))
    for field in fields:
        name = field["name"]
        column = decoded[name]
        if isinstance(column, list):
            width = dtype[name].itemsize // 4
            longest = max(column, key=len, default="")
            if len(longest) > width:
                raise LegacyObjectError(
                    f"{where} holds text of {len(longest)} characters in its field {name!r} "
                    f"({longest[:60]!r}…), and compounds have room for {width}. Read the field by itself, "
                    "with xarray."
                )
        records[name] = column
    return records.tobytes()


def _check_size(size: int, where: str) -> None:
    if size > LARGEST_OBJECT_CHUNK:
        raise LimitError(f"{where} takes {size} bytes when decoded; {LARGEST_OBJECT_CHUNK} are allowed.")
