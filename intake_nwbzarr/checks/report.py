"""The report of a check: its findings, how the session can be reached, and what reading it costs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from intake_nwbzarr.checks.codes import CODES, CONSOLIDATE, SEVERITIES, Severity
from intake_nwbzarr.checks.costs import ArrayCost, Connection
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.listing import s3_url
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import counted, readable_size
from intake_nwbzarr.untrusted_input import printable_line

MOST_ALIKE: Final = 5
"""Findings of one code and of alike objects that are listed each; of more, a line tells their number."""

MOST_LINES: Final = 8
"""Lines of one code in the text; the document has all findings."""

MOST_COSTS: Final = 8
"""Arrays in the table of costs of the text, the largest first; the document has all."""

# Longer texts are cut.
_WIDEST: Final = 300


@dataclass(frozen=True)
class Finding:
    """One thing that somebody who streams the session will meet.

    Parameters
    ----------
    code
        Its kind, such as ``small-chunks``; ``nwbzarr explain CODE`` explains it. Findings of nwbinspector
        have the name of its check.
    severity
        ``error``, ``warning`` or ``hint``.
    path
        Of the object or array in the file; empty for the session.
    found
        What was found.
    why
        Why it matters.
    mend
        The command that mends it, or an instruction.
    """

    code: str
    severity: Severity
    path: str
    found: str
    why: str
    mend: str


@dataclass(frozen=True)
class Access:
    """How a session can be reached.

    Parameters
    ----------
    anonymous
        Whether without credentials; None where that was not tried, as of local files.
    https, s3
        Its URLs of both forms, where it has them.
    region
        Of its bucket, if known.
    """

    anonymous: bool | None = None
    https: str | None = None
    s3: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class Report:
    """What a streaming user will meet, as `check` returns it; its text is what ``nwbzarr check`` prints.

    Parameters
    ----------
    location
        Without secrets.
    format
        ``HDF5``, ``Zarr 2`` or ``Zarr 3``; None where it cannot be opened.
    consolidated
        Whether one document has all metadata; None for HDF5.
    fresh
        Whether that document equals the stored ones; None where it was not, or could not be, compared.
    nwb_version
        Of the schema.
    access
        How it can be reached.
    findings
        The most serious ones first.
    inspected
        Findings of nwbinspector; None where it was not asked for.
    costs
        What reading each array takes, the largest first.
    connection
        What costs assume.
    unchecked
        What could not be determined, and why.
    requests, received
        How many requests, and bytes, checking took.
    """

    location: str
    format: str | None
    consolidated: bool | None
    fresh: bool | None
    nwb_version: str | None
    access: Access
    findings: tuple[Finding, ...]
    inspected: tuple[Finding, ...] | None
    costs: tuple[ArrayCost, ...]
    connection: Connection
    unchecked: tuple[str, ...]
    requests: int
    received: int

    @property
    def ok(self) -> bool:
        """Return whether there are neither errors nor warnings; hints do not count."""
        return all(each.severity == "hint" for each in (*self.findings, *(self.inspected or ())))

    @property
    def document(self) -> dict[str, Any]:
        """Return what ``nwbzarr check --json`` prints."""
        return {"document": "nwbzarr-check 1.0", "ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        return "\n".join(_text(self))


def finding(code: str, path: str, found: str, location: Location) -> Finding:
    """Return a finding of a known code."""
    known = CODES[code]
    mend = known.mend
    if mend.startswith(CONSOLIDATE) and not _is_writable(location):
        mend += ", where the session is a folder or on S3"
    mend = mend.replace("{location}", _as_arguments(location))
    # The report says once which session it is about.
    return Finding(code, known.severity, path, found.replace(f" in {location}", ""), known.why, mend)


def _is_writable(location: Location) -> bool:
    return open_transport(location).writable


def _as_arguments(location: Location) -> str:
    """Return a location as arguments of a command: its form on S3 where it has one, and how to reach it."""
    place = s3_url(location.url) if location.scheme == "https" else None
    words = [place or (str(location.path) if location.path is not None else str(location))]
    for option in ("profile", "endpoint_url"):
        if (value := location.option(option)) is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    if location.option("requester_pays"):
        words.append("--requester-pays")
    return shlex.join(words)


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order of severity, code and path, each once."""
    codes = list(CODES)

    def rank(each: Finding) -> tuple[int, int, str, str]:
        number = codes.index(each.code) if each.code in CODES else len(codes)
        return SEVERITIES.index(each.severity), number, each.code, each.path

    return tuple(sorted(dict.fromkeys(findings), key=rank))


def _text(report: Report) -> Iterator[str]:
    yield report.location
    if report.format is not None:
        state = {True: ", consolidated", False: ", not consolidated", None: ""}[report.consolidated]
        fresh = " and up to date" if report.consolidated and report.fresh else ""
        yield f"{report.format}{state}{fresh}, NWB {report.nwb_version or 'of unknown version'}"
    yield from _access(report.access)
    for severity in SEVERITIES:
        yield from _of_severity(severity, report.findings)
    if report.inspected is not None:
        for severity in SEVERITIES:
            yield from _of_severity(severity, report.inspected, " of nwbinspector")
        if not report.inspected:
            yield from ("", "nwbinspector found nothing.")
    if report.unchecked:
        yield ""
        yield "not checked"
        yield from (f"  {each}" for each in report.unchecked)
    if report.costs:
        yield ""
        yield from _costs(report)
    yield ""
    yield _summary(report)


def _access(access: Access) -> Iterator[str]:
    if access.anonymous is not None:
        yield f"reachable {'by everybody' if access.anonymous else 'with credentials only'}"
    for name, value in (("https", access.https), ("s3", access.s3), ("region", access.region)):
        if value is not None:
            yield f"  {name:6}  {value}"


def _of_severity(severity: Severity, findings: Sequence[Finding], whose: str = "") -> Iterator[str]:
    chosen = [each for each in findings if each.severity == severity]
    if not chosen:
        return
    yield ""
    yield f"{counted(len(chosen), severity)}{whose}"
    by_code: dict[tuple[str, str], list[Finding]] = {}
    for each in chosen:
        by_code.setdefault((each.code, each.mend), []).append(each)
    for (code, mend), members in by_code.items():
        known = CODES.get(code)
        lines = list(_found(members))
        if known is not None:
            yield f"  {known.meaning}"
        yield from (f"    {line}" for line in lines)
        yield from (f"    {part}" for part in (members[0].why,) if part)
        yield f"    {'mend: ' if mend else ''}{mend}{'  ' if mend else ''}[{code}]"


def _found(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each finding; of many that are alike, or of very many, one for all."""
    alike: dict[str, list[Finding]] = {}
    for each in findings:
        # Alike but for numbers: 2,000 series are one line.
        parent = each.path.rpartition("/")[0]
        alike.setdefault(re.sub(r"[\d.,]+", "0", f"{parent} {each.found}"), []).append(each)
    lines: list[tuple[str, int]] = []
    for members in alike.values():
        if len(members) > MOST_ALIKE:
            first, last = _plain(members[0].path), _plain(members[-1].path)
            found = _plain(members[0].found)
            lines.append((f"{first} … {last} ({len(members):,}): {found}", len(members)))
            continue
        texts = (
            f"{_plain(each.path)}: {_plain(each.found)}" if each.path else _plain(each.found)
            for each in members
        )
        lines += [(text, 1) for text in texts]
    yield from (line for line, _ in lines[:MOST_LINES])
    if more := sum(count for _, count in lines[MOST_LINES:]):
        yield f"and {more:,} more"


def _costs(report: Report) -> Iterator[str]:
    connection, prices = report.connection, report.connection.prices
    yield (
        f"to read arrays whole, and {connection.window:g} s of them, at {connection.latency * 1000:g} ms and "
        f"{readable_size(round(connection.bandwidth))}/s"
    )
    yield f"  prices of {prices.date}: {prices.what}"
    short = f"{connection.window:g} s:"
    heading = ("array", "chunk", "requests", "bytes", "time", prices.currency)
    rows = [(*heading, f"{short} requests", "bytes", "time")]
    for cost in report.costs[:MOST_COSTS]:
        whole, window = cost.whole, cost.window
        parts = (
            _plain(cost.path), readable_size(cost.chunk_bytes), f"{whole.requests:,}",
            readable_size(whole.nbytes), _seconds(whole.seconds), f"{whole.money:.4f}",
        )  # fmt: skip
        cells = ("", "", "")
        if window is not None:
            cells = (f"{window.requests:,}", readable_size(window.nbytes), _seconds(window.seconds))
        rows.append((*parts, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = [row[0].ljust(widths[0])]
        line += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield f"  {'  '.join(line)}".rstrip()
    more = report.costs[MOST_COSTS:]
    every = [each.whole for each in report.costs]
    total = connection.cost(sum(each.requests for each in every), sum(each.nbytes for each in every))
    yield (
        f"  {f'and {len(more):,} more; ' if more else ''}all: {counted(total.requests, 'request')}, "
        f"{readable_size(total.nbytes)}, {_seconds(total.seconds)}, {total.money:.4f} {prices.currency}"
    )


def _seconds(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _summary(report: Report) -> str:
    every = (*report.findings, *(report.inspected or ()))
    counts = [(each, sum(one.severity == each for one in every)) for each in SEVERITIES]
    found = ", ".join(counted(count, severity) for severity, count in counts if count) or "nothing found"
    return f"{found}; {counted(report.requests, 'request')}, {readable_size(report.received)} received"


def _plain(value: str) -> str:
    return printable_line(value, _WIDEST)
