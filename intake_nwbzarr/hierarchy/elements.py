"""The elements of a legacy object chunk: inert values checked against the array's metadata, and converted."""

from __future__ import annotations

import json
import re
from collections.abc import Buffer, Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import LimitError
from intake_nwbzarr.hierarchy.nodes import numpy_dtype
from intake_nwbzarr.hierarchy.pickles import interpret
from intake_nwbzarr.hierarchy.records import ArrayRecord, DtypeRecord, ReferenceRecord, element_dtype
from intake_nwbzarr.hierarchy.variable_length import decode_items

OBJECT_BYTES: Final = 2**30
"""What a chunk of objects may take, stored, decompressed or encoded anew: no metadata declare its size."""

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
    if count > OBJECT_BYTES // 8:
        raise LimitError(f"{where} is declared to hold {count} objects; {OBJECT_BYTES // 8} are allowed.")
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
            if made > OBJECT_BYTES:  # one value may be meant many times over
                raise LimitError(f"its text takes more than {OBJECT_BYTES} bytes")
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
