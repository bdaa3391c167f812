"""The HTML of a Dataset's session, for notebooks and pages: who, what and when, and its neurodata objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, Final

import xarray as xr

from intake_nwbzarr.accessor.contents import shown_objects
from intake_nwbzarr.accessor.describe import object_row
from intake_nwbzarr.accessor.times import indexed_times
from intake_nwbzarr.untrusted_input import printable_line

MOST_ALIKE: Final = 3
"""Objects of one kind in a group that are listed each; of more, one row tells their number."""

MOST_ROWS: Final = 400
"""Rows of the table of objects; of more, the others are counted."""

MOST_FACTS: Final = 60
"""Facts of a session that are listed; of more, the others are counted."""

LONGEST: Final = 300
"""Characters of a text that are shown."""

# Attributes of a Dataset that lead back to its session, or say which objects it has.
_MADE: Final = frozenset(
    {"nwb_location", "nwb_storage_options", "nwb_group", "nwb_unmapped", "neurodata_type", "nwb_path"}
)

# Facts in the order in which people ask for them: by name, and how they are called.
_WHO_AND_WHEN: Final = (
    ("session_start_time", "Start"),
    ("experimenter", "Experimenter"),
    ("lab", "Lab"),
    ("institution", "Institution"),
    ("session_id", "Session"),
    ("identifier", "Identifier"),
    ("nwb_version", "NWB version"),
)
_SUBJECT: Final = (
    ("subject_id", "Subject"),
    ("subject_species", "Species"),
    ("subject_sex", "Sex"),
    ("subject_age", "Age"),
    ("subject_date_of_birth", "Date of birth"),
    ("subject_genotype", "Genotype"),
    ("subject_strain", "Strain"),
    ("subject_weight", "Weight"),
)
# What dimensions are called after the names of their objects.
_AXES: Final = frozenset(
    {"time", "x", "y", "z", "color", "channel", "roi", "axis", "frame", "sample", "event", "feature", "band"}
)
_TITLE: Final = "session_description"

STYLE: Final = """
.nwbzarr { --line: color-mix(in srgb, currentColor 22%, transparent);
  --soft: color-mix(in srgb, currentColor 68%, transparent);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  color: inherit; overflow-wrap: anywhere; }
.nwbzarr h1 { font-size: 1.5em; line-height: 1.25; margin: 0 0 .25em; }
.nwbzarr h2 { font-size: 1.15em; margin: 1.6em 0 .5em; }
.nwbzarr .where { color: var(--soft); margin: 0 0 1em; font-size: .9em; }
.nwbzarr dl { display: grid; gap: .6em 1.5em; margin: 0 0 1em;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, clamp(9.5em, 30vw, 15em)), 1fr)); }
.nwbzarr dl div { min-width: 0; }
.nwbzarr dt { color: var(--soft); font-size: .85em; font-weight: 400; }
.nwbzarr dd { margin: 0; }
.nwbzarr .scroll { overflow-x: auto; max-width: 100%; }
.nwbzarr table { border-collapse: collapse; font-size: .9em; width: 100%; color: inherit; }
.nwbzarr th, .nwbzarr td { text-align: left; vertical-align: top; padding: .3em 1em .3em 0;
  border-top: 1px solid var(--line); overflow-wrap: break-word; max-width: 22em; background: none; }
.nwbzarr thead th { border-top: 0; color: var(--soft); font-weight: 400; }
.nwbzarr tbody th { font-weight: 600; padding-top: .8em; }
.nwbzarr td.brief { white-space: nowrap; }
.nwbzarr td.long { min-width: 16em; color: var(--soft); }
.nwbzarr summary { cursor: pointer; }
.nwbzarr summary h2 { display: inline-block; margin: .8em 0 .5em; }
.nwbzarr :focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
"""
"""Style of everything of the class ``nwbzarr``, in the colours around it."""

# In notebooks, narrower and without what only a page needs.
_NOTEBOOK: Final = ".nwbzarr.notebook { font-size: 13px; } .nwbzarr.notebook h1 { font-size: 1.15em; }"


def dataset_html(dataset: xr.Dataset) -> str:
    """Return the session and the objects of a Dataset, for a notebook; nothing is read."""
    return (
        f'<div class="nwbzarr notebook"><style>{STYLE}{_NOTEBOOK}</style>'
        f"{header_html(dataset)}{objects_html(dataset)}</div>"
    )


def header_html(dataset: xr.Dataset, more: Mapping[str, Any] | None = None, level: int = 1) -> str:
    """Return who, what and when: title, location, and facts, the last ones in a part that opens.

    Parameters
    ----------
    dataset
        Whose attributes are shown.
    more
        Facts to add to these, such as the format.
    level
        Of the heading of the title.
    """
    facts = {str(name): value for name, value in dataset.attrs.items() if _is_fact(str(name))}
    group = dataset.attrs.get("nwb_group")
    title = plain(facts.pop(_TITLE, None)) or plain(group) or "NWB session"
    first = [*_taken(facts, _WHO_AND_WHEN), *_taken(facts, _SUBJECT)]
    first += [(name, plain(value)) for name, value in (more or {}).items()]
    rest = list(_taken(facts, [(name, _called(name)) for name in facts]))
    where = plain(dataset.attrs.get("nwb_location")) or "no session (attribute nwb_location is missing)"
    if group is not None:
        where += f", group {plain(group)!r}"
    details = ""
    if rest:
        left = len(rest) - MOST_FACTS
        rest = [*rest[:MOST_FACTS], *([("more", f"{left:,} others")] if left > 0 else [])]
        details = f"<details><summary>More about the session</summary>{_list(rest)}</details>"
    return (
        f'<header><h{level}>{escape(title)}</h{level}><p class="where">{escape(where)}</p>'
        f"{_list(first)}{details}</header>"
    )


def _called(name: str) -> str:
    """Return what an attribute is called among facts: ``Experiment description``."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def brief_facts(dataset: xr.Dataset) -> dict[str, str]:
    """Return when a session was and whose, in a few words."""
    names = {"session_start_time": "Start", "subject_id": "Subject", "subject_species": "Species"}
    facts = {name: dataset.attrs.get(name) for name in names}
    return dict(_taken(facts, [*names.items()]))


def _is_fact(name: str) -> bool:
    # Attributes of objects begin with their paths, with dots for slashes.
    return name not in _MADE and "." not in name


def _taken(facts: dict[str, Any], names: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Take facts of some names, and yield how they are called, and what they say."""
    for name, called in names:
        text = plain(facts.pop(name, None))
        if name.endswith(("_time", "_date", "date_of_birth")):
            text = _readable_time(text)
        if text:
            yield called, text


def _readable_time(text: str) -> str:
    """Return an ISO time as people write it: ``2020-02-06 21:00:00 -08:00``."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    if time.time() == time.time().min and "T00:00" in text:
        return time.date().isoformat()
    zone = time.isoformat(" ", "seconds").removeprefix(time.replace(tzinfo=None).isoformat(" ", "seconds"))
    return f"{time.replace(tzinfo=None).isoformat(' ', 'seconds')} {zone or '(no time zone)'}"


def _list(facts: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f"<dl>{items}</dl>" if items else ""


@dataclass(frozen=True)
class Listed:
    """An object as the table of objects shows it."""

    path: str
    row: Mapping[str, Any]

    @property
    def parent(self) -> str:
        """Return the path of the group that it is in."""
        return self.path.rpartition("/")[0]

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what objects that are alike have in common."""
        row = self.row
        return (
            row["type"], len(row["dims"]), str(row.get("dtype")), str(row.get("units")), row.get("rate"),
        )  # fmt: skip


def objects_html(dataset: xr.Dataset) -> str:
    """Return the table of a Dataset's objects, by the group that they are in; those alike in one row."""
    times = {time.dim: time for time in indexed_times(dataset)}
    shown = [Listed(each.path, object_row(dataset, each, times)) for each in shown_objects(dataset)]
    if not shown:
        return "<p>no neurodata objects in this Dataset itself</p>"
    groups: dict[str, list[Listed]] = {}
    for each in shown:
        groups.setdefault(each.parent, []).append(each)
    bodies, rows = [], 0
    for parent, members in groups.items():
        lines = [_row(alike) for alike in _alike(members)][: max(MOST_ROWS - rows, 0)]
        rows += len(lines)
        if lines:
            heading = f'<tr><th colspan="6" scope="rowgroup">{escape(cut(parent) or "/")}</th></tr>'
            bodies.append(f"<tbody>{heading}{''.join(lines)}</tbody>")
    total = sum(len([*_alike(members)]) for members in groups.values())
    more = (
        f"<p>and {total - rows:,} more rows; ds.nwb.describe() lists all objects</p>" if total > rows else ""
    )
    headings = "".join(
        f'<th scope="col">{each}</th>'
        for each in ("name", "type", "dimensions", "time", "unit", "description")
    )
    return (
        f"<details open><summary><h2>{len(shown):,} neurodata object{'' if len(shown) == 1 else 's'}</h2>"
        '</summary><div class="scroll" tabindex="0" role="region" aria-label="Neurodata objects">'
        f"<table><thead><tr>{headings}</tr></thead>{''.join(bodies)}</table></div>{more}</details>"
    )


def _alike(members: Sequence[Listed]) -> Iterator[list[Listed]]:
    """Yield objects one by one, or in a list those of one kind of which there are many."""
    kinds: dict[object, list[Listed]] = {}
    for each in members:
        kinds.setdefault(each.kind, []).append(each)
    for alike in kinds.values():
        if len(alike) > MOST_ALIKE:
            yield alike
        else:
            yield from ([each] for each in alike)


def _row(alike: Sequence[Listed]) -> str:
    first, last = alike[0], alike[-1]
    own = str(first.row["name"])
    name = own if len(alike) == 1 else f"{own} … {last.row['name']} ({len(alike):,})"
    sizes = [_range([each.row["shape"][axis] for each in alike]) for axis in range(len(first.row["shape"]))]
    dims = ", ".join(
        f"{_short(str(dim), own)}: {size}" for dim, size in zip(first.row["dims"], sizes, strict=True)
    )
    cells = (
        ("", name),
        ("", str(first.row["type"])),
        ("brief", dims),
        ("brief", _time(alike)),
        ("", plain(first.row.get("units"))),
        ("long", plain(first.row.get("description"))),
    )
    return f"<tr>{''.join(f'<td{_class(kind)}>{escape(cut(text))}</td>' for kind, text in cells)}</tr>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _short(dim: str, name: str) -> str:
    """Return a dimension without the name of its object, which flat Datasets put before it."""
    if dim == name:
        return "row"
    last = dim.rpartition("_")[2]
    return last if last in _AXES else dim.removeprefix(f"{name}_")


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,}…{most:,}"


def _time(alike: Sequence[Listed]) -> str:
    row = alike[0].row
    if row.get("timestamps") is None:
        return ""
    duration = f", {row['duration']:,.6g} s" if "duration" in row and len(alike) == 1 else ""
    return f"{row['rate']:,.6g} Hz{duration}" if "rate" in row else f"timestamps{duration}"


def plain(value: Any) -> str:
    """Return a value of a file as one line of bounded length, empty for None."""
    if value is None:
        return ""
    text = "; ".join(map(str, value[:50])) if isinstance(value, list | tuple) else str(value)
    return cut(text)


def cut(text: str) -> str:
    """Return a text without control characters, and cut if it is long."""
    return printable_line(text, LONGEST)
