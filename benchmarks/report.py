"""The report of a run: the table of targets, every measurement, JSON, and the machine they are from."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from math import isnan
from pathlib import Path

from benchmarks.measure import Result
from benchmarks.targets import Measured, Target, targets

LIBRARIES = (
    *("hdmf-zarr", "pynwb", "zarr", "xarray", "dask", "numcodecs", "numpy"),
    *("fsspec", "s3fs", "aiohttp"),
)
BEGIN, END = "<!-- begin: what the run measured -->", "<!-- end: what the run measured -->"


def machine(server: str) -> dict[str, str]:
    """When and where a run was started: date, processor, what served, and versions."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "machine": f"{os.cpu_count()} cores, {model}, {platform.system()}",
        "server": server,
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)]
        ),
    }


def overview(measured: Measured, about: Mapping[str, str]) -> str:
    """When and where, how many targets are met, and each of them."""
    found = targets(measured)
    met = sum(target.verdict == "met" for target in found)
    missed = Counter(target.row for target in found if target.verdict != "met")
    rest = ", ".join(f"{count} in row {row}" for row, count in missed.items())
    head = ("row", "what", "measured", "target", "")
    rows = [row for _, group in groupby(found, lambda target: target.row) for row in _group(group)]
    parts = [
        *(f"- {name}: {value}" for name, value in about.items()),
        f"- targets: {met} of {len(found)} met" + (f"; missed or not measured: {rest}" if rest else ""),
        "",
        *_table(head, rows),
    ]
    return "\n".join(parts) + "\n"


def markdown(measured: Measured, about: Mapping[str, str]) -> str:
    """The overview, and a table of each measurement."""
    parts = [overview(measured, about), "### Measurements"]
    for name, results in measured.items():
        if results:
            parts += ["", f"**{name}**", "", *_results(list(results.values()))]
    return "\n".join(parts) + "\n"


def to_json(measured: Measured, about: Mapping[str, str]) -> str:
    """Everything, for other programs."""
    document = {
        "about": dict(about),
        "targets": [
            {
                "row": target.row,
                "what": target.what,
                "measured": None if isnan(target.value) else target.value,
                "target": target.bound,
                "at_least": target.at_least,
                "unit": target.unit,
                "met": None if isnan(target.value) else target.met,
            }
            for target in targets(measured)
        ],
        "measurements": {
            name: {key: result.document() for key, result in results.items()}
            for name, results in measured.items()
        },
    }
    return json.dumps(document, indent=1)


def publish(page: Path, text: str) -> None:
    """Put a report between the two marks of a page.

    Raises
    ------
    ValueError
        When the page does not have both.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for a report, which is between {BEGIN} and {END}.")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _group(group: Iterable[Target]) -> Iterator[Sequence[str]]:
    """The targets of one row of the table, which is named once."""
    for place, target in enumerate(group):
        yield (target.row if place == 0 else "", *_target(target))


def _target(target: Target) -> Sequence[str]:
    sign = "≥" if target.at_least else "≤"
    space = " " if target.unit.isalpha() else ""
    middle = "" if isnan(target.middle) else f" (median {_number(target.middle)}{space}{target.unit})"
    return (
        target.what,
        f"{_number(target.value)}{space}{target.unit}{middle}",
        f"{sign} {_number(target.bound)}{space}{target.unit}",
        target.verdict,
    )


def _results(results: Sequence[Result]) -> list[str]:
    head = ["", "time", "requests", "round trips", "404", "received", "processor", "memory", "runs"]
    rows = [_result(result) for result in results]
    if any(_needed(result) for result in results):
        place = head.index("received") + 1
        head.insert(place, "needed")
        for row, result in zip(rows, results, strict=True):
            row.insert(place, f"{_number(_needed(result) / 1e6)} MB")
    return _table(head, rows)


def _result(result: Result) -> list[str]:
    if result.error or not result.runs:
        return [result.name, f"fails: {_plain(result.error)}", *[""] * 7]
    return [
        result.name,
        f"{_number(result.middle('seconds'))} s",
        _number(result.middle("requests")),
        _number(result.middle("round_trips")),
        _number(result.middle("not_found")),
        f"{_number(result.middle('received') / 1e6)} MB",
        f"{_number(result.middle('cpu'))} s",
        f"{_number(result.middle('memory') / 1e6)} MB",
        str(len(result.runs)),
    ]


def _needed(result: Result) -> float:
    """Bytes of the chunks that were read, where that was looked up."""
    return float(result.runs[0].facts.get("needed", 0)) if result.runs else 0.0


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, tuple("---" for _ in head), *rows)]


def _number(value: float) -> str:
    """Three digits, or all of an integer's."""
    if isnan(value):
        return "-"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _plain(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:120]


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []
