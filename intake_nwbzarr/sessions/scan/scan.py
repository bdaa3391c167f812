"""Scan sessions into tables: only what has changed, resumable, with a report."""

from __future__ import annotations

import hashlib
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Any, Final

from intake_nwbzarr.arguments import invalid_argument, takes_storage_options
from intake_nwbzarr.errors import LocationNotFoundError, NWBZarrError, NWBZarrWarning, OptionError, TableError
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.scan.contents import Row
from intake_nwbzarr.sessions.scan.find import Findings, as_folder, find_sessions, located
from intake_nwbzarr.sessions.scan.harvest import FoundSession, allowed_requests, failed, harvest, requests_of
from intake_nwbzarr.sessions.scan.part_rows import Before, PartRows, ScanOptions
from intake_nwbzarr.sessions.scan.scan_report import ScanProgress, ScanReport
from intake_nwbzarr.sessions.tables.tables import Tables
from intake_nwbzarr.transport.answers import Unchanged
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import track_requests
from intake_nwbzarr.untrusted_input import LARGEST_DOCUMENT

# Sessions in the queue for each thread.
_AHEAD: Final = 4


@takes_storage_options
def scan(
    *prefixes: str | os.PathLike[str],
    output: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    storage: str | None = None,
    threads: int = 16,
    requests: int = 10,
    snapshots: bool = False,
    check: bool = False,
    progress: Callable[[ScanProgress], None] | None = None,
) -> ScanReport:
    """Scan sessions into two tables that can be searched: of sessions, and of their neurodata objects.

    Stores are found by listing folders, never their chunks. A scan to tables that exist reads only sessions
    that are new, have changed, or failed before, and removes those that no longer exist; sessions of other
    prefixes stay. The tables are written about every 30 seconds, so that a scan that was stopped resumes from
    there. A session that cannot be read is a row with its error.

    Parameters
    ----------
    *prefixes
        Local folders, ``s3://`` prefixes, public ``https`` URLs of S3, single sessions, or paths of ``.txt``
        files with one location per line (other ``https`` servers cannot be listed).
    output
        ``NAME.parquet``, local or on S3, for one pair of files (the objects in ``NAME.objects.parquet``);
        otherwise the name of a folder, with a pair of files for each prefix. The name of a new folder
        cannot end in the extension of a data file, such as ``.csv``.
    storage_options
        Credentials and other options, for all prefixes. They are not written.
    output_options
        Those for an `output` on S3. Default: the `storage_options`.
    storage
        Name of the options, which is stored in the column `storage`; whoever opens the tables passes their
        own options under that name.
    threads
        Sessions that are scanned concurrently.
    requests
        Most requests that a session on a server takes, including its share of the listing. Columns that
        would take more are null, and named in the column `not_read`. The schemas of extensions, and sessions
        without consolidated metadata, take more. Local sessions have no limit.
    snapshots
        Whether to store a snapshot of each session, from which it opens without reading its metadata. Takes
        the requests of opening each session, and more.
    check
        Whether to compare consolidated metadata with the stored ones, for the column `stale`. Takes a request
        for each group and array of each session, also of unchanged ones.
    progress
        Function that is called with a `ScanProgress`.

    Returns
    -------
    ScanReport
        Counts, and the sessions that failed.

    Raises
    ------
    OptionError
        When an argument is not valid, a URL has secrets in it, or a prefix is inside another one.
    TableError
        When `output` is another file, or tables of a newer release.
    LimitError
        When a prefix has more than a million folders or sessions.
    AccessError, TransportError
        When the tables cannot be written; existing tables are left unchanged.

    Examples
    --------
    >>> report = scan("s3://lab/sessions", output="sessions.parquet")  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP
    """
    options = ScanOptions(threads, requests, snapshots, check, progress)
    tables = output_tables(output, storage_options, output_options, storage)
    if not prefixes:
        raise OptionError("scan() needs at least one prefix.", found=0, next_step="Pass a folder or URL.")
    places = [located(prefix, storage_options) for prefix in prefixes]
    _check_apart(places, tables)
    report = ScanReport(str(tables.place))
    local: list[Path] = []
    has_remote = False
    for prefix, place in zip(prefixes, places, strict=True):
        began = time.monotonic()

        def found(count: int, source: str = place.url) -> None:
            if progress is not None:
                progress(ScanProgress(source, count))

        source, findings = find_sessions(prefix, storage_options, storage, found)
        # What listing took for each session.
        listing = ceil(findings.requests / max(len(findings.sessions), 1))
        for_sessions = replace(options, requests=max(requests - listing, 1))
        done = scan_part(tables, part_name(source), source, findings, for_sessions)
        needed = done.requests_for_all and done.requests_for_all + listing
        report += replace(done, requests_for_all=needed, seconds=time.monotonic() - began)
        outside = _local_prefix(tables.place, place, findings.sessions)
        local += [outside] if outside is not None else []
        has_remote |= any(each.location.path is None for each in findings.sessions)
    return replace(report, opened_with=how_to_open(tables.place, local, storage if has_remote else None))


def _local_prefix(tables: Location, place: Location, found: Sequence[FoundSession]) -> Path | None:
    """Return the local folder that opening the tables needs as a `prefix`, None if it needs none."""
    folder = tables.path
    if folder is not None and folder.suffix == ".parquet":
        folder = folder.parent
    if place.path is None:
        return None
    if place.path.is_file() and place.path.suffix == ".txt":
        above = [each.location.path.parent for each in found if each.location.path is not None]
        if not above:
            return None
        prefix = Path(os.path.commonpath(above))
    else:
        prefix = place.path
    inside = folder is not None and prefix.resolve().is_relative_to(folder.resolve())
    return None if inside else prefix


def how_to_open(tables: Location, prefixes: Sequence[Path], storage: str | None) -> str:
    """Return the call that opens tables, with the storage options that it needs.

    Parameters
    ----------
    tables
        Their location.
    prefixes
        Local folders of sessions outside the tables' own.
    storage
        Name of the options with which sessions on servers are opened, None for none.
    """
    entries = [] if storage is None else [f"{storage!r}: {{...}}"]
    if prefixes:
        paths = list(dict.fromkeys(map(str, prefixes)))
        given = paths[0] if len(paths) == 1 else paths
        entries.append(f"{'local' if storage != 'local' else 'files'!r}: {{'prefix': {given!r}}}")
    arguments = [repr(str(tables.path or tables.url))]
    arguments += [f"storage_options={{{', '.join(entries)}}}"] if entries else []
    arguments += ["table_options={...}"] if tables.public or tables.secrets is not None else []
    return f"intake.open_nwbzarr_sessions({', '.join(arguments)})"


def _check_apart(places: list[Location], tables: Tables) -> None:
    """Refuse prefixes inside one another, whose sessions would be in the tables twice."""
    # In a single file, a session is in one row by whatever prefix it is found.
    parts = _sources(tables) if tables.is_folder else []
    for number, place in enumerate(places):
        others = [other.url for other in places[:number] + places[number + 1 :]]
        others += [source for source in parts if source != place.url]
        for other in others:
            inner, outer = sorted((as_folder(place.url), as_folder(other)), key=len, reverse=True)
            if inner.startswith(outer):
                raise OptionError(
                    f"{inner.rstrip('/')} is inside {outer.rstrip('/')}, or equal: its sessions would be in "
                    "the tables twice.",
                    location=place,
                    found=inner.rstrip("/"),
                    next_step=f"Delete the part {part_name(other)}, or scan to other tables."
                    if other in parts
                    else "Pass only one of the two.",
                )


def _sources(tables: Tables) -> list[str]:
    try:
        return [part.source for part in tables.opened().parts]
    except (LocationNotFoundError, TableError):
        return []


def output_tables(
    output: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    output_options: Mapping[str, Any] | None,
    storage: str | None,
) -> Tables:
    """Return the tables at an output, after a check of the arguments that all scans have for them."""
    for name, given in (("storage_options", storage_options), ("output_options", output_options)):
        if not isinstance(given, Mapping | None):
            # Only the type is shown: a value may be a secret.
            raise OptionError(
                f"{name} must be a dictionary, such as {{'anon': True}}, not an object of type "
                f"{type(given).__name__}.",
                found=type(given).__name__,
                expected="a dictionary or None",
            )
    if not isinstance(storage, str | None):
        raise invalid_argument("storage", storage, "the name of an entry of storage_options, or None")
    place = located(output, None)
    if place.url.endswith(".objects.parquet"):
        raise OptionError(
            f"{place} is the name of a table of objects, which is written beside that of sessions.",
            location=place,
            found=".objects.parquet",
            next_step=f"Pass {place.url.removesuffix('.objects.parquet')}.parquet.",
        )
    _check_extension(place)
    if place.path is not None:
        _check_files(place.path, is_folder=not place.url.endswith(".parquet"))
    if place.scheme in {"file", "s3"}:
        return Tables(located(output, storage_options if output_options is None else output_options))
    raise OptionError(
        f"Tables cannot be written to {place}.",
        location=place,
        found=place.scheme,
        expected="a local path or an s3:// URL",
    )


# Extensions of data files. Whoever passes an output with one of them most likely wants a file, not a folder.
_OTHER_FILES: Final = frozenset(
    {
        ".arrow", ".avro", ".csv", ".db", ".duckdb", ".feather", ".gz", ".h5", ".hdf5", ".ipc", ".json",
        ".jsonl", ".nwb", ".orc", ".parq", ".parquet", ".pickle", ".pkl", ".pq", ".sqlite", ".tsv", ".txt",
        ".xls", ".xlsx", ".yaml", ".yml", ".zarr", ".zip",
    }
)  # fmt: skip


def _check_extension(place: Location) -> None:
    """Refuse an output with the extension of another format, unless it is a folder that exists."""
    extension = PurePosixPath(place.url).suffix
    if place.url.endswith(".parquet") or extension.lower() not in _OTHER_FILES:
        return
    if place.path is not None and place.path.is_dir():
        return
    where = str(place.path or place)
    stem = where.removesuffix(extension)
    raise OptionError(
        f"Tables cannot be written to {where}: they are Parquet files (.parquet), not {extension}.",
        location=place,
        found=extension,
        expected="NAME.parquet for a pair of files; otherwise a folder",
        next_step=f"Pass {stem}.parquet, or the name of a folder, such as {stem}.",
    )


def _check_files(path: Path, *, is_folder: bool) -> None:
    """Refuse an output that is something else, or in something else than a folder."""
    above = next(each for each in path.parents if each.exists())
    if not above.is_dir():
        found = f"{above} is not a folder"
    elif path.exists() and path.is_dir() != is_folder:
        found = f"it is {'a folder' if path.is_dir() else 'not a folder'}"
    elif path.exists() and not is_folder and not path.is_file():
        found = "it is not a regular file"
    else:
        return
    raise OptionError(
        f"Tables cannot be written to {path}: {found}.",
        location=path,
        found=found,
        expected="NAME.parquet for a pair of files; otherwise a folder",
    )


def part_name(source: str) -> str:
    """Return the file name of the part of a source: readable, and different for different sources."""
    words = re.findall(r"[A-Za-z0-9]+", source.partition("://")[2] or source)
    slug = "-".join(words)[-60:].strip("-") or "sessions"
    return f"{slug}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def scan_part(tables: Tables, name: str, source: str, findings: Findings, options: ScanOptions) -> ScanReport:
    """Scan the sessions of one source into a part of the tables; see `scan`.

    Rows of sessions that have not changed are kept, with columns that this release does not know, and so are
    all rows of other sources in the same file. Rows of sessions of this source that were not found are
    removed at the end, unless they are below a folder that could not be listed.
    """
    with PartRows.opened(tables, name, source) as part:
        return _scanned(part, findings, options)


def _scanned(part: PartRows, findings: Findings, options: ScanOptions) -> ScanReport:
    began = time.monotonic()
    unique: dict[str, FoundSession] = {}
    for each in findings.sessions:
        unique.setdefault(each.location.url, each)
    unlisted = {each.location.url: each for each in findings.failures if each.location.url not in unique}
    for each in unlisted.values():
        if each.error is not None:
            part.add(failed(each, each.error), ())
    report = ScanReport(
        str(part.tables.place),
        unlisted=len(unlisted),
        duplicates=len(findings.sessions) - len(unique),
        requests=findings.requests,
    )
    part.expect(unique, [each.url for each in findings.unlisted])
    # Warnings of single sessions are in their rows; there may be thousands of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NWBZarrWarning)
        try:
            for done, outcome in enumerate(_outcomes(unique.values(), part, options), 1):
                report += _taken(outcome, part, options)
                if options.progress is not None:
                    options.progress(ScanProgress(part.source, done, len(unique), len(part.failures)))
                part.checkpoint()
        except KeyboardInterrupt:
            part.write()
            raise
    gone = part.finish()
    failures = tuple(sorted(part.failures, key=lambda each: each.location))
    return replace(report, failures=failures, gone=gone, seconds=time.monotonic() - began)


@dataclass(frozen=True)
class _Outcome:
    """The new rows of a session, None if it has not changed, and the requests that it took."""

    found: FoundSession
    rows: tuple[Row, Sequence[Row]] | None
    requests: int


def _outcomes(found: Iterable[FoundSession], part: PartRows, options: ScanOptions) -> Iterator[_Outcome]:
    """Scan sessions on threads, and yield their outcomes as they complete."""
    waiting: set[Future[_Outcome]] = set()
    pool = ThreadPoolExecutor(options.threads, thread_name_prefix="nwbzarr-scan")
    try:
        for each in found:
            before = part.before.get(each.location.url)
            if before is not None and each.etag is not None and before.is_current(each, options):
                yield _Outcome(each, None, 0)
                continue
            waiting.add(pool.submit(_scan_one, each, before, options))
            if len(waiting) >= options.threads * _AHEAD:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _scan_one(found: FoundSession, before: Before | None, options: ScanOptions) -> _Outcome:
    asked = 0
    is_readable = found.etag is None and found.error is None
    if before is not None and is_readable and before.is_complete(found, options):
        with track_requests() as log:
            unchanged = _is_unchanged(found, before)
        asked = requests_of(log, found.location)
        if unchanged:
            return _Outcome(found, None, asked)
    row, objects = harvest(found, requests=options.requests, snapshots=options.snapshots, check=options.check)
    return _Outcome(found, (row, objects), asked + row["requests"])


def _is_unchanged(found: FoundSession, before: Before) -> bool:
    """Return whether a session that was not listed still has the same metadata document."""
    if before.etag is None or before.etag.startswith("W/"):
        return False
    # An HDF5 file, which has no Zarr format, is presented as a Zarr 3 store.
    is_hdf5 = before.zarr_format is None
    document = ".zmetadata" if before.zarr_format == 2 else "zarr.json"
    try:
        transport = open_transport((found.location.as_hdf5 if is_hdf5 else found.location).uncached)
        answer = run(transport.get_unless(document, before.etag, limit=LARGEST_DOCUMENT))
    except NWBZarrError:
        # Scanning it meets the same error, which becomes its row.
        return False
    return isinstance(answer, Unchanged)


def _taken(outcome: _Outcome, part: PartRows, options: ScanOptions) -> ScanReport:
    """Give the part the rows of a session, and return what the session adds to the report."""
    url = outcome.found.location.url
    report = ScanReport(str(part.tables.place), requests=outcome.requests)
    if outcome.rows is None:
        part.keep(outcome.found)
        return replace(report, unchanged=1, stale=(url,) if part.before[url].stale else ())
    row, objects = outcome.rows
    if outcome.found.guessed and row.get("error_type") == "NotNWBError":
        part.gone.update({url} & part.before.keys())
        return replace(report, hdf5=1) if outcome.found.location.is_hdf5 else replace(report, not_nwb=1)
    part.add(row, objects)
    if url == part.source and row.get("error_type") == "LocationNotFoundError":
        # A prefix where nothing is stored is not counted as a session.
        return replace(report, unlisted=1)
    needed = row.get("requests_for_all") or 0
    # What is damaged or too large is not read with more requests either.
    is_limited = needed > allowed_requests(outcome.found, options.requests)
    return replace(
        report,
        scanned=1,
        incomplete=int(bool(row.get("not_read"))),
        not_read=tuple(row.get("not_read") or ()),
        requests_for_all=needed if is_limited else 0,
        unconsolidated=int(row.get("consolidated") is False),
        stale=(url,) if row.get("stale") else (),
    )
