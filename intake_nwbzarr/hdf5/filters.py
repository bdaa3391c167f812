"""Undo the filters of an HDF5 chunk: the usual ones here, in bounds, and the others by the HDF5 library."""

from __future__ import annotations

import bz2
import os
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache, partial
from math import prod
from typing import Any, Final

import numpy as np
from numcodecs import blosc, lz4, zstd
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from intake_nwbzarr.errors import ChunkError, LimitError, NWBZarrError
from intake_nwbzarr.hdf5.messages import Filter

GZIP, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET = 1, 2, 3, 4, 5, 6
BZIP2, LZF, BLOSC, LZ4, BITSHUFFLE, ZFP, ZSTD, BLOSC2 = 307, 32000, 32001, 32004, 32008, 32013, 32015, 32026

NAMES: Final = {
    GZIP: "gzip", SHUFFLE: "shuffle", FLETCHER32: "fletcher32", SZIP: "szip", NBIT: "nbit",
    SCALEOFFSET: "scaleoffset", BZIP2: "bzip2", LZF: "lzf", BLOSC: "blosc", LZ4: "lz4",
    BITSHUFFLE: "bitshuffle", ZFP: "zfp", ZSTD: "zstd", BLOSC2: "blosc2",
}  # fmt: skip
"""Filters that are read, by their registered numbers; bitshuffle, zfp and blosc2 with hdf5plugin."""

_DAMAGED: Final = "The chunk is damaged; compare it with the original file."


def undo(
    data: bytes | memoryview,
    filters: Sequence[Filter],
    mask: int,
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    where: str,
    out: NDArray[np.uint8] | None = None,
) -> bytes | memoryview:
    """Return the elements of a chunk of a shape, as they are stored without filters.

    Bit i of the mask is set if filter i was skipped for this chunk. The bytes are those of `out` where the
    last filter to be undone allows it.
    """
    used = [each for number, each in enumerate(filters) if not mask >> number & 1]
    content: bytes | memoryview = data
    nbytes = prod(chunks) * dtype.itemsize
    # What filters add: a checksum four bytes, and compressors little to what does not compress.
    limit = nbytes if all(each.number == SHUFFLE for each in used[:-1]) else nbytes + nbytes // 8 + 2**10
    for left in reversed(range(len(used))):
        each = used[left]
        if each.number == SHUFFLE:
            content = _unshuffled(content, each, dtype.itemsize, out if left == 0 else None)
        elif each.number == FLETCHER32:
            content = _verified(content, where)
        elif each.number in _DECODERS:
            content = _decoded(content, each, limit, where)
        else:
            decode = partial(_by_library, content, used[: left + 1], chunks, dtype, where)
            content = _library(os.getpid()).call(decode, where)
            break
    if len(content) != nbytes:
        raise ChunkError(
            f"{where} decodes to {len(content)} bytes; expected {nbytes}.",
            found=len(content),
            expected=nbytes,
            next_step=_DAMAGED,
        )
    return content


def _decoded(data: bytes | memoryview, each: Filter, limit: int, where: str) -> bytes | memoryview:
    try:
        return _DECODERS[each.number](memoryview(data).cast("B"), limit, where)
    except (RuntimeError, ValueError, EOFError, OSError, struct.error) as error:
        if isinstance(error, NWBZarrError):
            raise
        raise ChunkError(
            f"{where} cannot be decompressed with {NAMES[each.number]}: {error}.", next_step=_DAMAGED
        ) from error


def _must_be(found: int, expected: int, where: str) -> None:
    if found != expected:
        raise ChunkError(
            f"{where} claims {found:,} bytes; expected {expected:,}.",
            found=found,
            expected=expected,
            next_step=_DAMAGED,
        )


def _check_claim(found: int, limit: int, where: str) -> int:
    if found > limit:
        raise _expands(limit, where)
    return found


def _expands(limit: int, where: str) -> ChunkError:
    return ChunkError(
        f"{where} does not expand to {limit} bytes or less, or is truncated.",
        expected=limit,
        next_step=_DAMAGED,
    )


def _inflated(data: memoryview, limit: int, where: str) -> bytes:
    decompressor = zlib_ng.decompressobj()
    try:
        inflated: bytes = decompressor.decompress(data, limit + 1)
    except zlib_ng.error as error:  # type: ignore[misc]  # its stub has an instance
        raise ChunkError(f"{where} cannot be decompressed: {error}.", next_step=_DAMAGED) from error
    if len(inflated) > limit or not decompressor.eof:
        raise _expands(limit, where)
    return inflated


def _unbzipped(data: memoryview, limit: int, where: str) -> bytes:
    decompressor = bz2.BZ2Decompressor()
    content = decompressor.decompress(data, limit + 1)
    if len(content) > limit or not decompressor.eof:
        raise _expands(limit, where)
    return content


def _blosc(data: memoryview, limit: int, where: str) -> memoryview:
    # Versions of the format and of the compressor, flags and type size; then three sizes.
    decoded, _, encoded = struct.unpack_from("<III", data, 4)
    _must_be(encoded, len(data), where)
    out = np.empty(_check_claim(decoded, limit, where), np.uint8)
    if decoded:
        blosc.decompress(data, out)
    return memoryview(out)


def _zstd(data: memoryview, limit: int, where: str) -> memoryview:
    # The size of the content is in the header of a frame, which HDF5's filter writes and needs.
    (magic, flags) = struct.unpack_from("<IB", data)
    width = (1 if flags & 0x20 else 0, 2, 4, 8)[flags >> 6]
    if magic != 0xFD2FB528 or not width:
        raise ChunkError(f"{where} is no zstd frame that tells its size.", next_step=_DAMAGED)
    start = 5 + (0 if flags & 0x20 else 1) + (0, 1, 2, 4)[flags & 3]
    if len(data) < start + width:
        raise _expands(limit, where)
    decoded = int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
    out = np.empty(_check_claim(decoded, limit, where), np.uint8)
    zstd.decompress(data, out)
    return memoryview(out)


def _lz4(data: memoryview, limit: int, where: str) -> memoryview:
    """Decode the blocks of the filter lz4, each after its size; what does not compress is stored as it is."""
    decoded, size = struct.unpack_from(">QI", data)
    out = np.empty(_check_claim(decoded, limit, where), np.uint8)
    if decoded and not size:
        raise _expands(limit, where)
    at = 12
    for start in range(0, decoded, min(size, decoded) or 1):
        length = _number(">I", data, at)
        block, place = data[at + 4 : at + 4 + length], out[start : start + size]
        at += 4 + length
        if at > len(data):
            raise _expands(limit, where)
        if length == len(place):
            place[:] = np.frombuffer(block, np.uint8)
        else:
            # numcodecs takes the decoded size before a block.
            lz4.decompress(len(place).to_bytes(4, "little") + bytes(block), place)
    return memoryview(out)


def _unshuffled(
    data: bytes | memoryview, each: Filter, size: int, out: NDArray[np.uint8] | None
) -> memoryview:
    width = each.parameters[0] if each.parameters else size
    if width < 2 or len(data) < width:
        return memoryview(data)
    # Bytes that are no whole element follow the others as they are.
    count = len(data) // width
    result = out if out is not None and len(out) == len(data) else np.empty(len(data), np.uint8)
    planes = np.frombuffer(data, np.uint8, count * width).reshape(width, count)
    elements = result[: count * width].reshape(count, width)
    if width <= 16:
        # NumPy transposes short elements several times faster by columns.
        for number in range(width):
            elements[:, number] = planes[number]
    else:
        elements[...] = planes.T
    result[count * width :] = np.frombuffer(data, np.uint8, offset=count * width)
    return memoryview(result)


def _verified(data: bytes | memoryview, where: str) -> memoryview:
    content = memoryview(data)[:-4]
    stored = int.from_bytes(memoryview(data)[-4:], "little")
    found = fletcher32(content)
    # Releases of HDF5 before 1.6.3 stored the bytes of both halves in the order of the machine.
    swapped = (found & 0xFF00FF00) >> 8 | (found & 0x00FF00FF) << 8
    if len(data) < 4 or stored not in {found, swapped}:
        raise ChunkError(
            f"{where} does not match its checksum (fletcher32).",
            found=found,
            expected=stored,
            next_step=_DAMAGED,
        )
    return content


def fletcher32(data: bytes | memoryview) -> int:
    """Return the Fletcher checksum of bytes, as HDF5 computes it of big-endian words of 16 bits."""
    whole = len(data) // 2
    words = np.frombuffer(data, ">u2", whole).astype(np.uint64)
    # The second sum counts each word as often as there are words from it on; blocks keep it within 64 bits.
    first = second = 0
    for start in range(0, whole, 2**16):
        block = words[start : start + 2**16]
        weights = np.arange(len(block), 0, -1, dtype=np.uint64)
        second = (second + first * len(block) + int((block * weights).sum())) % 65535
        first = (first + int(block.sum())) % 65535
    if len(data) % 2:
        first = (first + (memoryview(data)[-1] << 8)) % 65535
        second = (second + first) % 65535
    # Sums are folded and not reduced: a multiple of 65535 that is not 0 stays 65535.
    return (_folded(second, data) << 16) | _folded(first, data)


def _folded(value: int, data: bytes | memoryview) -> int:
    return value or (65535 if any(memoryview(data).cast("B")) else 0)


_DECODERS: Final[Mapping[int, Callable[[memoryview, int, str], bytes | memoryview]]] = {
    GZIP: _inflated,
    BZIP2: _unbzipped,
    BLOSC: _blosc,
    LZ4: _lz4,
    ZSTD: _zstd,
}


# Filters of the HDF5 library


PATIENCE: Final = 20.0
"""Seconds that a chunk waits for h5py while no other chunk is decoded either."""


class _Library:
    """Calls h5py, which makes one call at a time, from a thread of its own.

    A function that is passed to `h5py.Group.visititems` keeps all others from h5py. If it waits for a chunk,
    that ends in an error and not in a deadlock.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nwbzarr-hdf5")
        self._calls = 0
        # No call has ended since one was given up.
        self._is_stuck = False

    def call[T](self, function: Callable[[], T], where: str) -> T:
        """Return what a function returns, in turn."""
        future = self._thread.submit(self._counted, function)
        calls = -1
        while calls != self._calls:
            calls = self._calls
            finished, _ = wait([future], PATIENCE / 100 if self._is_stuck else PATIENCE)
            if finished:
                return future.result()
        future.cancel()
        self._is_stuck = True
        raise ChunkError(
            f"{where} cannot be decoded while other code uses h5py, which makes one call at a time.",
            next_step="Read it outside of functions that h5py calls, such as those passed to visititems, or "
            "pass storage_options={'isolate': True}.",
        )

    def _counted[T](self, function: Callable[[], T]) -> T:
        try:
            return function()
        finally:
            self._calls += 1
            self._is_stuck = False


@cache
def _library(process: int) -> _Library:  # noqa: ARG001 - threads do not survive a fork
    return _Library()


def _by_library(
    data: bytes | memoryview,
    used: Sequence[Filter],
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    where: str,
) -> memoryview:
    """Return a chunk that the HDF5 library has decoded, in a file in memory with this chunk only."""
    import h5py

    for each in used:
        _check_available(each, where)
    if any(each.number in _DECODERS for each in used[:-1]):
        # The library would decode as much as the bytes say.
        names = ", ".join(NAMES[each.number] for each in used)
        raise ChunkError(
            f"{where} was stored with the filters {names}, which are not supported in this order.",
            found=names,
            next_step="Rewrite the dataset with one compressor, for example with h5repack.",
        )
    if all(each.number in {SHUFFLE, NBIT} for each in used[:-1]):
        try:
            data = _checked(memoryview(data).cast("B"), used[-1], chunks, dtype, where)
        except (struct.error, IndexError) as error:
            raise ChunkError(f"{where} is truncated.", next_step=_DAMAGED) from error
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(block_size=2**16, backing_store=False)
    name = f"nwbzarr-{threading.get_ident()}".encode()
    out: NDArray[Any] = np.empty(chunks, dtype)
    try:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunks)
        for each in used:
            _add(plist, each, dtype)
        file = h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fapl=access)
        try:
            dataset = h5py.h5d.create(
                file, b"d", h5py.h5t.py_create(dtype), h5py.h5s.create_simple(chunks), plist
            )
            dataset.write_direct_chunk((0,) * len(chunks), bytes(data), 0)
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
        finally:
            file.close()
    except (OSError, RuntimeError, ValueError, IndexError, OverflowError) as error:
        raise ChunkError(f"{where} cannot be decoded by HDF5: {error}.", next_step=_DAMAGED) from error
    return memoryview(out.reshape(-1).view(np.uint8))


def _checked(
    data: memoryview, each: Filter, chunks: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> bytes | memoryview:
    """Return a chunk whose claims are those of its array: filters believe them, and read beyond its end."""
    nbytes = prod(chunks) * dtype.itemsize
    match each.number:
        case 4:
            _must_be(_number("<I", data), nbytes, where)
        case 5:
            # All bits of these elements count, so that nothing was left out.
            _must_be(len(data), nbytes, where)
        case 6:
            bits = _number("<I", data)
            least = 21 + -(-prod(chunks) * bits // 8) if bits else 5
            if bits > 8 * dtype.itemsize or len(data) < least:
                raise ChunkError(f"{where} has {len(data)} bytes; expected {least}.", next_step=_DAMAGED)
        case 32000:
            _must_be(_lzf_size(bytes(data)), nbytes, where)
        case 32008:
            _check_bitshuffle(data, each, nbytes, dtype.itemsize, where)
        case 32013:
            # The decoder goes on reading behind bytes that end early: here it finds zeros.
            if not (each.parameters and len(data)):
                raise IndexError
            blocks = prod(-(-width // 4) * 4 for width in chunks)
            return bytes(data).ljust(2 * blocks * dtype.itemsize + 2**12, b"\0")
        case 32026:
            _check_blosc2(data, nbytes, where)
    return data


def _lzf_size(data: bytes) -> int:
    """Return how many bytes an lzf stream decodes to."""
    at = size = 0
    while at < len(data):
        control = data[at]
        if control < 32:
            at += control + 2
            size += control + 1
        elif control < 224:
            at += 2
            size += (control >> 5) + 2
        else:
            size += data[at + 1] + 9
            at += 3
    return size if at == len(data) else -1


def _check_bitshuffle(data: memoryview, each: Filter, nbytes: int, itemsize: int, where: str) -> None:
    if len(each.parameters) < 5 or not each.parameters[4]:
        _must_be(len(data), nbytes, where)
        return
    decoded, width = struct.unpack_from(">QI", data)
    _must_be(decoded, nbytes, where)
    # Elements of a block, of which there are multiples of eight; the last few are stored as they are.
    block = width // itemsize or max(8192 // itemsize // 8 * 8, 128)
    if block % 8 or block * itemsize > nbytes + 2**20:
        raise ChunkError(f"{where} has blocks of {width} bytes.", found=width, next_step=_DAMAGED)
    count = nbytes // itemsize
    at = 12
    for _ in range(-(-(count - count % 8) // block)):
        at += 4 + _number(">I", data, at)
    _must_be(at + count % 8 * itemsize, len(data), where)


def _check_blosc2(data: memoryview, nbytes: int, where: str) -> None:
    """Check that a frame has one chunk of the size of the array's."""
    header, encoded = _number(">I", data, 11), _number(">q", data, 39)
    _must_be(_number(">q", data, 30), nbytes, where)
    _must_be(_number(">i", data, 58), nbytes, where)
    if not 0 <= encoded <= len(data):
        raise _expands(nbytes, where)
    # The chunk of offsets has one, which is not compressed: the beginning, or of a chunk of equal values.
    index = header + encoded
    _must_be(_number("<i", data, index + 4), 8, where)
    _must_be(_number("<i", data, index + 12), 40, where)
    offset = _number("<Q", data, index + 32)
    if not offset >> 63:
        _must_be(offset, 0, where)
        _must_be(_number("<i", data, header + 4), nbytes, where)


def _number(kind: str, data: memoryview, at: int = 0) -> int:
    return int(struct.unpack_from(kind, data, at)[0])


def _check_available(each: Filter, where: str) -> None:
    import h5py

    if each.number not in NAMES:
        raise ChunkError(
            f"{where} was stored with the HDF5 filter {each.number} ({each.name or 'without a name'}), which "
            "is not supported.",
            found=each.number,
            next_step="Rewrite the dataset with gzip, for example with h5repack.",
        )
    if not h5py.h5z.filter_avail(each.number):
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401
    if not h5py.h5z.filter_avail(each.number):
        raise ChunkError(
            f"{where} was stored with the HDF5 filter {NAMES[each.number]!r}, which is not installed.",
            found=NAMES[each.number],
            next_step='Install it: pip install "intake-nwbzarr[hdf5plugin]"',
        )


def _add(plist: Any, each: Filter, dtype: np.dtype[Any]) -> None:
    """Add a filter with the parameters that a user had passed; HDF5 computes the others again.

    With those that it had computed, bitshuffle writes outside of its memory.
    """
    import h5py

    parameters = each.parameters
    match each.number:
        case 2:
            plist.set_shuffle()
        case 3:
            plist.set_fletcher32()
        case 4:
            if not parameters[1]:
                raise ValueError("szip with blocks of 0 pixels, by which the library divides")
            plist.set_szip(parameters[0] & 0x24, parameters[1])
        case 6:
            plist.set_scaleoffset(parameters[0], parameters[1])
            # Elements that are the fill value have a code of their own.
            if not parameters[7]:
                raise ValueError("scale-offset without a fill value is not supported")
            fill = np.array(parameters[8:], "<u4").tobytes()[: dtype.itemsize]
            plist.set_fill_value(np.frombuffer(fill, dtype.newbyteorder("<")))
        case 5 | 32000:
            plist.set_filter(each.number, h5py.h5z.FLAG_OPTIONAL, ())
        case 32008:
            plist.set_filter(each.number, h5py.h5z.FLAG_OPTIONAL, parameters[3:])
        case _:
            plist.set_filter(each.number, h5py.h5z.FLAG_OPTIONAL, parameters)


def check_size(chunks: tuple[int, ...], itemsize: int, limit: int, where: str) -> int:
    """Return the bytes of a chunk without filters, which must not be more than a limit."""
    nbytes = prod(chunks) * itemsize
    if nbytes > limit:
        raise LimitError(
            f"{where} would have {nbytes:,} bytes; at most {limit:,} are allowed.",
            found=nbytes,
            expected=limit,
        )
    return nbytes
