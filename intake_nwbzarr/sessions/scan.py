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

from intake_nwbzarr.arguments import check_bool, invalid_argument, takes_storage_options
from intake_nwbzarr.errors import LocationNotFoundError, NWBZarrError, NWBZarrWarning, OptionError, TableError
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.contents import Row
from intake_nwbzarr.sessions.find import Findings, as_folder, find_sessions, located
from intake_nwbzarr.sessions.harvest import FoundSession, allowed_requests, failed, harvest, requests_of
from intake_nwbzarr.sessions.opening import how_to_open, local_prefix
from intake_nwbzarr.sessions.part_rows import Before, PartRows, ScanFailure, ScanOptions
from intake_nwbzarr.sessions.tables import Tables
from intake_nwbzarr.transport.answers import Unchanged
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import track_requests
from intake_nwbzarr.untrusted_input import LARGEST_DOCUMENT

# Sessions that wait for a thread, for each thread.
_AHEAD: Final = 4


@dataclass(frozen=True)
class ScanProgress:
    """How far a scan is: first the sessions that were found, then those that were scanned."""

    # The prefix.
    source: str
    # Of `total` sessions; of an unknown number while they are found.
    sessions: int
    total: int | None = None
    failed: int = 0


@dataclass(frozen=True)
class ScanReport:
    """What a scan has found and done.

    Parameters
    ----------
    output
        The location of the tables.
    sessions
        Sessions that were found.
    scanned, unchanged
        How many of these were read, and how many were not, since they have not changed.
    failures
        Sessions and folders that could not be read, as they are in the table.
    unlisted
        How many failures are no sessions, but folders that do not exist or could not be listed. Failures of
        sessions are included in `scanned`.
    duplicates
        Assets and lines that were left out, since an earlier one has the same location.
    gone
        Sessions that were removed from the table, because they no longer exist.
    not_nwb, hdf5, other_assets
        Other Zarr stores, NWB files in HDF5, and assets of dandisets that are not Zarr, which are skipped.
    incomplete
        Scanned sessions with columns that would have taken more requests; see the column `not_read`.
    not_read
        These columns.
    requests_for_all
        The `requests` that would fill the columns of all of them; 0 if more requests would not fill them.
    unconsolidated
        Scanned sessions without consolidated metadata, which take a request per group and array.
    stale
        With `check`, sessions whose consolidated metadata differ from the stored ones.
    requests
        Requests that were sent to find and scan sessions.
    seconds
        How long it took.
    opened_with
        The call that opens the tables; in it, ``...`` stands for your own storage options.
    """

    output: str
    sessions: int = 0
    scanned: int = 0
    unchanged: int = 0
    failures: tuple[ScanFailure, ...] = ()
    unlisted: int = 0
    duplicates: int = 0
    gone: int = 0
    not_nwb: int = 0
    hdf5: int = 0
    other_assets: int = 0
    incomplete: int = 0
    not_read: tuple[str, ...] = ()
    requests_for_all: int = 0
    unconsolidated: int = 0
    stale: tuple[str, ...] = ()
    requests: int = 0
    seconds: float = 0.0
    opened_with: str = ""

    def __add__(self, other: ScanReport) -> ScanReport:
        """Return the report of two scans to the same tables."""
        added = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__
            if name not in {"output", "requests_for_all", "not_read", "opened_with"}
        }
        return ScanReport(
            self.output,
            requests_for_all=max(self.requests_for_all, other.requests_for_all),
            not_read=_joined(self.not_read, other.not_read),
            opened_with=self.opened_with or other.opened_with,
            **added,
        )

    def __str__(self) -> str:
        return self.summary("requests={}")

    def summary(self, argument: str) -> str:
        """Return the report as text; `argument` is how requests are set, such as ``--requests {}``."""
        failed = len(self.failures) - self.unlisted
        scanned = f"{self.scanned:,} scanned" + (f", of which {failed:,} failed" if failed else "")
        lines = [
            f"{self.output}: {_counted(self.sessions, 'session')} ({self.unchanged:,} unchanged, {scanned}), "
            f"{_counted(self.requests, 'request')}, {self.seconds:.1f} s"
        ]
        if self.gone:
            lines.append(f"Removed from the tables: {_counted(self.gone, 'session')} that no longer exist")
        if self.unlisted:
            lines.append(f"Not found, or not listed completely: {_counted(self.unlisted, 'folder')}")
        if self.duplicates:
            lines.append(f"Left out: {_counted(self.duplicates, 'session')} at the location of another one")
        skipped = [f"{_counted(self.not_nwb, 'Zarr store')} without NWB data"] if self.not_nwb else []
        skipped += [f"{_counted(self.hdf5, 'file')} in HDF5"] if self.hdf5 else []
        skipped += [f"{_counted(self.other_assets, 'asset')} other than Zarr"] if self.other_assets else []
        lines += [f"Skipped: {', '.join(skipped)}"] if skipped else []
        if self.unconsolidated:
            lines.append(
                f"Without consolidated metadata: {_counted(self.unconsolidated, 'session')}; nwbzarr "
                "consolidate writes them"
            )
        if self.incomplete:
            line = f"Not read for {_counted(self.incomplete, 'session')}: {', '.join(self.not_read)}"
            needed = argument.format(self.requests_for_all)
            lines.append(f"{line}; {needed} reads all" if self.requests_for_all else line)
        lines += [f"Open the tables with: {self.opened_with}"] if self.opened_with else []
        return "\n".join(lines)


def _joined(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
    prefixes stay. What was scanned is written about every 30 seconds, so that a scan that was stopped goes on
    from there. A session that cannot be read is a row with its error.

    Parameters
    ----------
    *prefixes
        Local folders, ``s3://`` prefixes, public ``https`` URLs of S3, single sessions, or paths of ``.txt``
        files with one location per line (other ``https`` servers cannot be listed).
    output
        ``NAME.parquet``, local or on S3, for one pair of files (the objects in ``NAME.objects.parquet``);
        otherwise the name of a folder, with a pair of files for each prefix. A new folder cannot have a name
        that ends like a file of data, such as ``.csv``.
    storage_options
        Credentials and other options, for all prefixes. They are not written.
    output_options
        Those for an `output` on S3. Default: the `storage_options`.
    storage
        Name of the options, which the column `storage` has; others open the sessions with their own options
        of that name.
    threads
        Sessions that are scanned concurrently.
    requests
        Requests that a session on a server may take, with its share of the listing. Columns that would take
        more are null, and named in the column `not_read`. The schemas of extensions, and sessions without
        consolidated metadata, take more. Local sessions have no limit.
    snapshots
        Whether to store a snapshot of each session, from which it opens without reading its metadata. Takes
        the requests of opening each session, and more.
    check
        Whether to compare consolidated metadata with the stored ones, for the column `stale`. Takes a request
        for each group and array of each session, also of unchanged ones.
    progress
        Called with a `ScanProgress` now and then.

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
        When the tables cannot be written; the tables from before are left as they are.

    Examples
    --------
    >>> report = scan("s3://lab/sessions", output="sessions.parquet")  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP
    """
    check_count("threads", threads)
    check_count("requests", requests)
    check_bool("snapshots", snapshots)
    check_bool("check", check)
    check_progress(progress)
    check_options(storage_options=storage_options, output_options=output_options)
    if not isinstance(storage, str | None):
        raise invalid_argument("storage", storage, "the name of an entry of storage_options, or None")
    if not prefixes:
        raise OptionError("scan() needs at least one prefix.", found=0, next_step="Pass a folder or URL.")
    places = [located(prefix, storage_options) for prefix in prefixes]
    options = storage_options if output_options is None else output_options
    tables = Tables(output_location(output, options))
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
        done = scan_part(
            tables,
            part_name(source),
            source,
            findings.sessions,
            threads=threads,
            requests=requests - listing,
            snapshots=snapshots,
            check=check,
            progress=progress,
            findings=findings,
        )
        needed = done.requests_for_all and done.requests_for_all + listing
        report += replace(done, requests_for_all=needed, seconds=time.monotonic() - began)
        outside = local_prefix(tables.place, place, findings.sessions)
        local += [outside] if outside is not None else []
        has_remote |= any(each.location.path is None for each in findings.sessions)
    call = how_to_open(tables.place, local, storage if has_remote else None, options=bool(options))
    return replace(report, opened_with=call)


def check_count(name: str, given: object) -> None:
    """Refuse an argument that is not a count of at least one."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise invalid_argument(name, given, "a whole number of at least 1")


def check_options(**given: object) -> None:
    """Refuse options that are no dictionary, of which only the type is shown."""
    for name, options in given.items():
        if not isinstance(options, Mapping | None):
            raise OptionError(
                f"{name} must be a dictionary, such as {{'anon': True}}, not an object of type "
                f"{type(options).__name__}.",
                found=type(options).__name__,
                expected="a dictionary or None",
            )


def check_progress(given: object) -> None:
    """Refuse a callback that cannot be called."""
    if given is not None and not callable(given):
        raise invalid_argument("progress", given, "a function that takes a ScanProgress, or None")


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


def output_location(output: str | os.PathLike[str], options: Mapping[str, Any] | None) -> Location:
    """Return the location of tables that are to be written."""
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
        return located(output, options)
    raise OptionError(
        f"Tables cannot be written to {place}.",
        location=place,
        found=place.scheme,
        expected="a local path or an s3:// URL",
    )


# Endings of files of data. An output that ends in one of them is most likely meant as a file, which it would
# not become.
_OTHER_FILES: Final = frozenset(
    {
        ".arrow", ".avro", ".csv", ".db", ".duckdb", ".feather", ".gz", ".h5", ".hdf5", ".ipc", ".json",
        ".jsonl", ".nwb", ".orc", ".parq", ".parquet", ".pickle", ".pkl", ".pq", ".sqlite", ".tsv", ".txt",
        ".xls", ".xlsx", ".yaml", ".yml", ".zarr", ".zip",
    }
)  # fmt: skip


def _check_extension(place: Location) -> None:
    """Refuse an output that ends like a file of another format, unless it is a folder that exists."""
    extension = PurePosixPath(place.url).suffix
    if place.url.endswith(".parquet") or extension.lower() not in _OTHER_FILES:
        return
    if place.path is not None and place.path.is_dir():
        return
    where = str(place.path or place)
    stem = where.removesuffix(extension)
    raise OptionError(
        f"Tables cannot be written to {where}: they are Parquet files, and {extension} is not .parquet.",
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


def scan_part(
    tables: Tables,
    name: str,
    source: str,
    found: Sequence[FoundSession],
    *,
    threads: int = 16,
    requests: int = 10,
    snapshots: bool = False,
    check: bool = False,
    progress: Callable[[ScanProgress], None] | None = None,
    findings: Findings | None = None,
) -> ScanReport:
    """Scan the sessions of one source into a part of the tables; see `scan`.

    Rows of sessions that have not changed are kept, with columns that this release does not know, and so are
    all rows of other sources in the same file. Rows of sessions of this source that were not found are
    removed at the end, unless they are below a folder that could not be listed (`findings`).
    """
    with PartRows.opened(tables, name, source) as part:
        options = ScanOptions(requests, snapshots, check)
        return _scanned(part, found, options, threads, progress, findings or Findings(()))


def _scanned(
    part: PartRows,
    found: Sequence[FoundSession],
    options: ScanOptions,
    threads: int,
    progress: Callable[[ScanProgress], None] | None,
    findings: Findings,
) -> ScanReport:
    began = time.monotonic()
    unique: dict[str, FoundSession] = {}
    for each in found:
        unique.setdefault(each.location.url, each)
    unlisted = {each.location.url: each for each in findings.failures if each.location.url not in unique}
    for each in unlisted.values():
        if each.error is not None:
            part.add(failed(each, each.error), ())
    report = ScanReport(str(part.tables.place), unlisted=len(unlisted), duplicates=len(found) - len(unique))
    part.expect(unique, [each.url for each in findings.unlisted])
    # Warnings of single sessions are in their rows; there may be thousands of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NWBZarrWarning)
        try:
            for outcome in _outcomes(unique.values(), part, options, threads):
                report = _taken(report, outcome, part, options)
                done = report.scanned + report.unchanged + report.not_nwb + report.unlisted - len(unlisted)
                if progress is not None:
                    progress(ScanProgress(part.source, done, len(unique), len(part.failures)))
                part.checkpoint()
        except KeyboardInterrupt:
            part.write()
            raise
    gone = part.finish()
    return replace(
        report,
        sessions=report.scanned + report.unchanged,
        failures=tuple(sorted(part.failures, key=lambda each: each.location)),
        gone=gone,
        hdf5=findings.hdf5,
        requests=report.requests + findings.requests,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class _Outcome:
    """What was done with a session: its rows, None where it has not changed."""

    found: FoundSession
    rows: tuple[Row, Sequence[Row]] | None
    requests: int


def _outcomes(
    found: Iterable[FoundSession], part: PartRows, options: ScanOptions, threads: int
) -> Iterator[_Outcome]:
    """Scan sessions on threads, and yield what was done in the order in which it was."""
    waiting: set[Future[_Outcome]] = set()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="nwbzarr-scan")
    try:
        for each in found:
            before = part.before.get(each.location.url)
            if before is not None and each.etag is not None and before.is_current(each, options):
                yield _Outcome(each, None, 0)
                continue
            waiting.add(pool.submit(_scan_one, each, before, options))
            if len(waiting) >= threads * _AHEAD:
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
    row, objects = harvest(
        found, requests=max(options.requests, 1), snapshots=options.snapshots, check=options.check
    )
    return _Outcome(found, (row, objects), asked + row["requests"])


def _is_unchanged(found: FoundSession, before: Before) -> bool:
    """Return whether a session that no listing has found still has the same metadata document."""
    if before.etag is None or before.etag.startswith("W/"):
        return False
    document = "zarr.json" if before.zarr_format == 3 else ".zmetadata"
    try:
        transport = open_transport(found.location.uncached)
        answer = run(transport.get_unless(document, before.etag, limit=LARGEST_DOCUMENT))
    except NWBZarrError:
        # Scanning it tells what is wrong.
        return False
    return isinstance(answer, Unchanged)


def _taken(report: ScanReport, outcome: _Outcome, part: PartRows, options: ScanOptions) -> ScanReport:
    """Return the report with one outcome more, whose rows the part takes."""
    report = replace(report, requests=report.requests + outcome.requests)
    url = outcome.found.location.url
    if outcome.rows is None:
        part.keep(outcome.found)
        stale = part.before[url].stale
        return replace(
            report, unchanged=report.unchanged + 1, stale=(*report.stale, url) if stale else report.stale
        )
    row, objects = outcome.rows
    if outcome.found.guessed and row.get("error_type") == "NotNWBError":
        part.gone.update({url} & part.before.keys())
        return replace(report, not_nwb=report.not_nwb + 1)
    part.add(row, objects)
    if url == part.source and row.get("error_type") == "LocationNotFoundError":
        # A prefix where nothing is stored is not counted as a session.
        return replace(report, unlisted=report.unlisted + 1)
    needed = row.get("requests_for_all") or 0
    # What is damaged or too large is not read with more requests either.
    needed = needed if needed > allowed_requests(outcome.found, options.requests) else 0
    return replace(
        report,
        scanned=report.scanned + 1,
        incomplete=report.incomplete + bool(row.get("not_read")),
        not_read=_joined(report.not_read, row.get("not_read") or ()),
        requests_for_all=max(report.requests_for_all, needed),
        unconsolidated=report.unconsolidated + (row.get("consolidated") is False),
        stale=(*report.stale, url) if row.get("stale") else report.stale,
    )
