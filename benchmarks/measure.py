"""Measuring: contenders run in processes of their own, alternately, and what the server saw of each run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks.environments import interpreter
from benchmarks.servers.exchanges import Exchange, Server, round_trips

WORKER = Path(__file__).with_name("worker.py")
MOST_PATHS = 20

WARM = 2
"""Runs that connections, and the memory that a virtual machine gives for the first time, are left to."""


@dataclass(frozen=True)
class Contender:
    """One way of doing what a row measures.

    Parameters
    ----------
    name
        For the table.
    operation
        ``module:function`` below `benchmarks.operations`.
    arguments
        Of the function, after `url` and `options`.
    url, options
        The session, and how to get at it.
    environment
        One of `benchmarks.environments.ENVIRONMENTS`.
    """

    name: str
    operation: str
    arguments: Mapping[str, Any]
    url: str
    options: Mapping[str, Any] | None = None
    environment: str = "project"

    @property
    def task(self) -> dict[str, Any]:
        """What the worker is told."""
        return {
            "operation": f"benchmarks.operations.{self.operation}",
            "arguments": {"url": self.url, "options": self.options, **self.arguments},
        }


@dataclass
class Run:
    """One timed run; seconds and bytes. Round trips can be told apart only where answers take their time."""

    seconds: float
    cpu: float
    memory: int
    requests: int
    round_trips: int | None
    received: int
    not_found: int
    metadata_requests: int
    facts: dict[str, Any] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list, repr=False)


@dataclass
class Result:
    """All runs of a contender, or why there are none."""

    name: str
    runs: list[Run] = field(default_factory=list)
    error: str = ""

    def middle(self, name: str) -> float:
        """The median of one of the runs' numbers; NaN without runs."""
        values = [value for run in self.runs if (value := getattr(run, name)) is not None]
        return median(values) if values else float("nan")

    def best(self, name: str) -> float:
        """The least of one of the runs' numbers; NaN without runs."""
        values = [value for run in self.runs if (value := getattr(run, name)) is not None]
        return min(values) if values else float("nan")

    def document(self) -> dict[str, Any]:
        """For JSON; the paths of many requests are left out."""
        runs = [asdict(run) | ({"paths": []} if run.requests > MOST_PATHS else {}) for run in self.runs]
        return {"name": self.name, "error": self.error, "runs": runs}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Result:
        """The inverse of `document`."""
        return cls(document["name"], [Run(**run) for run in document["runs"]], document["error"])


class Process:
    """A worker that has prepared a contender's operation; ended by `with`."""

    def __init__(self, contender: Contender) -> None:
        command = [*interpreter(contender.environment), str(WORKER), json.dumps(contender.task)]
        # Peers must not find a catalog, credentials or a proxy of whoever runs this.
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        self._process = subprocess.Popen(  # noqa: S603 (our own script)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**kept, "AWS_EC2_METADATA_DISABLED": "true"},
        )
        self.preparation = self._read()

    def run(self) -> dict[str, Any]:
        """Run the operation once."""
        assert self._process.stdin is not None  # noqa: S101 (a pipe)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 (a pipe)
        line = self._process.stdout.readline()
        if not line:
            return {"error": f"the process ended with {self._process.wait(timeout=30)}"}
        document: dict[str, Any] = json.loads(line)
        return document

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 (a pipe)
        assert self._process.stdout is not None  # noqa: S101 (a pipe)
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


def once_each(
    contenders: Sequence[Contender], repeats: int, server: Server, latency: int
) -> dict[str, Result]:
    """Alternate between contenders, each run in a new process: for what is timed cold."""
    results = {contender.name: Result(contender.name) for contender in contenders}
    for _ in range(repeats):
        for contender in contenders:
            if results[contender.name].error:
                continue
            with Process(contender) as process:
                _add(results[contender.name], process, server, latency)
    return results


def again_and_again(
    contenders: Sequence[Contender], repeats: int, server: Server, latency: int
) -> dict[str, Result]:
    """Alternate between contenders whose processes stay; the first `WARM` runs of each are not counted."""
    results = {contender.name: Result(contender.name) for contender in contenders}
    processes = {contender.name: Process(contender) for contender in contenders}
    try:
        for repeat in range(WARM + repeats):
            for name, process in processes.items():
                if not results[name].error:
                    _add(results[name], process, server, latency)
            if repeat < WARM:
                for result in results.values():
                    result.runs.clear()
    finally:
        for process in processes.values():
            process.__exit__()
    return results


def check_same(results: Mapping[str, Result], *, apart: Sequence[str] = ()) -> None:
    """Make sure that contenders have read the same, by shape and sum.

    Parameters
    ----------
    results
        By contender; those that failed, and those that say nothing of sums, are passed over.
    apart
        Contenders that are asked for something else.

    Raises
    ------
    ValueError
        When two differ: their times are no comparison then.
    """
    read = {
        name: (run.facts["shape"], run.facts["sum"])
        for name, result in results.items()
        for run in result.runs
        if name not in apart and "sum" in run.facts
    }
    if any(values != next(iter(read.values())) for values in read.values()):
        raise ValueError(f"The contenders have not read the same: {read}.")


def ratio(slower: Result, faster: Result) -> float:
    """The median over paired runs of how many times longer the one took; NaN where there are none."""
    pairs = list(zip(slower.runs, faster.runs, strict=False))
    return median(a.seconds / b.seconds for a, b in pairs) if pairs else float("nan")


def best_ratio(slower: Result, faster: Result) -> float:
    """How many times longer the one took, each at its best; NaN where there are no runs."""
    return slower.best("seconds") / faster.best("seconds")


def _add(result: Result, process: Process, server: Server, latency: int) -> None:
    answer = process.preparation if "error" in process.preparation else process.run()
    if "error" in answer:
        result.error = answer["error"]
        return
    seen = server.exchanges(answer["begin"], answer["end"])
    result.runs.append(_run(answer, seen, latency))


def _run(answer: Mapping[str, Any], seen: Sequence[Exchange], latency: int) -> Run:
    return Run(
        seconds=answer["seconds"],
        cpu=answer["cpu"],
        memory=answer["memory"],
        requests=len(seen),
        round_trips=round_trips(seen, latency / 1000) if latency else None,
        received=sum(exchange.size for exchange in seen),
        not_found=sum(exchange.status == 404 for exchange in seen),
        metadata_requests=sum(exchange.is_metadata for exchange in seen),
        facts=answer["facts"] or {},
        paths=[exchange.path for exchange in seen],
    )
