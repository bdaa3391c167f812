"""Map a function over many sessions, on threads or a dask cluster; failures are retried, or collected."""

from __future__ import annotations

import heapq
import inspect
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from time import monotonic
from typing import Any, Final, Literal, get_args

from intake_nwbzarr.arguments import check_bool, check_choice, invalid_argument
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    ListingError,
    LocationNotFoundError,
    MapError,
    MapWarning,
    NWBZarrError,
    OptionError,
    SessionCrashError,
    SessionFailedError,
    warn_caller,
)
from intake_nwbzarr.location.location import Location, Place, locate
from intake_nwbzarr.sessions.map.ended import Ended, EndedRows, encoded
from intake_nwbzarr.sessions.map.map_result import MapResult
from intake_nwbzarr.sessions.map.pools import Lost, Pool, Work, pool_of
from intake_nwbzarr.sessions.map.provenance import Provenance, function_digest, function_name, result_key
from intake_nwbzarr.sessions.map.result_files import (
    PROVENANCE,
    SESSIONS,
    EarlierResults,
    checked_name,
    earlier_provenance,
    results_folder,
    results_place,
)
from intake_nwbzarr.sessions.map.tasks import Failure, Job, Outcome
from intake_nwbzarr.sessions.progress import Progress, shown_progress
from intake_nwbzarr.sessions.selected import Give, Selected

type OnError = Literal["collect", "raise"]
type Isolate = Literal["process"]

# Seconds before the first retry of a session, doubled before each further one up to the longest.
BACKOFF: Final = 1.0
_LONGEST_BACKOFF: Final = 60.0
# Failures whose tracebacks are kept: those after them are mostly the same, and take memory.
_MOST_TRACEBACKS: Final = 1000
# Seconds between two looks at a cluster where nothing ends.
_LOOK: Final = 1.0


def map_sessions(
    selected: Iterable[Selected],
    function: Callable[..., Any],
    *,
    tables: str | None = None,
    count: int | None = None,
    client: Any = None,
    name: str | None = None,
    folder: Place | None = None,
    storage_options: Any = None,
    give: Give = "objects",
    timeout: float | None = None,
    retries: int = 2,
    isolate: Isolate | None = None,
    memory_limit: float | str | None = None,
    on_error: OnError = "collect",
    resume: bool = True,
    window: int = 200,
    threads: int = 8,
    progress: bool | None = None,
) -> MapResult:
    """Call a function with each session that a search has found; see `SessionCatalog.map`.

    Parameters
    ----------
    selected
        The sessions, taken one after the other.
    tables, count
        The digest of the tables that they are from, and how many they are, if known.
    """
    settings = _checked(
        function, client, name, folder, storage_options, give, timeout, retries, isolate, memory_limit,
        on_error, resume, window, threads,
    )  # fmt: skip
    sessions = iter(selected)
    first = next(sessions, None)
    if first is not None:
        _check_call(function, give, first)
        sessions = chain([first], sessions)
    run = _Run(settings, shown_progress(progress, count, settings.name))
    return run.of(sessions, tables)


def check_map(selected: Iterable[Selected], function: Callable[..., Any], **settings: Any) -> None:
    """Refuse what `map_sessions` refuses before it opens anything."""
    _checked(function, **settings)
    if (first := next(iter(selected), None)) is not None:
        _check_call(function, settings["give"], first)


@dataclass(frozen=True)
class _Settings:
    """The checked arguments of a map."""

    function: Callable[..., Any]
    client: Any
    name: str
    # The folder of this map's files.
    place: Location | None
    give: Give
    timeout: float | None
    retries: int
    isolate: Isolate | None
    memory_limit: int | None
    on_error: OnError
    resume: bool
    window: int
    threads: int

    def job(self) -> Job:
        """Return what is done with every session."""
        return Job(
            self.function,
            self.give,
            self.timeout,
            None if self.place is None else results_folder(self.place),
            self.isolate == "process",
            self.memory_limit,
            uuid.uuid4().hex,
        )


def _checked(
    function: Any, client: Any, name: Any, folder: Any, storage_options: Any, give: Any, timeout: Any,
    retries: Any, isolate: Any, memory_limit: Any, on_error: Any, resume: Any, window: Any, threads: Any,
) -> _Settings:  # fmt: skip
    if not callable(function):
        raise invalid_argument("function", function, "a function")
    check_choice("give", give, get_args(Give.__value__))
    check_choice("isolate", isolate, ("process", None))
    check_choice("on_error", on_error, get_args(OnError.__value__))
    check_bool("resume", resume)
    if timeout is not None and not (_is_number(timeout) and 0 < timeout <= _LONGEST):
        raise invalid_argument("timeout", timeout, "a positive number of seconds, or None")
    for argument, given, least in (("retries", retries, 0), ("window", window, 1), ("threads", threads, 1)):
        if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= 10**6:
            raise invalid_argument(argument, given, f"a whole number from {least} to a million")
    limit = _memory_limit(memory_limit)
    if limit is not None and isolate is None:
        raise OptionError(
            "memory_limit is for sessions in processes of their own.",
            found=memory_limit,
            next_step='Pass isolate="process" as well; of whole workers, dask limits the memory.',
        )
    place = None
    if folder is None:
        if storage_options is not None:
            raise OptionError("storage_options are those of the folder; pass folder=, too.")
        name = "map" if name is None else name
    else:
        name = _name_of(function) if name is None else name
        place = results_place(_checked_folder(folder, storage_options, client), checked_name(name))
    return _Settings(
        function, client, checked_name(name), place, give, timeout, retries, isolate, limit, on_error, resume,
        window, threads,
    )  # fmt: skip


# A month, as for the timeouts of a location.
_LONGEST: Final = 30 * 86400.0


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def _memory_limit(given: Any) -> int | None:
    from dask.utils import parse_bytes

    if given is None:
        return None
    try:
        limit = parse_bytes(given) if isinstance(given, str) else given
        if _is_number(limit) and limit >= _LEAST_MEMORY:
            return int(limit)
    except (ValueError, OverflowError):
        pass
    raise invalid_argument(
        "memory_limit", given, "at least 100 MB, as a number of bytes or a string such as '4 GB'"
    )


# A process takes this much before it has read anything.
_LEAST_MEMORY: Final = 100 * 10**6


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise OptionError(
            "The results in a folder need a name, and the function has none.",
            found=name or type(function).__name__,
            next_step="Pass name=, such as 'tuning-1'.",
        )
    return str(name)


def _checked_folder(folder: Any, storage_options: Any, client: Any) -> Location:
    from intake_nwbzarr.transport.open import open_transport

    location = locate(folder, storage_options)
    transport = open_transport(location)
    if not transport.writable:
        raise transport.unwritable()
    if client is not None and location.secrets is not None and not location.secrets.ships:
        raise CredentialsError(
            f"The credentials for {location} stay in this process, but workers write the results.",
            location=location,
            next_step="Set them in the workers' environment or profile, or pass storage_options={..., "
            "'ship_credentials': True} to send them.",
        )
    return location


def _check_call(function: Any, give: Give, first: Selected) -> None:
    """Refuse a function that cannot be called, before anything is opened."""
    if give == "objects" and not first.paths:
        raise OptionError(
            "The search has no Find, so there are no objects to give to the function.",
            found=give,
            next_step="Search with a condition such as units=Find('Units'), or pass give='dataset'.",
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise OptionError(
            "The function is asynchronous (async def), and nothing would await it.",
            found="async def",
            next_step="Pass a function that calls asyncio.run() and returns the result.",
        )
    try:
        parameters = inspect.signature(function)
    except (TypeError, ValueError):
        # Some that are written in C have none.
        return
    try:
        parameters.bind(**dict.fromkeys(first.paths)) if give == "objects" else parameters.bind(None)
    except TypeError as error:
        given = ", ".join(f"{each}=..." for each in first.paths) if give == "objects" else f"the {give}"
        raise OptionError(
            f"The function cannot be called with {given}: {error}.",
            found=str(parameters),
            expected=list(first.paths) if give == "objects" else give,
            next_step="Its parameters are the names of the search's conditions with Find."
            if give == "objects"
            else "It takes one argument.",
        ) from error


@dataclass
class _Run:
    """One map while it runs."""

    settings: _Settings
    progress: Progress
    ended: EndedRows = field(default_factory=EndedRows)
    files: dict[str, bytes] = field(default_factory=dict)
    # Those that the folder has already, and how many of them are kept.
    earlier: EarlierResults = field(default_factory=EarlierResults)
    kept: int = 0
    failed: int = 0
    # Attempts that wait for their time, and those whose workers died.
    waiting: list[tuple[float, int, Work]] = field(default_factory=list)
    suspects: list[Work] = field(default_factory=list)

    def of(self, sessions: Iterator[Selected], tables: str | None) -> MapResult:
        """Work on all sessions, and note the state of each however it ends."""
        settings = self.settings
        workers = "threads" if settings.client is None else "distributed"
        provenance = Provenance(
            settings.name,
            tables,
            function_name(settings.function),
            function_digest(settings.function),
            settings.give,
            workers,
        )
        self.earlier = self._earlier_results(provenance)
        pool = pool_of(settings.client, settings.job(), settings.name, settings.threads, settings.window)
        try:
            self._store(PROVENANCE, provenance.encode())
        except BaseException:
            # Of a folder that cannot be written.
            pool.close()
            raise
        try:
            with self.progress:
                self._work(pool, self._new(sessions))
        except BaseException as error:
            pool.close()
            result = self._finish(provenance, "interrupted")
            if isinstance(error, MapError):
                error.result = result
            raise
        pool.close()
        return self._finish(provenance, "complete")

    def _earlier_results(self, provenance: Provenance) -> EarlierResults:
        """Return the results that the folder has already; warn where another function has returned them."""
        place = self.settings.place
        if place is None or not self.settings.resume:
            return EarlierResults()
        try:
            earlier = earlier_provenance(place)
            results = EarlierResults.of(place, is_noted=earlier is not None and earlier.status != "running")
        except LocationNotFoundError:
            return EarlierResults()
        except (AccessError, ListingError) as error:
            raise OptionError(
                f"The results in {place} cannot be listed, so a map cannot be resumed there: {error.args[0]}",
                location=place,
                found=str(error),
                next_step="Allow listing the folder, or pass resume=False to begin anew.",
            ) from error
        if results and earlier is not None and earlier.python == provenance.python:
            provenance.earlier_digests = sorted({earlier.function_digest, *earlier.earlier_digests})
            if earlier.function_digest != provenance.function_digest:
                warn_caller(
                    f"The function is not the one whose results for {self.settings.name!r} are in {place}: "
                    "its code, or a variable or function that it uses, has changed. Those results are kept. "
                    "Pass another name=, or resume=False to begin anew.",
                    MapWarning,
                )
        return results

    def _new(self, sessions: Iterator[Selected]) -> Iterator[Work]:
        """Yield the sessions without a result, each once."""
        seen: set[bytes] = set()
        number = 0
        for selected in sessions:
            key = result_key(selected, self.settings.name, self.settings.give)
            if bytes.fromhex(key) in seen:
                continue
            seen.add(bytes.fromhex(key))
            number += 1
            work = Work(number, selected, key)
            noted = self.earlier.take(key)
            if noted is None:
                yield work
            else:
                self.kept += 1
                self._end(work, replace(noted, session=selected.key))

    def _work(self, pool: Pool, works: Iterator[Work]) -> None:
        running = 0
        exhausted = False
        while True:
            while running < pool.window and (work := self._due()) is not None:
                pool.submit(work)
                running += 1
            while running < pool.window and not exhausted:
                work = next(works, None)
                exhausted = work is None
                if work is not None:
                    pool.submit(work)
                    running += 1
            alone = not running and exhausted and not self.waiting
            if alone and not self.suspects:
                return
            if alone and (again := [suspect for suspect in self.suspects if suspect.deaths == 1]):
                # Most of them only shared a worker with the one that killed it.
                self.suspects = [suspect for suspect in self.suspects if suspect.deaths > 1]
                works, exhausted = iter(again), False
                continue
            if alone:
                # One at a time, only the culprit's worker dies again.
                pool.submit(self.suspects.pop(0))
                running = 1
            ended: list[tuple[Work, Outcome | Lost]] = []
            while not ended and (alone or not self.waiting):
                ended = pool.completed(_LOOK)
            ended = ended or pool.completed(self._pause())
            for work, outcome in ended:
                running -= 1
                self._took(work, outcome, alone=alone)

    def _due(self) -> Work | None:
        if self.waiting and self.waiting[0][0] <= monotonic():
            return heapq.heappop(self.waiting)[2]
        return None

    def _pause(self) -> float:
        return min(_LOOK, max(0.0, self.waiting[0][0] - monotonic())) if self.waiting else _LOOK

    def _took(self, work: Work, outcome: Outcome | Lost, *, alone: bool = False) -> None:
        """Note what an attempt came to: an end, a retry, or a suspicion."""
        if outcome == "cancelled":
            self._end(work, Ended(work.selected.key, work.key, "cancelled", attempts=work.attempts))
            return
        if isinstance(outcome, str):
            if not alone:
                self._suspect(work)
                return
            outcome = Outcome(failure=_killed(work))
        failure = outcome.failure
        if failure is None:
            if outcome.data is not None:
                self.files[work.key] = outcome.data
            self._end(work, _ended(work, outcome))
        elif failure.suspected and not alone:
            self._suspect(work)
        elif failure.transient and work.attempts <= self.settings.retries:
            due = monotonic() + min(_LONGEST_BACKOFF, BACKOFF * 2.0 ** min(work.attempts - 1, 100))
            heapq.heappush(self.waiting, (due, work.number, replace(work, attempts=work.attempts + 1)))
        else:
            self._end(work, _ended(work, outcome))
            if self.settings.on_error == "raise":
                raise _stopped(work, failure)

    def _suspect(self, work: Work) -> None:
        """Try a session again at the end, which died with its worker or whose memory others took."""
        self.suspects.append(replace(work, attempts=work.attempts + 1, deaths=work.deaths + 1))

    def _end(self, work: Work, ended: Ended) -> None:
        self.failed += ended.state == "failed"
        if self.failed > _MOST_TRACEBACKS:
            ended = replace(ended, traceback=None)
        whose = work.selected.labels
        ended = replace(
            ended,
            subject_id=whose.get("subject_id"),
            species=whose.get("species"),
            session_id=whose.get("session_id"),
        )
        self.ended.add(work.number, ended)
        self.progress.note(ended.state)

    def _finish(self, provenance: Provenance, status: str) -> MapResult:
        """Write the table of sessions and the provenance beside the results."""
        import pyarrow.compute as pc

        table = self.ended.table()
        states = table["state"].to_pylist()
        counts = {state: states.count(state) for state in ("done", "failed", "cancelled")}
        sums = {name: pc.sum(table[name]).as_py() or 0 for name in ("requests", "received")}
        counts |= {"kept": self.kept, **sums}
        provenance.end(status, counts)
        try:
            self._store(SESSIONS, encoded(table))
            self._store(PROVENANCE, provenance.encode())
        except NWBZarrError as error:
            warn_caller(f"The summary of the map cannot be written beside its results. {error}", MapWarning)
        return MapResult(table, provenance, self.settings.place, self.files)

    def _store(self, name: str, data: bytes) -> None:
        from intake_nwbzarr.sessions.tables.tables import write_file

        if self.settings.place is not None:
            write_file(replace(self.settings.place, url=f"{self.settings.place.url}/{name}"), data)


def _ended(work: Work, outcome: Outcome) -> Ended:
    failure = outcome.failure
    return Ended(
        work.selected.key,
        work.key,
        "done" if failure is None else "failed",
        outcome.rows,
        None if failure is None else failure.error,
        None if failure is None else failure.message,
        None if failure is None else failure.transient,
        work.attempts,
        outcome.seconds,
        outcome.requests,
        outcome.received,
        None if failure is None else failure.traceback,
    )


def _killed(work: Work) -> Failure:
    error = SessionCrashError(
        f"The workers died whenever they worked on {work.selected.key}, also when nothing else ran.",
        location=work.selected.key,
        next_step="Most often they are out of memory: see their logs, or pass isolate='process'.",
    )
    return Failure(type(error).__name__, str(error), transient=False)


def _stopped(work: Work, failure: Failure) -> SessionFailedError:
    return SessionFailedError(
        f"{work.selected.key} failed, and on_error='raise' ends the map: {failure.error}: {failure.message}",
        location=work.selected.key,
        found=failure.error,
        next_step="Results that are stored are kept: run the same map again to resume.",
        transient=failure.transient,
    )
