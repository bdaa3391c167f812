"""Zarr 2 object arrays: strings, references and compounds, decoded from pickle, json2 and vlen codecs."""

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

from intake_nwbzarr.errors import LegacyObjectError, LimitError, NWBZarrError
from intake_nwbzarr.hierarchy.decompress import decompress
from intake_nwbzarr.hierarchy.nodes import numpy_dtype
from intake_nwbzarr.hierarchy.zarr2.pickles import (
    ArrayRecord,
    DtypeRecord,
    ReferenceRecord,
    element_dtype,
    interpret_pickle,
)
from intake_nwbzarr.untrusted_input import (
    LARGEST_LENGTH,
    LARGEST_OBJECT,
    LARGEST_OBJECT_CHUNK,
    LEAST_TEXT,
    MOST_DIMENSIONS,
    TEXT_PER_VALUE,
)
from intake_nwbzarr.zarr_internals import ArraySpec

VARIABLE_LENGTH: Final = frozenset({"vlen-utf8", "vlen-bytes"})
"""Codecs of variable-length strings and bytes."""


def text_limit(shape: tuple[int, ...], fields: int = 1) -> int:
    """Return how many bytes a chunk of strings or objects may expand to: metadata do not declare it."""
    return min(LARGEST_OBJECT, LEAST_TEXT + TEXT_PER_VALUE * prod(shape) * fields)


def check_count(data: Buffer, count: int) -> None:
    """Check the number of items in the header of a chunk, for which numcodecs allocates memory."""
    view = memoryview(data).cast("B")
    if len(view) < 4:
        raise ValueError(f"it has {len(view)} bytes, too few for the number of items")
    (found,) = struct.unpack_from("<I", view)
    if found != count:
        raise ValueError(f"it contains {found} elements, but {count} are declared")


def decode_items(name: Literal["vlen-utf8", "vlen-bytes"], data: Buffer, count: int) -> NDArray[Any]:
    """Return the items of a decompressed chunk."""
    check_count(data, count)
    items: NDArray[Any] = (VLenUTF8() if name == "vlen-utf8" else VLenBytes()).decode(data)
    return items


REPEATED_RECORDS: Final = "repeated-records"
"""The object codec for compounds whose fields were each written as a record, up to hdmf-zarr 0.11."""

type Column = list[str] | NDArray[Any]

# Errors do not show containers of a pickle: a short one can have a repr of any length.


def object_items(
    data: bytes, configuration: Mapping[str, Any], count: int, fields: list[Any] | None, where: str
) -> Sequence[Any]:
    """Return the elements in C order, inert but not yet checked."""
    if count > LARGEST_OBJECT_CHUNK // 8:
        raise LimitError(
            f"{where} is declared to have {count} objects; {LARGEST_OBJECT_CHUNK // 8} are allowed.",
            found=count,
            expected=LARGEST_OBJECT_CHUNK // 8,
        )
    match configuration["object_codec"]:
        case "pickle":
            # A reference takes 20 opcodes, or 40 in the oldest protocol; a number or string at most 4.
            allowed = 1000 + count * (16 + 48 * (len(fields) if fields else 1))
            record = interpret_pickle(data, maximum_opcodes=allowed, where=where)
            return _array_items(record, count, fields)
        case "json2":
            _check_json(data, 1000 + count * (16 + 48 * (len(fields) if fields else 1)))
            *items, _, shape = json.loads(data)
            return _flat(items[0] if not shape else items, _checked_shape(shape, count))
        case "vlen-utf8" | "vlen-bytes" as name:
            decoded = decode_items(name, data, count)
            # These codecs wrote the elements in memory order.
            return decoded.reshape(configuration["shape"], order=configuration["order"]).ravel().tolist()
        case name:
            raise ValueError(f"it is encoded with {name!r}")


_JSON_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def _check_json(data: bytes, allowed: int) -> None:
    """Refuse JSON with too many values: three bytes of it become a list of 56 bytes."""
    structure = _JSON_TEXT.sub(b"", data)
    found = structure.count(b",") + structure.count(b"[") + structure.count(b"{")
    if found > allowed:
        raise ValueError(f"it contains {found} JSON values, but at most {allowed} are allowed")


def repeated_columns(data: Buffer, configuration: Mapping[str, Any], count: int) -> dict[str, Column]:
    """Return the columns of rows whose fields were each written as a record."""
    fields = configuration["content"]
    dtype = np.dtype([(field["name"], numpy_dtype(field["kind"])) for field in fields])
    dtype = dtype.newbyteorder(">" if configuration["endian"] == "big" else "<")
    if memoryview(data).nbytes != count * len(fields) * dtype.itemsize:
        raise ValueError(f"it contains {memoryview(data).nbytes} bytes, but {count} rows are declared")
    rows = np.frombuffer(data, dtype).reshape(count, len(fields))
    first = rows[:, 0]
    integers = [field["name"] for field in fields if dtype[field["name"]].kind in "iu"]
    if any((first[name] != first[integers[0]]).any() for name in integers[1:]):
        raise ValueError("its records do not repeat one value")
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
        raise ValueError(f"it contains {len(content)} bytes for {count} elements of {plain}")
    if not content:
        return [plain.type()] * count
    return np.frombuffer(content, plain).reshape(shape, order="F" if record.fortran else "C").ravel().tolist()


def _is_object(dtype: DtypeRecord) -> bool:
    return dtype.code in ("O", "O4", "O8") and dtype.names is None


def _check_fields(dtype: DtypeRecord, fields: list[Any] | None) -> None:
    """Compare the fields of a compound in a pickle with the array's metadata."""
    declared = [field["name"] for field in fields or ()]
    if list(dtype.names or ()) != declared or not isinstance(dtype.fields, Mapping):
        raise ValueError(f"its fields are not the declared ones, {declared}")
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
        or len(shape) > MOST_DIMENSIONS
        or not all(type(length) is int and 0 <= length <= LARGEST_LENGTH for length in shape)
        or prod(shape) != count
    ):
        raise ValueError(f"its shape does not match the {count} declared elements")
    return tuple(shape)


def _flat(items: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the items of lists that are nested like the dimensions of an array."""
    if not shape:
        return [items]
    if not isinstance(items, list) or len(items) != shape[0]:
        raise ValueError("its lists are not nested like its shape")
    return items if len(shape) == 1 else [item for inner in items for item in _flat(inner, shape[1:])]


def strings(items: Sequence[Any], where: str, *, is_reference: bool) -> list[str]:
    """Return elements as strings, of at most 1 GiB."""
    if all(type(item) is str for item in items):
        return list(items)
    convert = _reference if is_reference else _text
    result, size = [], 0
    for item in items:
        if type(item) is not str:
            item = convert(item)
            size += len(item)
            if size > LARGEST_OBJECT_CHUNK:  # a pickle can repeat one value at little cost
                raise LimitError(
                    f"{where} takes more than {LARGEST_OBJECT_CHUNK} bytes when decoded.",
                    expected=LARGEST_OBJECT_CHUNK,
                )
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
            raise ValueError(f"it contains a {type(item).__name__}")


def _reference(item: Any) -> str:
    if isinstance(item, str):
        return item
    if _is_fill(item):
        return ""
    values = item.values if isinstance(item, ReferenceRecord) else item
    if not isinstance(values, Mapping) or not isinstance(path := values.get("path"), str):
        raise ValueError(f"it contains a {type(item).__name__} that is not a reference")
    source = values.get("source")
    if source in (None, "", ".", "./"):
        return path
    if not isinstance(source, str):
        raise ValueError("it contains a reference without a source")
    return json.dumps({"source": source, "path": path})


def columns(rows: Sequence[Any], fields: list[Any], where: str) -> dict[str, Column]:
    """Return the columns of rows by field."""
    filled = [
        None if row is None or (type(row) is int and row == 0) else _row(row, len(fields)) for row in rows
    ]
    result: dict[str, Column] = {}
    for position, field in enumerate(fields):
        values = [None if row is None else row[position] for row in filled]
        if field["kind"] in ("text", "reference"):
            is_reference = field["kind"] == "reference"
            result[field["name"]] = strings(
                ["" if _is_fill(value) else value for value in values], where, is_reference=is_reference
            )
        else:
            result[field["name"]] = _numbers(values, numpy_dtype(field["kind"]))
    return result


def _is_fill(value: Any) -> bool:
    return value is None or (type(value) is int and value == 0)


def _row(row: Any, length: int) -> Sequence[Any]:
    if not isinstance(row, (tuple, list)) or len(row) != length:
        raise ValueError(f"a row is a {type(row).__name__}, but one of {length} fields is declared")
    return row


def _numbers(values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    allowed: tuple[type, ...] = {
        "b": (bool, np.bool_),
        "i": (int, np.integer),
        "u": (int, np.integer),
        "c": (complex, float, int, np.number),
    }.get(dtype.kind, (float, int, np.number) if dtype.kind == "f" else (str, bytes))
    if not all(value is None or isinstance(value, allowed) for value in values):
        raise ValueError(f"a field of {dtype} contains another type")
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
    """Decode a chunk to strings in C order, or the columns of a compound by field."""
    where = where or f"A chunk of the array {configuration.get('array')!r}"
    try:
        content, count = configuration["content"], prod(configuration["shape"])
        stored = memoryview(data).cast("B")
        fields = content if isinstance(content, list) else None
        limit = min(LARGEST_OBJECT_CHUNK, text_limit(tuple(configuration["shape"]), len(fields or [0])))
        for compressor in reversed(configuration["compressors"]):
            stored = decompress(compressor, stored, limit, where=where)
        if len(stored) > limit:
            raise LimitError(
                f"{where} has {len(stored)} bytes; {limit} are allowed for {count} objects.",
                found=len(stored),
                expected=limit,
            )
        if configuration["object_codec"] == REPEATED_RECORDS:
            return repeated_columns(stored, configuration, count)
        items = object_items(bytes(stored), configuration, count, fields, where)
        if len(items) != count:
            raise ValueError(f"it contains {len(items)} elements, but {count} are declared")
        if fields is None:
            return strings(items, where, is_reference=content == "reference")
        return columns(items, fields, where)
    except LimitError:
        raise
    except _DAMAGED as error:
        raise LegacyObjectError(
            f"{where} cannot be read as strings, numbers and object references: {error}. "
            "The chunk is damaged, or does not belong to this array.",
            next_step="Compare it with the original file.",
        ) from error


@dataclass(frozen=True)
class LegacyObjectsCodec(BytesBytesCodec):
    """The codec ``nwbzarr.legacy_objects``, which decodes Zarr 2 object encodings."""

    # zarr requires the serializers `vlen-utf8` for strings and `bytes` for compounds. So this bytes-to-bytes
    # codec follows them, and encodes decoded strings as vlen-utf8, and compounds as packed little-endian
    # records with strings of fixed width.

    # `array` (its path, for errors), `shape` and `order` of a chunk, `object_codec`, `compressors` (Zarr 3
    # documents) and `content`: "text", "reference" or a list of fields with `name` and `kind` ("text",
    # "reference" or a Zarr 3 data type).
    configuration: Mapping[str, Any]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Create the codec from array metadata."""
        return cls(data["configuration"])

    def to_dict(self) -> dict[str, Any]:
        """Return the codec document of array metadata."""
        return {"name": CODEC_NAME, "configuration": dict(self.configuration)}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> NoReturn:
        """Raise an error: the size is unknown, as for any compressor."""
        raise NotImplementedError

    def _decode_sync(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> ZarrBuffer:
        try:
            encoded = self._encoded(chunk_data.to_bytes(), chunk_spec)
        except NWBZarrError as error:
            error.path = self.configuration["array"]
            raise
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    def _encoded(self, data: bytes, chunk_spec: ArraySpec) -> bytes:
        where = f"A chunk of the array {self.configuration['array']!r}"
        decoded = decode_legacy_objects(data, self.configuration, where=where)
        if isinstance(decoded, dict):
            dtype = chunk_spec.dtype.to_native_dtype()
            return _records(decoded, self.configuration["content"], dtype, where)
        return _variable_length(decoded, where)

    async def _decode_single(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> ZarrBuffer:
        # In a thread, since hundreds of thousands of strings would block zarr's event loop.
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, _chunk_data: ZarrBuffer, _chunk_spec: ArraySpec) -> NoReturn:
        raise LegacyObjectError(
            f"The array {self.configuration['array']!r} is stored as Zarr 2 objects, which can only be read.",
            path=self.configuration["array"],
            next_step="Convert the file to Zarr 3 to change it.",
        )

    async def _encode_single(self, chunk_data: ZarrBuffer, chunk_spec: ArraySpec) -> NoReturn:
        self._encode_sync(chunk_data, chunk_spec)


def _variable_length(texts: list[str], where: str) -> bytes:
    # A pickle can repeat one string at little cost, so the encoded size does not bound the decoded size.
    _check_size(4 * sum(map(len, texts)), where)
    try:
        array = np.empty(len(texts), object)
        array[:] = texts
        return bytes(VLenUTF8().encode(array))
    except UnicodeEncodeError as error:
        raise LegacyObjectError(
            f"{where} contains text that is not valid Unicode: {error}.",
            next_step="Compare it with the original file.",
        ) from error


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
                    f"{where} contains text of {len(longest)} characters in its field {name!r} "
                    f"({longest[:60]!r}…); at most {width} are supported.",
                    found=len(longest),
                    expected=width,
                    next_step="Read the field with xarray.",
                )
        records[name] = column
    return records.tobytes()


def _check_size(size: int, where: str) -> None:
    if size > LARGEST_OBJECT_CHUNK:
        raise LimitError(
            f"{where} takes {size} bytes when decoded; {LARGEST_OBJECT_CHUNK} are allowed.",
            found=size,
            expected=LARGEST_OBJECT_CHUNK,
        )
