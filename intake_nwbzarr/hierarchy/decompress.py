"""Decompression that never makes more than it was told to expect.

A chunk of a few kilobytes can expand to gigabytes: decoders that learn the size from the data reserve or
write it before anyone compares it with the array's metadata. Here the declared size is checked first, and
where a format declares none, the output is capped while it is produced.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Buffer, Callable, Mapping
from typing import Any, Final, Protocol

import numcodecs
import numpy as np
from numcodecs import blosc, lz4, zstd
from numpy.typing import NDArray

from intake_nwbzarr.bounds import LARGEST_LZMA_DICTIONARY, MOST_STREAMS
from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError
from intake_nwbzarr.hierarchy.nodes import named

type Room = NDArray[np.uint8] | None
"""Bytes, one after the other, where a result belongs; None where it has no place yet."""

CHECKSUMS: Final = {
    "crc32c": "crc32c",
    "numcodecs.crc32c": "crc32c",
    "numcodecs.crc32": "crc32",
    "numcodecs.adler32": "adler32",
    "numcodecs.fletcher32": "fletcher32",
    "numcodecs.jenkins_lookup3": "jenkins_lookup3",
}
"""Codecs that append or prepend four bytes, by what numcodecs calls them."""


_LATER_STREAM: Final = 2**12


def decompress(
    codec: Mapping[str, Any] | str, data: Buffer, limit: int, *, where: str, out: Room = None
) -> memoryview:
    """Undo one compressor.

    Parameters
    ----------
    codec
        A Zarr 3 codec document, ``{"name": "blosc", "configuration": {...}}``, or its name. The names are
        those of `COMPRESSORS`; ``numcodecs.zlib`` and its like are what Zarr 2 calls ``zlib``.
    data
        The compressed bytes, of one chunk.
    limit
        How many bytes may come out. For elements of fixed size that is exactly the chunk's size.
    where
        The array and the chunk, for errors.
    out
        Where the bytes may be put, if they are as many; not every compressor can.

    Returns
    -------
    memoryview
        One byte per item; at most `limit` of them, possibly fewer. Of `out`, where they are there.

    Raises
    ------
    LimitError
        When the data declare, or turn out, to be larger than `limit`.
    ChunkError
        When they are truncated or damaged.
    MetadataError
        When the codec is not a compressor known here.
    """
    name, configuration = named(codec)
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise MetadataError(
            f"{where} is compressed by {name!r}, which is not known here; known are "
            f"{', '.join(sorted(COMPRESSORS))}."
        )
    try:
        return decoder(memoryview(data).cast("B"), limit, configuration, where, out)
    except (RuntimeError, ValueError, EOFError, zlib.error, lzma.LZMAError, OSError, struct.error) as error:
        if isinstance(error, (LimitError, ChunkError)):
            raise
        raise ChunkError(
            f"{where} cannot be decompressed as {name!r}: {error}. The chunk is truncated or damaged; "
            "compare it with the original file."
        ) from error


def undo_bytes(
    codec: Mapping[str, Any] | str, data: Buffer, limit: int, *, where: str, out: Room = None
) -> memoryview:
    """Undo one compressor, or one checksum: see `decompress`."""
    name, configuration = named(codec)
    if name not in CHECKSUMS:
        return decompress(codec, data, limit, where=where, out=out)
    try:
        content = numcodecs.get_codec({**configuration, "id": CHECKSUMS[name]}).decode(data)
    except Exception as error:  # whatever the library makes of too few bytes
        raise ChunkError(
            f"{where} does not fit its checksum {name!r}: {error}. The chunk is damaged; compare it with the "
            "original file."
        ) from error
    return memoryview(content).cast("B")


def _too_large(found: int | str, limit: int, where: str) -> LimitError:
    return LimitError(
        f"{where} expands to {found} bytes, but the array's metadata allow {limit}; "
        "the chunk is damaged or hostile, or belongs to another array."
    )


def _room(size: int, out: Room) -> NDArray[np.uint8]:
    return out if out is not None and len(out) == size else np.empty(size, np.uint8)


def _blosc(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, out: Room
) -> memoryview:
    # Blosc 1 header: version, version of the inner format, flags, type size, then three 32-bit sizes.
    decoded, _, encoded = struct.unpack_from("<III", data, 4)
    if decoded > limit:
        raise _too_large(decoded, limit, where)
    if encoded > len(data):
        raise ChunkError(f"{where} holds {len(data)} bytes of a Blosc chunk of {encoded}; it is truncated.")
    output = _room(decoded, out)
    if decoded:
        blosc.decompress(data, output)
    return memoryview(output)


def _lz4(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, out: Room
) -> memoryview:
    # numcodecs puts the decoded size, 32 bits, before the LZ4 block.
    (decoded,) = struct.unpack_from("<I", data)
    if decoded > limit:
        raise _too_large(decoded, limit, where)
    output = _room(decoded, out)
    if decoded:
        lz4.decompress(data, output)
    return memoryview(output)


def _zstd(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, out: Room
) -> memoryview:
    decoded = zstd_size(data)
    if decoded is None:
        return _zstd_of_unknown_size(data, limit, where)
    if decoded > limit:
        raise _too_large(decoded, limit, where)
    output = _room(decoded, out)
    if decoded:  # numcodecs refuses an empty frame
        zstd.decompress(data, output)
    return memoryview(output)


def _zstd_of_unknown_size(data: memoryview, limit: int, where: str) -> memoryview:
    # numcodecs writes into a buffer of ours and never beyond it, but accepts only the exact size.
    output = np.empty(limit, np.uint8)
    try:
        zstd.decompress(data, output)
    except RuntimeError as error:
        if "expected to decompress" in str(
            error
        ):  # decoded to the end within the limit: it is safe to repeat
            return memoryview(zstd.decompress(data))
        if "too small" in str(error):
            raise _too_large(f"more than {limit}", limit, where) from None
        raise
    return memoryview(output)


def zstd_size(data: memoryview) -> int | None:
    """The decoded size that all Zstandard frames of a chunk declare, None if one declares none (RFC 8878)."""
    if not data:
        raise EOFError("there are no bytes")
    total, position = 0, 0
    while position < len(data):
        (magic,) = struct.unpack_from("<I", data, position)
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # a skippable frame
            position += 8 + int(struct.unpack_from("<I", data, position + 4)[0])
            continue
        if magic != 0xFD2FB528:
            raise ValueError(f"no Zstandard frame begins at byte {position}")
        descriptor = data[position + 4]
        single_segment, checksum = bool(descriptor & 0x20), bool(descriptor & 0x04)
        position += 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
        width = (int(single_segment), 2, 4, 8)[descriptor >> 6]
        if width == 0:
            return None
        total += int.from_bytes(data[position : position + width], "little") + (256 if width == 2 else 0)
        position = _end_of_blocks(data, position + width) + (4 if checksum else 0)
    return total


def _end_of_blocks(data: memoryview, position: int) -> int:
    last = False
    while not last:
        if position + 3 > len(data):
            raise ValueError("a Zstandard frame ends in the middle")
        header = int.from_bytes(data[position : position + 3], "little")
        last = bool(header & 1)
        run_length = header >> 1 & 3 == 1  # one byte, repeated
        position += 3 + (1 if run_length else header >> 3)
    if position > len(data):
        raise ValueError("a Zstandard frame ends in the middle of a block")
    return position


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, max_length: int) -> bytes: ...


def _stream(
    start: Callable[[], _Decompressor], data: memoryview, limit: int, where: str, *, several: bool = True
) -> memoryview:
    """Undo one or `several` streams that follow each other, stopping one byte after the limit."""
    pieces: list[bytes] = []
    made = position = 0
    # The first stream, which is mostly the only one, gets everything. What follows a stream is copied by the
    # library, so later ones get little at a time: of many empty ones, each would cost as much as the rest.
    window = len(data)
    for _ in range(MOST_STREAMS):
        decompressor = start()
        while not decompressor.eof:
            given = data[position : position + window]
            pieces.append(decompressor.decompress(given, limit + 1 - made))
            made += len(pieces[-1])
            position += len(given)
            if made > limit:
                raise _too_large(f"more than {limit}", limit, where)
            if position == len(data) and not decompressor.eof:
                raise EOFError("the stream ends in the middle")
            window *= 2
        position = _without_padding(data, position - len(decompressor.unused_data))
        if not several or position == len(data):
            return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        window = _LATER_STREAM
    raise LimitError(f"{where} is made of more than {MOST_STREAMS:,} compressed streams; it is hostile.")


def _without_padding(data: memoryview, position: int) -> int:
    """Return the position of the first byte that is not zero: files may be padded with zeros."""
    while position < len(data) and data[position] == 0:
        block = bytes(data[position : position + 2**20])
        position += len(block) - len(block.lstrip(b"\0"))
    return position


def _gzip(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, _out: Room
) -> memoryview:
    return _stream(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), data, limit, where)


def _zlib(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, _out: Room
) -> memoryview:
    return _stream(zlib.decompressobj, data, limit, where, several=False)


def _bz2(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, _out: Room
) -> memoryview:
    return _stream(bz2.BZ2Decompressor, data, limit, where)


def _lzma(
    data: memoryview, limit: int, configuration: Mapping[str, Any], where: str, _out: Room
) -> memoryview:
    container, filters = configuration.get("format", lzma.FORMAT_XZ), configuration.get("filters")
    if container != lzma.FORMAT_RAW:
        return _stream(lambda: lzma.LZMADecompressor(container, LARGEST_LZMA_DICTIONARY), data, limit, where)
    # A raw stream names its dictionary in the array's metadata, where the library's own limit does not look.
    dictionary = max((int(entry.get("dict_size", 0)) for entry in filters or ()), default=0)
    if dictionary > LARGEST_LZMA_DICTIONARY:
        raise LimitError(
            f"{where} asks for an LZMA dictionary of {dictionary} bytes; "
            f"{LARGEST_LZMA_DICTIONARY} are allowed."
        )
    return _stream(lambda: lzma.LZMADecompressor(container, None, filters), data, limit, where, several=False)


type _Decoder = Callable[[memoryview, int, Mapping[str, Any], str, Room], memoryview]

_DECODERS: Final[Mapping[str, _Decoder]] = {
    "blosc": _blosc,
    "zstd": _zstd,
    "gzip": _gzip,
    "numcodecs.blosc": _blosc,
    "numcodecs.zstd": _zstd,
    "numcodecs.gzip": _gzip,
    "numcodecs.lz4": _lz4,
    "numcodecs.zlib": _zlib,
    "numcodecs.bz2": _bz2,
    "numcodecs.lzma": _lzma,
}

COMPRESSORS: Final = frozenset(_DECODERS)
"""The Zarr 3 names of the compressors that `decompress` undoes."""
