"""Zarr 2 dtypes, fill values, filters and compressors, translated to Zarr 3."""

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
    """A Zarr 3 data type, and the byte order of the stored chunks."""

    document: JSON
    # The endian of the `bytes` codec, None for elements of single bytes.
    endian: Endian | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the NumPy dtype of the stored chunks."""
        return numpy_dtype(self.document).newbyteorder(">" if self.endian == "big" else "<")


def stored_type(declared: Any, path: str) -> StoredType:
    """Translate the ``dtype`` of a ``.zarray``, such as ``"<i4"`` or a list of fields; not ``"|O"``."""
    if isinstance(declared, list):
        return _structured(declared, path)
    match = _DTYPE.fullmatch(declared) if isinstance(declared, str) else None
    if match is None:
        raise _unknown_dtype(declared, path)
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
            raise _unknown_dtype(declared, path)
    if kind in "SV" or (kind in "biu" and length == 1):
        return StoredType(document, None)
    return StoredType(document, "big" if order == ">" else "little")


def structured(fields: list[tuple[str, StoredType]], path: str) -> StoredType:
    """Return the compound type of packed fields, which must have one byte order in Zarr 3."""
    orders = {stored.endian for _, stored in fields} - {None}
    if len(orders) > 1:
        raise MetadataError(
            f"The array {path!r} mixes little- and big-endian fields, which is not supported.",
            path=path,
        )
    entries: list[JSON] = [{"name": name, "data_type": stored.document} for name, stored in fields]
    return StoredType(
        {"name": "struct", "configuration": {"fields": entries}}, orders.pop() if orders else "little"
    )


def fill_value(value: Any, stored: StoredType, path: str) -> JSON:
    """Translate the ``fill_value`` of a ``.zarray``."""
    # Null, which leaves missing chunks undefined in Zarr 2, becomes the Zarr 3 default: zero, False or "".
    dtype = stored.dtype
    try:
        if value is None or (dtype.kind in "SUV" and value in (0, "")):
            return _as_json(np.zeros((), dtype)[()])
        if dtype.kind == "V":
            return _as_json(np.frombuffer(base64.b64decode(value, validate=True), dtype, count=1)[0])
        return _plain_fill_value(value, dtype)
    except (TypeError, ValueError, OverflowError, binascii.Error) as error:
        raise MetadataError(
            f"The array {path!r} has the fill value {value!r}, which is not of type {dtype}: {error}.",
            path=path,
            found=value,
            expected=str(dtype),
        ) from error


def _structured(declared: list[Any], path: str) -> StoredType:
    fields = []
    for position, entry in enumerate(declared):
        if not isinstance(entry, list) or len(entry) not in (2, 3) or not isinstance(entry[0], str):
            raise _unknown_dtype(declared, path)
        if len(entry) == 3 and entry[2] not in ([], 1, [1]):
            raise MetadataError(
                f"The array {path!r} has a field {entry[0]!r} that is itself an array of shape {entry[2]!r}, "
                "which Zarr 3 does not support.",
                path=path,
                found=entry[2],
                next_step="Rewrite the array with one field per element.",
            )
        fields.append((entry[0] or f"f{position}", stored_type(entry[1], path)))  # named as in NumPy
    return structured(fields, path)


def _sized(name: str, length_bytes: int) -> JSON:
    return {"name": name, "configuration": {"length_bytes": length_bytes}}


def _unknown_dtype(declared: Any, path: str) -> MetadataError:
    return MetadataError(
        f"The array {path!r} has the Zarr 2 data type {declared!r}, which is not supported.",
        path=path,
        found=declared,
        expected="a NumPy dtype, such as '<i4', '|S10' or '<M8[ns]', or a list of fields",
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
    """Return a NumPy scalar as zarr-python 3 writes fill values."""
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
"""Array-to-array filters of numcodecs."""

BYTE_FILTERS: Final = frozenset(
    {
        *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd", "shuffle"),
        *("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"),
    }
)
"""Bytes-to-bytes filters of numcodecs: compressors and checksums."""

_SHUFFLES: Final = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}


def codecs(zarray: Mapping[str, Any], stored: StoredType, path: str) -> list[JSON]:
    """Translate ``order``, ``filters`` and ``compressor`` of a ``.zarray`` to a Zarr 3 codec chain."""
    chain: list[JSON] = []
    if zarray.get("order", "C") == "F" and len(zarray["shape"]) > 1:
        axes: list[JSON] = [*reversed(range(len(zarray["shape"])))]
        chain.append({"name": "transpose", "configuration": {"order": axes}})
    filters = [*(zarray.get("filters") or ())]
    on_arrays = [entry for entry in filters if _identifier(entry, path) in ARRAY_FILTERS]
    on_bytes = filters[len(on_arrays) :]
    if filters[: len(on_arrays)] != on_arrays:
        raise MetadataError(
            f"The array {path!r} has filters of bytes before filters of numbers, "
            f"{[entry['id'] for entry in filters]}, which Zarr 3 does not support.",
            path=path,
            found=[entry["id"] for entry in filters],
            next_step="Rewrite the array.",
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
    """Return the bytes-to-bytes codecs: the remaining filters, then the compressor."""
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
                    "typesize": min(
                        max(itemsize, 1), 255
                    ),  # one byte in the Blosc header; used for writing only
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
            # Codecs that other packages register with numcodecs are looked up when chunks are read.
            return {"name": f"numcodecs.{name}", "configuration": configuration}


def _array_filter(entry: Mapping[str, Any], stored: StoredType) -> JSON:
    # In Zarr 3 the codec `bytes` converts elements to native byte order before a filter gets them, but
    # filters of numcodecs view them in the byte order of their configuration.
    configuration: dict[str, JSON] = {
        key: value.replace(">", "<") if key.endswith("type") and isinstance(value, str) else value
        for key, value in entry.items()
        if key != "id"
    }
    name = entry["id"]
    if name == "quantize" and configuration.get("astype") not in (None, configuration.get("dtype")):
        # zarr's wrapper does not know that quantize changes the dtype; decoding does nothing else.
        name = "astype"
        configuration = {"encode_dtype": configuration["astype"], "decode_dtype": configuration["dtype"]}
    if name == "astype":
        configuration.setdefault("decode_dtype", stored.dtype.newbyteorder("<").str)
    return {"name": f"numcodecs.{name}", "configuration": configuration}


def _endian_after(entry: Mapping[str, Any], endian: Endian | None) -> Endian | None:
    if entry["id"] == "packbits":
        return None
    dtype = entry.get("encode_dtype" if entry["id"] == "astype" else "astype") or entry.get("dtype")
    if not isinstance(dtype, str):
        return endian
    if dtype.lstrip("<>|=") in {"i1", "u1", "b1", "int8", "uint8", "bool"}:
        return None
    return "big" if dtype.startswith(">") else "little"


def _identifier(entry: Any, path: str) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise MetadataError(
            f"The array {path!r} has a filter or compressor without an 'id': {entry!r}.",
            path=path,
            found=entry,
        )
    return str(entry["id"])
