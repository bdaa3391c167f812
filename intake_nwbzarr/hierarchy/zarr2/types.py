"""Zarr 2 dtypes, fill values, filters and compressors, in the words of Zarr 3."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.nodes import numpy_dtype

type JSON = bool | int | float | str | list[JSON] | dict[str, JSON] | None
type Endian = Literal["little", "big"]

_DTYPE: Final = re.compile(r"([<>|=]?)([biufcmMSUV])(\d{1,9})(?:\[(\d{0,9})(\w{1,7})\])?")
_NUMBERS: Final = {
    **{f"i{n}": f"int{8 * n}" for n in (1, 2, 4, 8)},
    **{f"u{n}": f"uint{8 * n}" for n in (1, 2, 4, 8)},
    **{f"f{n}": f"float{8 * n}" for n in (2, 4, 8)},
    **{f"c{n}": f"complex{8 * n}" for n in (8, 16)},
    "b1": "bool",
}
_NOT_A_TIME: Final = -(2**63)


@dataclass(frozen=True)
class StoredType:
    """A data type, and how its bytes are ordered in the chunks.

    Parameters
    ----------
    document
        The Zarr 3 data type, which says nothing of byte order.
    endian
        What the ``bytes`` codec has to know; None where elements are single bytes.
    """

    document: JSON
    endian: Endian | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """As NumPy reads the chunks."""
        return numpy_dtype(self.document).newbyteorder(">" if self.endian == "big" else "<")


def stored_type(declared: Any, path: str) -> StoredType:
    """Translate the ``dtype`` of a ``.zarray``.

    Parameters
    ----------
    declared
        ``"<i4"``, ``">M8[ns]"``, …, or a list of fields ``["name", dtype]``. Not ``"|O"``.
    path
        The array's, for errors.

    Raises
    ------
    MetadataError
        When it is not a Zarr 2 data type, or has no counterpart: fields that are arrays themselves, and
        fields of different byte order.
    """
    if isinstance(declared, list):
        return _structured(declared, path)
    match = _DTYPE.fullmatch(declared) if isinstance(declared, str) else None
    if match is None:
        raise _unknown(declared, path)
    order, kind, size, scale, unit = match.groups()
    length = int(size)
    document: JSON
    match kind:
        case "S":
            document = _sized("null_terminated_bytes", length)
        case "V":
            document = _sized("raw_bytes", length)
        case "U":
            document = _sized("fixed_length_utf32", 4 * length)
        case "M" | "m":
            name = "numpy.datetime64" if kind == "M" else "numpy.timedelta64"
            configuration: JSON = {"unit": unit or "generic", "scale_factor": int(scale or 1)}
            document = {"name": name, "configuration": configuration}
        case _ if kind + size in _NUMBERS and unit is None:
            document = _NUMBERS[kind + size]
        case _:
            raise _unknown(declared, path)
    if kind in "SV" or (kind in "biu" and length == 1):
        return StoredType(document, None)
    return StoredType(document, "big" if order == ">" else "little")


def structured(fields: list[tuple[str, StoredType]], path: str) -> StoredType:
    """A compound of fields that follow each other without gaps.

    Raises
    ------
    MetadataError
        When their byte orders differ: Zarr 3 has one for the whole array.
    """
    orders = {stored.endian for _, stored in fields} - {None}
    if len(orders) > 1:
        raise MetadataError(
            f"The array {path!r} mixes little- and big-endian fields, which cannot be read here."
        )
    entries: list[JSON] = [{"name": name, "data_type": stored.document} for name, stored in fields]
    return StoredType(
        {"name": "struct", "configuration": {"fields": entries}}, orders.pop() if orders else "little"
    )


def fill_value(value: Any, stored: StoredType, path: str) -> JSON:
    """Translate the ``fill_value`` of a ``.zarray``.

    Zarr 2 allows null, which leaves missing chunks undefined; they read as zeros, False or empty strings,
    the defaults of Zarr 3. Records and byte strings are written as base64 of their bytes.

    Raises
    ------
    MetadataError
        When it is not a value of that type.
    """
    dtype = stored.dtype
    try:
        if value is None or (dtype.kind in "SUV" and value in (0, "")):
            return _as_json(np.zeros((), dtype)[()])
        if dtype.kind == "V":
            return _as_json(np.frombuffer(base64.b64decode(value, validate=True), dtype, count=1)[0])
        return _plain_fill_value(value, dtype)
    except (TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise MetadataError(
            f"The array {path!r} has the fill value {value!r}, which is not one of type {dtype}: {error}."
        ) from error


def _structured(declared: list[Any], path: str) -> StoredType:
    fields = []
    for position, entry in enumerate(declared):
        if not isinstance(entry, list) or len(entry) not in (2, 3) or not isinstance(entry[0], str):
            raise _unknown(declared, path)
        if len(entry) == 3 and entry[2] not in ([], 1, [1]):
            raise MetadataError(
                f"The array {path!r} has a field {entry[0]!r} that is itself an array of shape {entry[2]!r}; "
                "Zarr 3 has no such compounds. Rewrite the array with one field per element."
            )
        fields.append((entry[0] or f"f{position}", stored_type(entry[1], path)))  # named as NumPy does
    return structured(fields, path)


def _sized(name: str, length_bytes: int) -> JSON:
    return {"name": name, "configuration": {"length_bytes": length_bytes}}


def _unknown(declared: Any, path: str) -> MetadataError:
    return MetadataError(
        f"The array {path!r} has the Zarr 2 data type {declared!r}, which is not known here; expected is "
        "NumPy's notation, such as '<i4', '|S10' or '<M8[ns]', or a list of such fields."
    )


def _plain_fill_value(value: Any, dtype: np.dtype[Any]) -> JSON:
    match dtype.kind:
        case "f":
            return _float_as_json(float(value))
        case "c":
            real, imaginary = value if isinstance(value, list) else (value, 0)
            return [_float_as_json(float(real)), _float_as_json(float(imaginary))]
        case "b":
            return bool(value)
        case "S":
            return base64.b64encode(base64.b64decode(value, validate=True)).decode()
        case "U":
            return str(value)
        case "M" | "m":
            return _NOT_A_TIME if value == "NaT" else int(value)
        case _:
            return int(value)


def _as_json(value: Any) -> JSON:
    """A NumPy scalar as zarr-python 3 writes fill values."""
    dtype: np.dtype[Any] = value.dtype
    if dtype.names is not None:
        return {name: _as_json(value[name]) for name in dtype.names}
    match dtype.kind:
        case "V" | "S":
            return base64.b64encode(value.tobytes() if dtype.kind == "V" else value.item()).decode()
        case "f":
            return _float_as_json(value.item())
        case "c":
            return [_float_as_json(value.real.item()), _float_as_json(value.imag.item())]
        case "M" | "m":
            return int(value.astype("i8"))
        case _:
            item: JSON = value.item()
            return item


def _float_as_json(value: float) -> JSON:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value


ARRAY_FILTERS: Final = frozenset({"astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize"})
"""What numcodecs calls the filters that turn one array into another."""

BYTE_FILTERS: Final = frozenset(
    {
        *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd", "shuffle"),
        *("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"),
    }
)
"""And those that turn bytes into bytes: compressors and checksums."""

_SHUFFLES: Final = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}


def codecs(zarray: Mapping[str, Any], stored: StoredType, path: str) -> list[JSON]:
    """The codec chain that undoes what a ``.zarray`` of plain elements says.

    Parameters
    ----------
    zarray
        With ``order``, ``filters`` and ``compressor``.
    stored
        Its data type.
    path
        The array's, for errors.

    Raises
    ------
    MetadataError
        When a filter or compressor is not known here.
    """
    chain: list[JSON] = []
    if zarray.get("order", "C") == "F" and len(zarray["shape"]) > 1:
        axes: list[JSON] = [*reversed(range(len(zarray["shape"])))]
        chain.append({"name": "transpose", "configuration": {"order": axes}})
    filters = [*(zarray.get("filters") or ())]
    on_arrays = [entry for entry in filters if _identifier(entry, path) in ARRAY_FILTERS]
    on_bytes = filters[len(on_arrays) :]
    if filters[: len(on_arrays)] != on_arrays:
        raise MetadataError(
            f"The array {path!r} filters bytes before numbers ({[entry['id'] for entry in filters]}), which "
            "Zarr 3 cannot express. Rewrite the array."
        )
    endian = stored.endian
    for entry in on_arrays:
        chain.append(_array_filter(entry, stored))
        endian = _endian_after(entry, endian)
    chain.append({"name": "bytes", "configuration": {"endian": endian}} if endian else {"name": "bytes"})
    return chain + byte_codecs(zarray, on_bytes, stored.dtype.itemsize, path)


def byte_codecs(
    zarray: Mapping[str, Any], filters: Sequence[Mapping[str, Any]], itemsize: int, path: str
) -> list[JSON]:
    """The bytes-to-bytes part of a chain: what is left of the filters, then the compressor."""
    compressor = zarray.get("compressor")
    return [_byte_codec(entry, itemsize, path) for entry in [*filters, *([compressor] if compressor else [])]]


def _byte_codec(entry: Any, itemsize: int, path: str) -> JSON:
    name = _identifier(entry, path)
    configuration = {key: value for key, value in entry.items() if key != "id"}
    match name:
        case "blosc":
            shuffle = configuration.get("shuffle", 1)
            if shuffle == -1:  # numcodecs' AUTOSHUFFLE
                shuffle = 2 if itemsize == 1 else 1
            return {
                "name": "blosc",
                "configuration": {
                    "typesize": min(max(itemsize, 1), 255),  # what a Blosc header holds; for writing only
                    "cname": configuration.get("cname", "lz4"),
                    "clevel": configuration.get("clevel", 5),
                    "shuffle": _SHUFFLES.get(shuffle, "shuffle"),
                    "blocksize": configuration.get("blocksize", 0),
                },
            }
        case "zstd":
            level, checksum = configuration.get("level", 1), bool(configuration.get("checksum", False))
            return {"name": "zstd", "configuration": {"level": level, "checksum": checksum}}
        case "gzip":
            return {"name": "gzip", "configuration": {"level": configuration.get("level", 1)}}
        case _:
            # Others may have been registered with numcodecs by another package: seen when they are read.
            return {"name": f"numcodecs.{name}", "configuration": configuration}


def _array_filter(entry: Mapping[str, Any], stored: StoredType) -> JSON:
    # In Zarr 3 the codec `bytes` has put the elements in the machine's byte order before a filter sees
    # them, but numcodecs' filters view what they are given in the byte order of their own configuration.
    configuration: dict[str, JSON] = {
        key: value.replace(">", "<") if key.endswith("type") and isinstance(value, str) else value
        for key, value in entry.items()
        if key != "id"
    }
    name = entry["id"]
    if name == "quantize" and configuration.get("astype") not in (None, configuration.get("dtype")):
        # zarr's wrapper does not know that quantize changes the type; undone, it is nothing but that.
        name = "astype"
        configuration = {"encode_dtype": configuration["astype"], "decode_dtype": configuration["dtype"]}
    if name == "astype":
        configuration.setdefault("decode_dtype", stored.dtype.newbyteorder("<").str)
    return {"name": f"numcodecs.{name}", "configuration": configuration}


def _endian_after(entry: Mapping[str, Any], endian: Endian | None) -> Endian | None:
    if entry["id"] == "packbits":
        return None
    made = entry.get("encode_dtype" if entry["id"] == "astype" else "astype") or entry.get("dtype")
    if not isinstance(made, str):
        return endian
    if made.lstrip("<>|=") in {"i1", "u1", "b1", "int8", "uint8", "bool"}:
        return None
    return "big" if made.startswith(">") else "little"


def _identifier(entry: Any, path: str) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise MetadataError(f"The array {path!r} has a filter or compressor without an 'id': {entry!r}.")
    return str(entry["id"])
