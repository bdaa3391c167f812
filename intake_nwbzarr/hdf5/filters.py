"""Undo the filters of an HDF5 chunk: gzip, shuffle and fletcher32 here, all others by the HDF5 library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from intake_nwbzarr.errors import ChunkError, LimitError
from intake_nwbzarr.hdf5.messages import Filter

GZIP, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET = 1, 2, 3, 4, 5, 6
LZF: Final = 32000

NAMES: Final = {
    GZIP: "gzip", SHUFFLE: "shuffle", FLETCHER32: "fletcher32", SZIP: "szip", NBIT: "nbit",
    SCALEOFFSET: "scaleoffset", LZF: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp",
    32015: "zstd", 32026: "blosc2",
}  # fmt: skip
"""Filters that are read, by their registered numbers; from 32001 on, with the package hdf5plugin."""

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
    if all(each.number == SHUFFLE or each.number in _DECODERS for each in used):
        # A checksum adds four bytes, and compression little to what does not compress.
        limit = nbytes + 4 * len(used)
        for each in reversed(used):
            if each.number == SHUFFLE:
                content = _unshuffled(content, each, dtype.itemsize, out if each is used[0] else None)
            else:
                content = _DECODERS[each.number](content, limit, where)
    else:
        content = _by_library(content, used, chunks, dtype, where)
    if len(content) != nbytes:
        raise ChunkError(
            f"{where} decodes to {len(content)} bytes; expected {nbytes}.",
            found=len(content),
            expected=nbytes,
            next_step=_DAMAGED,
        )
    return content


def _inflated(data: bytes | memoryview, limit: int, where: str) -> bytes:
    decompressor = zlib_ng.decompressobj()
    try:
        inflated: bytes = decompressor.decompress(data, limit + 1)
    except zlib_ng.error as error:  # type: ignore[misc]  # its stub has an instance
        raise ChunkError(f"{where} cannot be decompressed: {error}.", next_step=_DAMAGED) from error
    if len(inflated) > limit or not decompressor.eof:
        raise ChunkError(
            f"{where} does not expand to {limit} bytes or less, or is truncated.",
            expected=limit,
            next_step=_DAMAGED,
        )
    return inflated


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


def _verified(data: bytes | memoryview, _limit: int, where: str) -> memoryview:
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


_DECODERS: Final[Mapping[int, Callable[[bytes | memoryview, int, str], bytes | memoryview]]] = {
    GZIP: _inflated,
    FLETCHER32: _verified,
}


def _by_library(
    data: bytes | memoryview,
    used: Sequence[Filter],
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    where: str,
) -> memoryview:
    """Return a chunk that the HDF5 library has decoded, in a file in memory with this chunk only."""
    import h5py

    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunks)
    for each in used:
        _check_available(each, where)
        _add(plist, each)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(block_size=2**16, backing_store=False)
    name = f"nwbzarr-{threading.get_ident()}".encode()
    out: NDArray[Any] = np.empty(chunks, dtype)
    try:
        file = h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fapl=access)
        try:
            dataset = h5py.h5d.create(
                file, b"d", h5py.h5t.py_create(dtype), h5py.h5s.create_simple(chunks), plist
            )
            dataset.write_direct_chunk((0,) * len(chunks), bytes(data), 0)
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
        finally:
            file.close()
    except (OSError, RuntimeError, ValueError) as error:
        raise ChunkError(f"{where} cannot be decoded by HDF5: {error}.", next_step=_DAMAGED) from error
    return memoryview(out.reshape(-1).view(np.uint8))


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


def _add(plist: Any, each: Filter) -> None:
    """Add a filter with the parameters that a user had passed; HDF5 computes the others again.

    With those that it had computed, bitshuffle writes outside of its memory.
    """
    import h5py

    parameters = each.parameters
    match each.number:
        case 1:
            plist.set_deflate(min(parameters[0], 9) if parameters else 1)
        case 2:
            plist.set_shuffle()
        case 3:
            plist.set_fletcher32()
        case 4:
            plist.set_szip(parameters[0] & 0x24, parameters[1])
        case 6:
            plist.set_scaleoffset(parameters[0], parameters[1])
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
