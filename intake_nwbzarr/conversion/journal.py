"""The journal of a conversion in its destination, with which an interrupted one is resumed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final

import msgspec

from intake_nwbzarr.errors import ConversionError, ObjectChangedError
from intake_nwbzarr.hierarchy.documents import JOURNAL
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather
from intake_nwbzarr.untrusted_input import MIB

FORMAT: Final = "intake-nwbzarr convert"
VERSION: Final = 1
LARGEST: Final = 256 * MIB
EVERY: Final = 1.0
"""Seconds between two writings of the journal, and more for a large one."""

# What a conversion writes, and may therefore remove again.
_OWN: Final = re.compile(r"(?:.*/)?(?:zarr\.json|c(?:/\d+)*|\.[^/]+\.partial)")


class _Document(msgspec.Struct, frozen=True):
    format: str
    version: int
    # Without secrets.
    source: str
    # Digests of the source as it is stored, and of what is to be written.
    state: str
    plan: str
    # Keys of objects that are written and checked; not of a complete conversion.
    done: list[str]
    complete: bool = False


@dataclass
class Journal:
    """The objects of a destination that are complete."""

    transport: Transport
    source: str
    state: str
    plan: str
    done: set[str] = field(default_factory=set)
    _etag: str | None = None
    _written: float = 0.0
    _unwritten: int = 0
    _writing: asyncio.Future[None] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def begin(self) -> bool:
        """Take over what an earlier run of the same conversion has written, or remove that of another.

        Returns whether that run has completed it.
        """
        # One level tells: other folders, such as a disk, may have a million files.
        top = await self.transport.list_folder("")
        if not (top.names or top.folders):
            await self._write()
            return False
        fetched = await self.transport.get(JOURNAL, limit=LARGEST) if JOURNAL in top.names else None
        if fetched is None:
            raise self._occupied(not {"zarr.json", ".zgroup"}.isdisjoint(top.names))
        self._etag = fetched.etag
        try:
            known = msgspec.json.decode(fetched.data, type=_Document)
            if (known.format, known.version) != (FORMAT, VERSION):
                raise ValueError("another format, or another version of it")
        except ValueError as error:
            raise ConversionError(
                f"{self.transport.location}/{JOURNAL}, the journal of a conversion, is damaged ({error}).",
                location=self.transport.location,
                path=JOURNAL,
                found=str(error),
                next_step="Delete the destination, or pass another one.",
            ) from error
        is_same = (known.source, known.state, known.plan) == (self.source, self.state, self.plan)
        if known.complete:
            if is_same and "zarr.json" in top.names:
                return True
            raise self._occupied(is_store=True)
        if known.source != self.source:
            raise ConversionError(
                f"{self.transport.location} is an unfinished conversion of {known.source}, not of "
                f"{self.source}.",
                location=self.transport.location,
                found=known.source,
                expected=self.source,
                next_step="Pass another destination, or delete it.",
            )
        keys = {entry.key for entry in await self.transport.list()}
        if is_same:
            self.done = keys.intersection(known.done)
        elif "zarr.json" in keys:
            # Complete, but its journal does not say so yet.
            raise self._occupied(is_store=True)
        # Written again, what was not finished is replaced; chunks that the source no longer has are not.
        await self._remove(key for key in keys - self.done if _OWN.fullmatch(key))
        await self._write()
        return False

    def _occupied(self, is_store: bool) -> ConversionError:
        what = "a Zarr store" if is_store else "other files"
        return ConversionError(
            f"The destination {self.transport.location} already has {what}.",
            location=self.transport.location,
            found=what,
            expected="nothing, or an unfinished conversion of the same session",
            next_step="Nothing in it was changed. Pass another destination, or delete it first.",
        )

    async def _remove(self, keys: Iterable[str]) -> None:
        await gather([partial(self.transport.delete, key) for key in keys])

    async def add(self, key: str) -> None:
        """Note an object that is written and checked; the journal is written now and then."""
        self.done.add(key)
        self._unwritten += 1
        pause = EVERY * (1 + 80 * len(self.done) / MIB)
        if not self._lock.locked() and monotonic() - self._written > pause:
            await self.flush()

    async def flush(self) -> None:
        """Write the journal, if anything was added."""
        async with self._lock:
            if self._writing is not None:
                # One that was cancelled goes on, and the next one needs its ETag.
                await asyncio.gather(self._writing, return_exceptions=True)
            if self._unwritten:
                self._writing = asyncio.ensure_future(self._write())
                await asyncio.shield(self._writing)

    async def end(self) -> None:
        """Note that the conversion is complete."""
        async with self._lock:
            await self._write(complete=True)

    async def _write(self, *, complete: bool = False) -> None:
        done = [] if complete else sorted(self.done)
        document = _Document(FORMAT, VERSION, self.source, self.state, self.plan, done, complete)
        self._unwritten = 0
        try:
            self._etag = await self.transport.put(
                JOURNAL, msgspec.json.encode(document), if_match=self._etag, if_none_match=self._etag is None
            )
        except ObjectChangedError as error:
            raise ConversionError(
                f"Another process is converting to {self.transport.location}.",
                location=self.transport.location,
                path=JOURNAL,
                next_step="Wait for it, or pass another destination.",
                transient=True,
            ) from error
        self._written = monotonic()
