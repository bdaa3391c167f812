"""One object: fetched, in pieces where it is large, and written aside until it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from intake_nwbzarr.errors import ObjectChangedError, ResponseError
from intake_nwbzarr.prepare.download.inventory import Wanted
from intake_nwbzarr.prepare.download.record import Entry
from intake_nwbzarr.transport.answers import Bytes
from intake_nwbzarr.transport.contract import Fetched
from intake_nwbzarr.transport.requests import Transport

PIECE: Final = 16 * 2**20
"""Bytes of an object that are fetched at once."""

RESTARTS: Final = 3
"""How often an object that changes while it is fetched is begun anew."""

_BLOCK = 2**20


async def fetch_object(
    transport: Transport, wanted: Wanted, folder: Path, received: Callable[[int], None]
) -> Entry | None:
    """Fetch an object into a folder.

    Parameters
    ----------
    received
        Told of bytes as they are written; of negative numbers where an object is begun anew.

    Returns
    -------
    Entry or None
        None when there is no such object.

    Raises
    ------
    ObjectChangedError
        When it changes again and again.
    """
    for restart in range(RESTARTS + 1):
        path = folder / wanted.key
        aside = path.with_name(f".{secrets.token_hex(6)}.partial")
        writing = _Writing(aside)
        try:
            entry = await _fetch(transport, wanted, writing, received)
            if entry is not None:
                await asyncio.to_thread(aside.replace, path)
            return entry
        except ObjectChangedError:
            received(-writing.size)
            if restart == RESTARTS:
                raise
        finally:
            aside.unlink(missing_ok=True)
    return None


async def _fetch(
    transport: Transport, wanted: Wanted, writing: _Writing, received: Callable[[int], None]
) -> Entry | None:
    first = await _first_piece(transport, wanted)
    if first is None:
        return None
    await asyncio.to_thread(writing.write, first.data)
    received(len(first.data))
    size = len(first.data) if first.size is None else first.size
    while writing.size < size:
        stop = min(writing.size + PIECE, size)
        piece = await transport.get(wanted.key, start=writing.size, stop=stop, etag=first.etag)
        if piece is None:
            raise ObjectChangedError(
                f"{transport.location}/{wanted.key} was removed while it was being read; run this again."
            )
        await asyncio.to_thread(writing.write, piece.data)
        received(len(piece.data))
    return Entry(wanted.key, writing.size, first.etag, writing.digest.hexdigest())


async def _first_piece(transport: Transport, wanted: Wanted) -> Fetched | None:
    if wanted.size is not None and wanted.size > PIECE:
        try:
            return await transport.get(wanted.key, start=0, stop=PIECE)
        except ResponseError:
            # It may be shorter by now, or the server gives no parts.
            pass
    whole = await transport.get(wanted.key)
    return None if whole is None else Fetched(whole.data, whole.etag, len(whole.data))


class _Writing:
    """A file that is being written, open only while a piece is: whoever waits for that may be cancelled."""

    def __init__(self, aside: Path) -> None:
        self._aside = aside
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: Bytes) -> None:
        self._aside.parent.mkdir(parents=True, exist_ok=True)
        with self._aside.open("ab" if self.size else "xb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        self.digest.update(data)
        self.size += len(data)


def is_intact(folder: Path, entry: Entry) -> bool:
    """Whether a file has the size and the checksum that were noted when it was written."""
    path = folder / entry.key
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != entry.size:
            return False
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == entry.sha256
