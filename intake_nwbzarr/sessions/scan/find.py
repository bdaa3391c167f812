"""Find NWB sessions: in a list of locations, or by listing a folder or S3 prefix down to stores and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from intake_nwbzarr.errors import (
    AccessError,
    LimitError,
    ListingError,
    LocationError,
    LocationNotFoundError,
    NWBZarrError,
    OptionError,
)
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.sessions.scan.harvest import FoundSession
from intake_nwbzarr.transport.answers import HDF5_NAMES, Folder
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import track_requests
from intake_nwbzarr.untrusted_input import DEEPEST_SCAN, LARGEST_LIST_OF_LOCATIONS, MOST_SCANNED

STORE: Final = ".nwb.zarr"
"""Ending of the name of an NWB Zarr store; others are recognised by their documents."""

ZIP: Final = f"{STORE}.zip"
NWB: Final = ".nwb"
"""Ending of the name of an NWB file in HDF5; files with other endings of HDF5 may hold anything."""
LIST: Final = ".txt"

_CONSOLIDATED: Final[Sequence[Literal["zarr.json", ".zmetadata"]]] = ("zarr.json", ".zmetadata")
_GROUP: Final[Literal[".zgroup"]] = ".zgroup"
# Folders that are listed before progress is shown.
_BATCH: Final = 500
# In a URL, apart from letters and digits, as in canonical URLs; % itself is encoded.
_UNQUOTED: Final = "/:@!$&'()*+,;=~-._"


@dataclass(frozen=True)
class Findings:
    """The sessions of a prefix, and folders that could not be listed."""

    sessions: Sequence[FoundSession]
    # Folders that could not be listed, or have names that are not valid, with the errors.
    failures: Sequence[FoundSession] = ()
    # Folders below which sessions may exist that were not found.
    unlisted: Sequence[Location] = ()
    # Requests for listing.
    requests: int = 0


def find_sessions(
    prefix: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    storage: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[str, Findings]:
    """Return a prefix in canonical form, and the sessions below it.

    Parameters
    ----------
    prefix
        A local folder, an ``s3://`` prefix, a public ``https`` URL of S3, a session, or the path of a
        ``.txt`` file with one location per line; lines that begin with ``#`` are comments.
    storage_options
        Credentials and other options for everything that is found.
    storage
        Name of these options, for the column `storage`.
    progress
        Called with the number of sessions found so far.

    Raises
    ------
    OptionError
        When the prefix is a URL with secrets in it.
    LocationError, LocationNotFoundError
        When the prefix or an option is not valid, or a list of locations does not exist.
    LimitError
        When there are more folders or sessions than allowed.
    """
    where = located(prefix, storage_options)
    is_folder = where.path is not None and where.path.is_dir()
    if where.path is not None and where.url.endswith(LIST) and not is_folder:
        return where.url, _of_list(where.path, storage_options, storage)
    if where.url.endswith(".zip") and not is_folder:
        return where.url, Findings([FoundSession(where, storage)])
    with track_requests() as log:
        findings = _Search(where, storage, progress or _no_progress).findings()
    listed = sum(counts.requests for (url, _), counts in log.counts.items() if url == where.url)
    return where.url, replace(findings, requests=listed)


def as_folder(url: str) -> str:
    """Return a URL that ends in a slash: the beginning of the URLs of everything in the folder."""
    return url if url.endswith("/") else f"{url}/"


def located(place: str | os.PathLike[str], storage_options: Mapping[str, Any] | None) -> Location:
    """Return a location for a table, which never has secrets in its URL."""
    bare = locate(place)
    if bare.secrets is not None or bare.store is not None:
        raise OptionError(
            f"{bare} has a password, a signature or another secret in its URL, which tables never have.",
            location=bare,
            next_step="Pass the URL without it, and credentials as storage_options or a profile.",
        )
    # Options are those of a server; local folders among the prefixes have none.
    return bare if bare.path is not None or not storage_options else locate(bare.url, storage_options)


def _no_progress(_found: int) -> None:
    """Show nothing."""


@dataclass
class _Search:
    """A search below one prefix, level by level."""

    prefix: Location
    storage: str | None
    progress: Callable[[int], None]
    sessions: list[FoundSession] = field(default_factory=list)
    failures: list[FoundSession] = field(default_factory=list)
    unlisted: list[Location] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def findings(self) -> Findings:
        """List folders, all of a level concurrently, until only stores are left."""
        transport = open_transport(self.prefix)
        level = [""]
        listed = 0
        for _ in range(DEEPEST_SCAN):
            inner: list[str] = []
            for start in range(0, len(level), _BATCH):
                batch = level[start : start + _BATCH]
                found = run(gather([partial(_browse, transport, folder) for folder in batch]))
                for folder, outcome in zip(batch, found, strict=True):
                    inner += self._visit(folder, outcome)
                self.progress(len(self.sessions))
                listed += len(batch)
                self._check(max(listed + len(inner), len(self.sessions)))
            level = [folder for folder in inner if self._is_new(folder)]
            if not level:
                break
        # Deeper folders count as folders that could not be listed.
        for folder in level:
            self._fail(
                folder,
                LimitError(
                    f"{self._at(folder)} is more than {DEEPEST_SCAN} folders below {self.prefix}.",
                    location=self._at(folder),
                    expected=DEEPEST_SCAN,
                    next_step="Scan it as a prefix of its own.",
                ),
            )
        sessions = [replace(each, location=transport.settled(each.location)) for each in self.sessions]
        return Findings(sessions, self.failures, self.unlisted)

    def _visit(self, folder: str, outcome: _Outcome) -> list[str]:
        """Record what is in a folder; return the folders in it that are listed next."""
        if isinstance(outcome, NWBZarrError):
            self._cannot_list(folder, outcome)
            return []
        content, refused = outcome
        names = set(content.names)
        named = self._at(folder).url.endswith(STORE)
        if not folder and not (names or content.folders or refused):
            path = self.prefix.path
            if named or path is None or not path.is_dir():
                # It may be a file, or not exist: opening it shows which.
                self._add(folder, None)
            # A disk that is not mounted is an empty folder, too: no session counts as removed.
            self.unlisted.append(self.prefix)
            return []
        if ".zarray" in names:
            return []
        documents = [name for name in _CONSOLIDATED if name in names]
        if documents or _GROUP in names or named:
            # If there are both documents, which one is valid is found by reading them.
            alone = _GROUP if not documents and _GROUP in names else None
            only = documents[0] if len(documents) == 1 else alone
            etag = content.etags.get(only) if only else None
            self._add(folder, etag, document=only, guessed=not named)
            return []
        self.failures += [FoundSession(self._at(folder), self.storage, error=each) for each in refused[:1]]
        for name in content.names:
            key = f"{folder}/{name}" if folder else name
            if name.startswith("."):
                continue
            if name.endswith(ZIP):
                self._add(key, content.etags.get(name))
            elif name.lower().endswith(HDF5_NAMES):
                self._add(key, content.etags.get(name), guessed=not name.lower().endswith(NWB))
                self.sessions[-1] = replace(self.sessions[-1], location=self.sessions[-1].location.as_hdf5)
        return [f"{folder}/{name}" if folder else name for name in content.folders if name[0] != "."]

    def _add(self, path: str, etag: str | None, **details: Any) -> None:
        self.sessions.append(FoundSession(self._at(path), self.storage, etag, **details))

    def _cannot_list(self, folder: str, error: NWBZarrError) -> None:
        """Record a folder that cannot be listed; a prefix may still be a session that can be read."""
        is_web = isinstance(error, ListingError)
        if not folder and (is_web or (isinstance(error, AccessError) and self.prefix.url.endswith(STORE))):
            self._add(folder, None)
        else:
            self._fail(folder, error)

    def _fail(self, folder: str, error: NWBZarrError) -> None:
        self.failures.append(FoundSession(self._at(folder), self.storage, error=error))
        self.unlisted.append(self._at(folder))

    def _at(self, path: str) -> Location:
        if not path:
            return self.prefix
        name = quote(path, safe=_UNQUOTED) if self.prefix.scheme in {"http", "https"} else path
        return replace(self.prefix, url=f"{as_folder(self.prefix.url)}{name}")

    def _is_new(self, folder: str) -> bool:
        """Return whether a local folder is not a symbolic link to one that was listed before."""
        path = self._at(folder).path
        if path is None:
            return True
        real = os.path.realpath(path)
        is_new = real not in self.seen
        self.seen.add(real)
        return is_new

    def _check(self, count: int) -> None:
        if count > MOST_SCANNED:
            raise LimitError(
                f"{self.prefix} has more than {MOST_SCANNED:,} folders or sessions.",
                location=self.prefix,
                found=count,
                expected=MOST_SCANNED,
                next_step="Scan the prefixes in it, one at a time.",
            )


type _Outcome = tuple[Folder, Sequence[NWBZarrError]] | NWBZarrError


async def _browse(transport: Transport, folder: str) -> _Outcome:
    try:
        return await transport.browse(folder)
    except NWBZarrError as error:
        return error


def _of_list(path: Path, storage_options: Mapping[str, Any] | None, storage: str | None) -> Findings:
    sessions: list[FoundSession] = []
    invalid: list[FoundSession] = []
    for number, line in _lines(path):
        try:
            sessions.append(FoundSession(located(line, storage_options), storage))
        except (LocationError, OptionError, AccessError) as error:
            # A line that is not a location is not shown: it may have a password in it.
            place = Location(error.location or f"{locate(path).url}#line-{number}")
            invalid.append(FoundSession(place, storage, error=error))
    # The valid ones first: of two lines with the same location, the first is scanned.
    return Findings([*sessions, *invalid])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Return the lines of a list without comments and empty lines, with their numbers."""
    try:
        if path.stat().st_size > LARGEST_LIST_OF_LOCATIONS:
            raise LimitError(
                f"{path} is larger than a list of locations may be.",
                location=path,
                found=path.stat().st_size,
                expected=LARGEST_LIST_OF_LOCATIONS,
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise LocationNotFoundError(f"The list of locations {path} does not exist.", location=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise LocationError(
            f"The list of locations {path} cannot be read: {type(error).__name__}.",
            location=path,
            expected="a text file in UTF-8, with one location per line",
        ) from error
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return ((number, line) for number, line in lines if line and not line.startswith("#"))
