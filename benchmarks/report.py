"""The report of a run: the table of targets, every measurement, JSON, and the machine they are from."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from math import isnan
from pathlib import Path

from benchmarks.measure import Result
from benchmarks.targets import Measured, Target, targets

LIBRARIES = ("hdmf-zarr", "pynwb", "zarr", "xarray", "dask", "numcodecs", "s3fs", "aiohttp", "numpy")
BEGIN, END = "<!-- begin: what the run measured -->", "<!-- end: what the run measured -->"


def machine(server: str) -> dict[str, str]:
    """When and where: date, processor, versions, and what served."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {model}, {platform.system()}",
        "server": server,
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)]
        ),
    }


def markdown(measured: Measured, about: Mapping[str, str]) -> str:
    """The table of targets and one of each measurement."""
    found = targets(measured)
    met = sum(target.verdict == "met" for target in found)
    parts = [
        *(f"- {name}: {value}" for name, value in about.items()),
        f"- targets: {met} of {len(found)} met",
        "",
        "### Targets",
        "",
        *_table(("row", "what", "measured", "target", ""), map(_target, found)),
        "",
        "### Measurements",
    ]
    for name, results in measured.items():
        if results:
            parts += ["", f"**{name}**", "", *_results(results.values())]
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


def _target(target: Target) -> Sequence[str]:
    sign = "≥" if target.at_least else "≤"
    space = " " if target.unit.isalpha() else ""
    return (
        target.row,
        target.what,
        f"{_number(target.value)}{space}{target.unit}",
        f"{sign} {_number(target.bound)}{space}{target.unit}",
        target.verdict,
    )


def _results(results: Iterable[Result]) -> list[str]:
    return _table(
        ("", "time", "requests", "round trips", "404", "received", "processor", "memory", "runs"),
        map(_result, results),
    )


def _result(result: Result) -> Sequence[str]:
    if result.error or not result.runs:
        return (result.name, f"fails: {_plain(result.error)}", *[""] * 7)
    return (
        result.name,
        f"{_number(result.middle('seconds'))} s",
        _number(result.middle("requests")),
        _number(result.middle("round_trips")),
        _number(result.middle("not_found")),
        f"{_number(result.middle('received') / 1e6)} MB",
        f"{_number(result.middle('cpu'))} s",
        f"{_number(result.middle('memory') / 1e6)} MB",
        str(len(result.runs)),
    )


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
