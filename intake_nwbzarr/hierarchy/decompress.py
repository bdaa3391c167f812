"""Bounded decompression of chunks: never more bytes than the array's metadata declare.

A chunk of a few kilobytes can expand to gigabytes, and decoders that read the size from the data allocate it
before it can be compared with the metadata. Here the size that the data declare is checked first, and formats
that do not declare it are decompressed up to the limit.
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

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError
from intake_nwbzarr.hierarchy.nodes import parse_named_configuration
from intake_nwbzarr.untrusted_input import LARGEST_LZMA_DICTIONARY, MOST_STREAMS

type OutputBuffer = NDArray[np.uint8] | None
"""A contiguous output buffer, or None to allocate one."""

CHECKSUMS: Final = {
    "crc32c": "crc32c",
    "numcodecs.crc32c": "crc32c",
    "numcodecs.crc32": "crc32",
    "numcodecs.adler32": "adler32",
    "numcodecs.fletcher32": "fletcher32",
    "numcodecs.jenkins_lookup3": "jenkins_lookup3",
}
"""Checksum codecs, which add four bytes, and their names in numcodecs."""


_LATER_STREAM: Final = 2**12


def decompress(
    codec: Mapping[str, Any] | str, data: Buffer, limit: int, *, where: str, out: OutputBuffer = None
) -> memoryview:
    """Return the decompressed bytes of a chunk, at most `limit`, in `out` where compressor and size allow."""
    name, configuration = parse_named_configuration(codec)
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise MetadataError(
            f"{where} is compressed with {name!r}, which is not supported.",
            found=name,
            expected=sorted(COMPRESSORS),
            next_step=f"Supported are {', '.join(sorted(COMPRESSORS))}.",
        )
    try:
        return decoder(memoryview(data).cast("B"), limit, configuration, where, out)
    except (RuntimeError, ValueError, EOFError, zlib.error, lzma.LZMAError, OSError, struct.error) as error:
        if isinstance(error, (LimitError, ChunkError)):
            raise
        raise ChunkError(
            f"{where} cannot be decompressed with {name!r}: {error}. The chunk is truncated or damaged.",
            next_step=_COMPARE,
        ) from error


def undo_bytes(
    codec: Mapping[str, Any] | str, data: Buffer, limit: int, *, where: str, out: OutputBuffer = None
) -> memoryview:
    """Return decompressed bytes, or those of a checksum codec after verification; see `decompress`."""
    name, configuration = parse_named_configuration(codec)
    if name not in CHECKSUMS:
        return decompress(codec, data, limit, where=where, out=out)
    try:
        content = numcodecs.get_codec({**configuration, "id": CHECKSUMS[name]}).decode(data)
    except Exception as error:  # numcodecs raises many kinds for too few bytes
        raise ChunkError(
            f"{where} does not match its checksum {name!r}: {error}. The chunk is damaged.",
            next_step=_COMPARE,
        ) from error
    return memoryview(content).cast("B")


def _too_large(found: int | str, limit: int, where: str) -> LimitError:
    return LimitError(
        f"{where} expands to {found} bytes, but the array's metadata allow {limit}. The chunk is damaged or "
        "malicious, or belongs to another array.",
        found=found,
        expected=limit,
        next_step=_COMPARE,
    )


_COMPARE: Final = "Compare it with the original file."


def _output_buffer(size: int, out: OutputBuffer) -> NDArray[np.uint8]:
    return out if out is not None and len(out) == size else np.empty(size, np.uint8)


def _blosc(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, out: OutputBuffer
) -> memoryview:
    # Blosc 1 header: version, version of the inner format, flags, type size, then three 32-bit sizes.
    decoded, _, encoded = struct.unpack_from("<III", data, 4)
    if decoded > limit:
        raise _too_large(decoded, limit, where)
    if encoded > len(data):
        raise ChunkError(
            f"{where} is truncated: it has {len(data)} bytes of a Blosc chunk of {encoded} bytes.",
            found=len(data),
            expected=encoded,
            next_step=_COMPARE,
        )
    output = _output_buffer(decoded, out)
    if decoded:
        blosc.decompress(data, output)
    return memoryview(output)


def _lz4(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, out: OutputBuffer
) -> memoryview:
    # numcodecs writes the decoded size, in 32 bits, before the LZ4 block.
    (decoded,) = struct.unpack_from("<I", data)
    if decoded > limit:
        raise _too_large(decoded, limit, where)
    output = _output_buffer(decoded, out)
    if decoded:
        lz4.decompress(data, output)
    return memoryview(output)


def _zstd(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, out: OutputBuffer
) -> memoryview:
    decoded = zstd_size(data)
    if decoded is None:
        return _zstd_of_unknown_size(data, limit, where)
    if decoded > limit:
        raise _too_large(decoded, limit, where)
    output = _output_buffer(decoded, out)
    if decoded:  # numcodecs refuses an empty frame
        zstd.decompress(data, output)
    return memoryview(output)


def _zstd_of_unknown_size(data: memoryview, limit: int, where: str) -> memoryview:
    # numcodecs never writes beyond the given buffer, but accepts only the exact size.
    output = np.empty(limit, np.uint8)
    try:
        zstd.decompress(data, output)
    except RuntimeError as error:
        if "expected to decompress" in str(
            error
        ):  # decoded within the limit, so it is safe to repeat without one
            return memoryview(zstd.decompress(data))
        if "too small" in str(error):
            raise _too_large(f"more than {limit}", limit, where) from None
        raise
    return memoryview(output)


def zstd_size(data: memoryview) -> int | None:
    """Return the decoded size that the Zstandard frames declare, None if one does not (RFC 8878)."""
    if not data:
        raise EOFError("it is empty")
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
    """Decompress one or several consecutive streams, stopping one byte after the limit."""
    parts: list[bytes] = []
    size = position = 0
    # The first stream, usually the only one, gets all data. Later ones get little at a time, because the
    # library copies the data after a stream: with many empty streams, that would take quadratic time.
    window = len(data)
    for _ in range(MOST_STREAMS):
        decompressor = start()
        while not decompressor.eof:
            block = data[position : position + window]
            parts.append(decompressor.decompress(block, limit + 1 - size))
            size += len(parts[-1])
            position += len(block)
            if size > limit:
                raise _too_large(f"more than {limit}", limit, where)
            if position == len(data) and not decompressor.eof:
                raise EOFError("the stream ends in the middle")
            window *= 2
        position = _without_padding(data, position - len(decompressor.unused_data))
        if not several or position == len(data):
            return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        window = _LATER_STREAM
    raise LimitError(
        f"{where} consists of more than {MOST_STREAMS:,} compressed streams; it is damaged or malicious.",
        expected=MOST_STREAMS,
    )


def _without_padding(data: memoryview, position: int) -> int:
    """Return the position after any padding with zero bytes."""
    while position < len(data) and data[position] == 0:
        block = bytes(data[position : position + 2**20])
        position += len(block) - len(block.lstrip(b"\0"))
    return position


def _gzip(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, _out: OutputBuffer
) -> memoryview:
    return _stream(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), data, limit, where)


def _zlib(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, _out: OutputBuffer
) -> memoryview:
    return _stream(zlib.decompressobj, data, limit, where, several=False)


def _bz2(
    data: memoryview, limit: int, _configuration: Mapping[str, Any], where: str, _out: OutputBuffer
) -> memoryview:
    return _stream(bz2.BZ2Decompressor, data, limit, where)


def _lzma(
    data: memoryview, limit: int, configuration: Mapping[str, Any], where: str, _out: OutputBuffer
) -> memoryview:
    container, filters = configuration.get("format", lzma.FORMAT_XZ), configuration.get("filters")
    if container != lzma.FORMAT_RAW:
        return _stream(lambda: lzma.LZMADecompressor(container, LARGEST_LZMA_DICTIONARY), data, limit, where)
    # The dictionary size of a raw stream is in the array's metadata, which the library does not limit.
    dictionary = max((int(entry.get("dict_size", 0)) for entry in filters or ()), default=0)
    if dictionary > LARGEST_LZMA_DICTIONARY:
        raise LimitError(
            f"{where} needs an LZMA dictionary of {dictionary} bytes; {LARGEST_LZMA_DICTIONARY} are allowed.",
            found=dictionary,
            expected=LARGEST_LZMA_DICTIONARY,
        )
    return _stream(lambda: lzma.LZMADecompressor(container, None, filters), data, limit, where, several=False)


type _Decoder = Callable[[memoryview, int, Mapping[str, Any], str, OutputBuffer], memoryview]

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
"""Zarr 3 names of the compressors that `decompress` supports."""
