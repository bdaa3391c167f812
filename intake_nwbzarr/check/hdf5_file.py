"""Read an HDF5 session with pynwb's NWBHDF5IO, to compare with it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from pynwb import NWBFile

from intake_nwbzarr.errors import LocationNotFoundError, MetadataError, NWBZarrError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.transport.answers import Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.hdf5 import FILE
from intake_nwbzarr.transport.loop import run

_BLOCK: Final = 4 * 2**20


@contextmanager
def read_by_pynwb(hierarchy: Hierarchy) -> Iterator[NWBFile]:
    """Yield the raw object of an HDF5 file as the HDF5 library and NWBHDF5IO read it, wherever it is."""
    import h5py
    from pynwb import NWBHDF5IO

    with ExitStack() as opened:
        try:
            raw = _RangedFile(hierarchy.transport, hierarchy.etag)
            file = opened.enter_context(h5py.File(io.BufferedReader(raw, _BLOCK), "r"))
            nwbfile = opened.enter_context(NWBHDF5IO(file=file, mode="r", load_namespaces=True)).read()
        except NWBZarrError:
            raise
        except Exception as error:
            found = str(error).partition("\n")[0]
            raise MetadataError(
                f"pynwb cannot read {hierarchy.location}: {type(error).__name__}: {found:.300}.",
                location=hierarchy.location,
                found=found,
            ) from error
        yield nwbfile


class _RangedFile(io.RawIOBase):
    """A file that is read by ranges, as the HDF5 library asks for them."""

    def __init__(self, transport: Transport, etag: str | None) -> None:
        self._transport, self._etag = transport, etag
        first = run(transport.fetch(FILE, Part(0, 1, lenient=True), 1))
        if first is None or first.size is None:
            raise LocationNotFoundError(
                f"{transport.location} no longer exists.", location=transport.location
            )
        self._size, self._position = first.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        stop = min(self._position + len(buffer), self._size)
        if stop <= self._position:
            return 0
        fetched = run(self._transport.get(FILE, start=self._position, stop=stop, etag=self._etag))
        data = b"" if fetched is None else fetched.data
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
