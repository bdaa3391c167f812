"""Legacy object arrays: strings, references and compounds that hdmf-zarr up to 0.13 stored as Python objects.

Zarr 2 stored them by ``pickle``, ``json2``, ``vlen-utf8`` or ``vlen-bytes``. They are decoded into inert
values (pickles: see `intake_nwbzarr.hierarchy.pickles`), and given as what hdmf-zarr 0.14 makes of them on
conversion:

- text: strings as they are, bytes decoded as UTF-8, everything else (None, numbers, booleans) as ``str()``
  writes it, so that None reads ``"None"``. Lists and dictionaries are refused.
- references: the target's path; JSON with ``source`` and ``path`` where the target is in another file; empty
  where Zarr 2 left a fill value (0 or None).
- compounds: a column for each field. A row that is a fill value is zeros and empty strings. Of compounds of
  numbers, hdmf-zarr up to 0.11 wrote a row of *n* fields as *n* records, each with one field's value in all
  of them; they are put together again.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Buffer, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, NoReturn, Self

import numpy as np
from numcodecs import VLenUTF8
from zarr.abc.buffer import Buffer as ZarrBuffer
from zarr.abc.codec import BytesBytesCodec

from intake_nwbzarr.errors import LegacyObjectError, LimitError
from intake_nwbzarr.hierarchy.decompress import decompress
from intake_nwbzarr.hierarchy.elements import (
    OBJECT_BYTES,
    REPEATED_RECORDS,
    Column,
    columns,
    object_items,
    repeated_columns,
    strings,
)
from intake_nwbzarr.hierarchy.variable_length import text_limit
from intake_nwbzarr.zarr_internals import ArraySpec

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
        limit = min(OBJECT_BYTES, text_limit(tuple(configuration["shape"]), len(fields or [0])))
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
    if size > OBJECT_BYTES:
        raise LimitError(f"{where} takes {size} bytes when decoded; {OBJECT_BYTES} are allowed.")
