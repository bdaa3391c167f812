"""How far a download is, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from intake_nwbzarr.prepare.chunks import ChunkCounts
from intake_nwbzarr.transport.log import readable_size


@dataclass(frozen=True)
class Progress:
    """How far a download is.

    Parameters
    ----------
    doing
        ``"fetching"`` or ``"verifying"``.
    objects, of_objects
        Done, and in all; those that turn out not to exist count as done.
    bytes, of_bytes
        Written, and in all, where that is known.
    """

    doing: str
    objects: int
    of_objects: int
    bytes: int
    of_bytes: int | None


@dataclass(frozen=True)
class Download:
    """What a download did.

    Parameters
    ----------
    location
        Of the session, without secrets.
    folder
        Where it is now.
    objects, bytes
        What the folder holds of it.
    fetched
        How many of the objects were fetched this time; the others had been before.
    removed
        Objects of an earlier download that the session does not have any more.
    listed
        Whether the objects were found by listing the session; else by its consolidated metadata.
    chunks
        How many chunks its arrays may have, and how many of them the folder holds; None where its metadata
        cannot be read.
    """

    location: str
    folder: Path
    objects: int
    bytes: int
    fetched: int
    removed: int
    listed: bool
    chunks: ChunkCounts | None = None

    def __str__(self) -> str:
        kept = self.objects - self.fetched
        news = [f"{self.fetched:,} fetched"] + ([f"{kept:,} were there already"] if kept else [])
        news += [f"{self.removed:,} removed"] if self.removed else []
        return (
            f"{self.location}: {self.objects:,} objects, {readable_size(self.bytes)}, verified, in "
            f"{self.folder} ({', '.join(news)})." + (f"\nChunks: {self.chunks}" if self.chunks else "")
        )


class Reporter:
    """Adds up and tells; used on the package's event loop only."""

    def __init__(
        self, doing: str, objects: int, size: int | None, tell: Callable[[Progress], None] | None
    ) -> None:
        self._doing, self._of_objects, self._of_bytes, self._tell = doing, objects, size, tell
        self._objects = self._bytes = 0

    def received(self, size: int) -> None:
        """Bytes were written, or taken back where the number is negative."""
        self._bytes += size

    def finished(self) -> None:
        """An object is done."""
        self._objects += 1
        self.show()

    def show(self) -> None:
        """Tell how far it is."""
        if self._tell is not None:
            self._tell(Progress(self._doing, self._objects, self._of_objects, self._bytes, self._of_bytes))
