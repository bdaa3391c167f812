"""What `ds.nwb` shows of itself: where the session is and the objects of the Dataset, as text and as HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import xarray as xr

from intake_nwbzarr.accessor.contents.kinds import ShownObject, shown_objects
from intake_nwbzarr.accessor.contents.times import indexed_times
from intake_nwbzarr.accessor.tables.describe import object_row

_HEADINGS = ("name", "type", "dims", "time", "units")

# Of more objects than this, the first are listed and the others counted.
_MOST_OBJECTS = 24

# Longer names and lists of dimensions are cut.
_WIDEST = 60


def as_text(dataset: xr.Dataset) -> str:
    """A line for each object, reading nothing."""
    shown = shown_objects(dataset)
    cells = _cells(dataset, shown)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if cells else []
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([f"<ds.nwb{_where(dataset)}>", *_before(shown), *lines, *_after(shown)])


def as_html(dataset: xr.Dataset) -> str:
    """The same as a table for notebooks, in their own colours."""
    shown = shown_objects(dataset)
    left = "style='text-align: left'"
    heading = "".join(f"<th {left}>{each}</th>" for each in _HEADINGS)
    rows = "".join(
        "<tr>" + "".join(f"<td {left}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _cells(dataset, shown)
    )
    table = (
        f"<table style='color: inherit'><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else ""
    )
    before, after = ("".join(f"<div>{escape(line)}</div>" for line in _before(shown)), _after(shown))
    below = "".join(f"<div>{escape(line)}</div>" for line in after)
    return f"<div><div><b>ds.nwb</b>{escape(_where(dataset))}</div>{before}{table}{below}</div>"


def _where(dataset: xr.Dataset) -> str:
    if "nwb_location" not in dataset.attrs:
        return ": no session (attribute nwb_location is missing)"
    group = dataset.attrs.get("nwb_group")
    return f" of {dataset.attrs['nwb_location']}{'' if group is None else f', group {group!r}'}"


def _before(shown: Sequence[ShownObject]) -> list[str]:
    if not shown:
        return ["no neurodata objects in this Dataset itself"]
    if len(shown) <= _MOST_OBJECTS:
        return []
    kinds = Counter(each.neurodata_type or "DynamicTable" for each in shown)
    counted = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(8))
    return [f"{len(shown):,} objects: {counted}{', ...' if len(kinds) > 8 else ''}"]


def _after(shown: Sequence[ShownObject]) -> list[str]:
    more = len(shown) - _MOST_OBJECTS
    return [f"... and {more:,} more; ds.nwb.describe() lists all"] if more > 0 else []


def _cells(dataset: xr.Dataset, shown: Sequence[ShownObject]) -> list[tuple[str, ...]]:
    times = {time.dim: time for time in indexed_times(dataset)}
    rows = (object_row(dataset, each, times) for each in shown[:_MOST_OBJECTS])
    return [
        tuple(
            _cut(cell)
            for cell in (row["name"], row["type"], _dims(row), _time(row), str(row.get("units") or ""))
        )
        for row in rows
    ]


def _dims(row: dict[str, Any]) -> str:
    pairs = zip(row["dims"], row["shape"], strict=True)
    return f"({', '.join(f'{dim}: {size:,}' for dim, size in pairs)})"


def _time(row: dict[str, Any]) -> str:
    if "timestamps" not in row:
        return ""
    duration = f", {row['duration']:.6g} s" if "duration" in row else ""
    return (
        f"{row['rate']:.6g} Hz{duration}" if "rate" in row else f"{row['timestamps']:,} timestamps{duration}"
    )


def _cut(text: str) -> str:
    # Control characters, such as line breaks, would break the lines.
    plain = "".join(each if each.isprintable() else " " for each in text)
    return plain if len(plain) <= _WIDEST else f"{plain[: _WIDEST - 3]}..."
