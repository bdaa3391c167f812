"""What a map would take, before anything is requested: requests, bytes, seconds and cost."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import ceil
from typing import Any, Final, Self

from intake_nwbzarr.arguments import check_bool, check_keywords, invalid_argument
from intake_nwbzarr.checks.costs import Prices, shipped_prices
from intake_nwbzarr.limits import limits
from intake_nwbzarr.sessions.selected import Selected
from intake_nwbzarr.transport.request_log import counted, readable_size


@dataclass(frozen=True)
class Load:
    """What sessions have to be read, as the tables tell."""

    sessions: int
    objects: int
    # Of the arrays of the objects: bytes in memory, and stored chunks. None in the tables are not counted.
    nbytes: int
    chunks: int
    # How many objects have no such figures in the tables.
    unknown: int
    # Of S3, and those for which the caller has agreed to pay.
    on_s3: int
    requester_pays: int


@dataclass(frozen=True)
class Assumptions:
    """What is assumed where the tables cannot tell.

    Parameters
    ----------
    read
        The part of the objects' data that the function reads, from 0 to 1.
    compression
        Bytes in memory for each stored byte.
    requests_to_open
        Requests to open a session: its metadata, and those of the session itself.
    bytes_to_open
        Bytes of a session's metadata.
    requests_per_object
        Further requests for each found object: ids, scalars, regions.
    latency
        Seconds for a request.
    bandwidth
        Bytes per second, of all workers together.
    cpu
        Seconds of a processor's time for each session, beside the function's own.
    workers, threads
        Processes, and threads of each.
    function
        Seconds that the function computes for each session.
    leaves_region
        Whether the data leave the cloud's region, which costs egress.
    """

    read: float = 1.0
    compression: float = 1.5
    requests_to_open: int = 6
    bytes_to_open: int = 100_000
    requests_per_object: int = 5
    latency: float = 0.03
    bandwidth: float = 100e6
    cpu: float = 0.015
    workers: int = 1
    threads: int = 8
    function: float = 0.0
    leaves_region: bool = True


@dataclass(frozen=True, repr=False)
class Estimate:
    """What a map would take; `SessionCatalog.map` returns it with ``dry_run=True``.

    The attributes `load`, `assumptions` and `prices` are what it is computed from.
    """

    load: Load
    assumptions: Assumptions = field(default_factory=Assumptions)
    prices: Prices = field(default_factory=shipped_prices)
    # Whether results are written to S3.
    results_on_s3: bool = False

    def assuming(self, **assumptions: Any) -> Self:
        """Return the estimate under other assumptions, such as ``read=0.1, latency=0.1``.

        Parameters
        ----------
        **assumptions
            See `Assumptions`.

        Raises
        ------
        OptionError
            When there is no such assumption, or its value is not valid.
        """
        known = {each.name: each for each in fields(Assumptions)}
        check_keywords("assuming()", assumptions, known)
        for name, value in assumptions.items():
            _check(name, value)
        return replace(self, assumptions=replace(self.assumptions, **assumptions))

    def priced(self, **prices: Any) -> Self:
        """Return the estimate with other prices, such as ``get_per_1000=0.0005, date="2027-01"``."""
        check_keywords("priced()", prices, {each.name for each in fields(Prices)})
        for name, value in prices.items():
            is_text = name in {"what", "date", "source", "currency"}
            if is_text and not isinstance(value, str):
                raise invalid_argument(name, value, "a text")
            if not is_text and not (_is_number(value) and 0 <= value < _MOST):
                raise invalid_argument(name, value, "a price, as a number")
        return replace(self, prices=replace(self.prices, **prices))

    @property
    def requests(self) -> int:
        """Return how many objects are requested (GET)."""
        taken, load = self.assumptions, self.load
        opening = load.sessions * taken.requests_to_open + load.objects * taken.requests_per_object
        return opening + ceil(load.chunks * taken.read)

    @property
    def bytes(self) -> int:
        """Return how many bytes are received."""
        taken, load = self.assumptions, self.load
        return load.sessions * taken.bytes_to_open + ceil(load.nbytes * taken.read / taken.compression)

    @property
    def writes(self) -> int:
        """Return how many results are written to S3 (PUT)."""
        return self.load.sessions + 4 if self.results_on_s3 else 0

    @property
    def seconds(self) -> float:
        """Return how long it takes: as long as what takes longest of latency, bandwidth and computing."""
        taken, load = self.assumptions, self.load
        side_by_side = taken.workers * taken.threads
        # Opening takes two round trips one after the other, and reading at least one more.
        waiting = load.sessions * 3 * taken.latency / side_by_side
        requesting = self.requests * taken.latency / min(limits().requests, 64 * side_by_side)
        computing = load.sessions * (taken.cpu + taken.function) / taken.workers
        return max(waiting, requesting, computing, self.bytes / taken.bandwidth)

    @property
    def money(self) -> float:
        """Return what whoever owns the buckets pays for it, or you where you are the requester who pays."""
        part = self.load.on_s3 / self.load.sessions if self.load.sessions else 0.0
        return part * self._of_reading() + self._of_writing()

    @property
    def your_money(self) -> float:
        """Return your part of it: of requester-pays buckets, and of writing results to S3."""
        part = self.load.requester_pays / self.load.sessions if self.load.sessions else 0.0
        return part * self._of_reading() + self._of_writing()

    def _of_reading(self) -> float:
        egress = self.bytes / 1e9 * self.prices.egress_per_gb if self.assumptions.leaves_region else 0.0
        return self.requests / 1000 * self.prices.get_per_1000 + egress

    def _of_writing(self) -> float:
        listing = ceil(self.writes / 1000) / 1000 * self.prices.list_per_1000
        return self.writes / 1000 * self.prices.put_per_1000 + listing

    def __repr__(self) -> str:
        taken, load, prices = self.assumptions, self.load, self.prices
        currency = prices.currency
        lines = [
            f"<Estimate for {counted(load.sessions, 'session')}, {counted(load.objects, 'object')}>",
            f"  requests  {self.requests:,} GET, {self.writes:,} PUT",
            f"  received  {readable_size(self.bytes)}",
            f"  time      {_readable_time(self.seconds)} on {taken.workers:,} x {taken.threads} threads",
            f"  cost      {self.money:,.2f} {currency}, of which {self.your_money:,.2f} {currency} are "
            "billed to you",
            "  assuming  " + ", ".join(f"{each.name}={getattr(taken, each.name)}" for each in fields(taken)),
            f"  prices    {prices.what}, {prices.date}",
        ]
        if load.unknown:
            lines.insert(3, f"  unknown   {counted(load.unknown, 'object')} without sizes in the tables")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def load_of(selected: Iterable[Selected], sizes: Mapping[str, Any]) -> Load:
    """Return what is to be read; `sizes` has the objects' ``nbytes`` and ``chunks``, None if unknown."""
    sessions = on_s3 = paying = 0
    for each in selected:
        sessions += 1
        if each.location.scheme == "s3":
            on_s3 += 1
            paying += bool(each.location.option("requester_pays"))
    known = [
        (nbytes, chunks)
        for nbytes, chunks in zip(sizes["nbytes"], sizes["chunks"], strict=True)
        if nbytes is not None and chunks is not None
    ]
    return Load(
        sessions,
        len(sizes["nbytes"]),
        sum(nbytes for nbytes, _ in known),
        sum(chunks for _, chunks in known),
        len(sizes["nbytes"]) - len(known),
        on_s3,
        paying,
    )


def _check(name: str, value: object) -> None:
    if name == "leaves_region":
        check_bool(name, value)
        return
    number = _is_number(value)
    if name == "read":
        if not (number and 0 <= value <= 1):  # type: ignore[operator]
            raise invalid_argument(name, value, "a number from 0 to 1")
        return
    counts = {"requests_to_open", "bytes_to_open", "requests_per_object"}
    least = 0 if name in {"function", "latency", "cpu", *counts} else 1e-9
    whole = name in {"workers", "threads", *counts}
    if not (number and least <= value < _MOST) or (whole and not isinstance(value, int)):  # type: ignore[operator]
        raise invalid_argument(name, value, "a whole number" if whole else "a positive number")


_MOST: Final = 1e15


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _readable_time(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"
