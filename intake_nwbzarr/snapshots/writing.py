"""Writing snapshot files: in one step, over nothing but another snapshot."""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from intake_nwbzarr.errors import AccessError, LimitError, OptionError, SnapshotError, TransportError
from intake_nwbzarr.snapshots.archive import (
    FORMAT,
    INDEX,
    LARGEST_SESSION,
    VERSION,
    Entry,
    Index,
    Snapshots,
    open_snapshots,
)
from intake_nwbzarr.snapshots.records import KeptSession, encode
from intake_nwbzarr.transport.log import readable_size


def write_snapshots(path: Path, sessions: Iterable[KeptSession], *, add: bool = False) -> Snapshots:
    """Write a snapshot file in one step: aside, then renamed.

    Parameters
    ----------
    path
        Of the file. One that is there is replaced, if it is a snapshot.
    sessions
        What it will hold.
    add
        Keep the other sessions that it holds already.

    Raises
    ------
    OptionError
        When there is something else at the path.
    LimitError
        When a session is larger than can be read again.
    AccessError, TransportError
        When it cannot be written; what was there is still there.
    """
    before = replaced(path)
    documents: dict[str, tuple[str, bytes]] = {}
    if add and before is not None:
        documents = {url: (entry.made, before.document(entry)) for url, entry in before.items()}
    documents |= {session.url: (session.made, encode(session)) for session in sessions}
    for url, (_, document) in documents.items():
        if len(document) > LARGEST_SESSION:
            raise LimitError(
                f"What opening {url} reads has {readable_size(len(document))}; a snapshot holds at most "
                f"{readable_size(LARGEST_SESSION)} of a session. Open it without one."
            )
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        try:
            _write(aside, documents)
            aside.replace(path)
        finally:
            with suppress(OSError):
                aside.unlink()
    except OSError as error:
        kind = AccessError if isinstance(error, PermissionError) else TransportError
        raise kind(f"The snapshot {path} cannot be written: {error.strerror or error}.") from error
    return open_snapshots(path)


def replaced(path: Path) -> Snapshots | None:
    """The snapshot that writing to a path would replace, None where there is nothing.

    Raises
    ------
    OptionError
        When there is anything else: only a snapshot is replaced.
    """
    # A name that is too long is none that exists.
    if not os.path.exists(path):  # noqa: PTH110
        return None
    try:
        return open_snapshots(path)
    except SnapshotError as error:
        raise OptionError(
            f"{path} is there already, and is no snapshot that could be replaced. {error}"
        ) from error


def _write(path: Path, documents: Mapping[str, tuple[str, bytes]]) -> None:
    entries: dict[str, Entry] = {}
    with path.open("xb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, (url, (made, document)) in enumerate(sorted(documents.items())):
                member = f"sessions/{number}.msgpack"
                archive.writestr(member, document)
                entries[url] = Entry(member, hashlib.sha256(document).hexdigest(), made)
            index = msgspec.json.encode(Index(FORMAT, VERSION, entries))
            archive.writestr(INDEX, msgspec.json.format(index, indent=1))
        file.flush()
        os.fsync(file.fileno())
