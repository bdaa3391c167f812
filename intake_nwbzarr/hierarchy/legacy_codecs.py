"""Zarr 2 compressors and filters, as the codecs of Zarr 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hierarchy.legacy_types import JSON, Endian, StoredType

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
