"""A catalog of sessions as text, as HTML, and as a plain Intake catalog."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Final

import pyarrow as pa

from intake_nwbzarr.catalog.entries import masked_options, saved_entry
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.sessions.search import Columns, Selection
from intake_nwbzarr.sessions.selected import Selected
from intake_nwbzarr.sessions.tables.storages import Storages
from intake_nwbzarr.transport.request_log import counted

_FIRST: Final = 5
_MOST_SPECIES: Final = 5
_SHOWN: Final = ("location", "subject_id", "taxon", "session_id")
_ENDINGS: Final = re.compile(r"(\.nwb)?(\.zarr)?(\.zip)?$")


def text_overview(columns: Columns, selection: Selection, storages: Storages) -> str:
    """Return the numbers of sessions, species, errors and found objects, and the first sessions."""
    facts = [f"  {name:10} {text}" for name, text in _facts(columns, selection, storages)]
    lines, first = [_title(columns, selection), *facts], _first(columns, selection)
    lines += ["  " + "  ".join(text or "-" for text in row) for row in first]
    if len(selection.rows) > len(first):
        lines.append("  ...")
    return "\n".join(map(shown, lines))


def shown(text: str) -> str:
    """Return a text from a table for a terminal, with control characters as Python writes them."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def html_overview(columns: Columns, selection: Selection, storages: Storages) -> str:
    """Return the same as `text_overview` as HTML."""
    left = "style='text-align: left'"
    facts = "".join(
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(text)}</td></tr>"
        for name, text in _facts(columns, selection, storages)
    )
    head = "".join(f"<th>{name}</th>" for name in _SHOWN)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
        for row in _first(columns, selection)
    )
    return (
        f"<div><strong>{escape(_title(columns, selection))}</strong><table>{facts}</table>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _title(columns: Columns, selection: Selection) -> str:
    found, known = len(selection.rows), len(columns.everything)
    of = "" if found == known else f"{found:,} of "
    return f"<SessionCatalog {columns.tables.place}: {of}{counted(known, 'session')}>"


def _facts(columns: Columns, selection: Selection, storages: Storages) -> Iterator[tuple[str, str]]:
    rows = pa.array(selection.rows)
    names = ["taxon", "species", "error", "storage"]
    taxon, species, error, storage = (
        column.take(rows).to_pylist() for column in columns.get("sessions", names)
    )
    counts = Counter(
        first or second for first, second in zip(taxon, species, strict=True) if first or second
    ).most_common()
    if counts:
        more = f", and {len(counts) - _MOST_SPECIES} more" if len(counts) > _MOST_SPECIES else ""
        yield "species", ", ".join(f"{name} {count:,}" for name, count in counts[:_MOST_SPECIES]) + more
    if failed := sum(text is not None for text in error):
        yield "errors", f"{failed:,} could not be scanned: search(error='*')"
    for each in selection.found:
        yield each.name, f"{counted(len(each.objects), 'object')}  {each.find!r}"
    for name in storages.missing(storage):
        count = counted(storage.count(name), "session")
        yield "storage", f"{count} of {name!r}, for which storage_options has no entry"


def _first(columns: Columns, selection: Selection) -> list[tuple[str, ...]]:
    rows = pa.array(selection.rows[:_FIRST])
    values = [column.take(rows).to_pylist() for column in columns.get("sessions", _SHOWN)]
    return [tuple(text or "" for text in row) for row in zip(*values, strict=True)]


def plain_catalog(columns: Columns, selection: Selection, sessions: Iterable[Selected]) -> str:
    """Return a selection as the YAML of an Intake catalog, with an entry of the driver nwbzarr each."""
    import yaml  # type: ignore[import-untyped]

    names = ["asset_path", "session_description"]
    rows = pa.array(selection.rows)
    about = zip(*(column.take(rows).to_pylist() for column in columns.get("sessions", names)), strict=True)
    sources: dict[str, Any] = {}
    for selected, (asset, description) in zip(sessions, about, strict=True):
        if selected.refused is not None:
            raise selected.refused
        arguments: dict[str, Any] = {"urlpath": str(selected.location)}
        if options := masked_options(selected.location.public):
            arguments["storage_options"] = options
        if paths := sorted({path for found in selected.paths.values() for path in found}):
            arguments["group"] = paths[0] if len(paths) == 1 else paths
        labels = {name: value for name, value in selected.labels.items() if value is not None}
        entry = saved_entry(NWBZarrSource.name, description, labels, arguments)
        sources[_entry_name(asset or selected.key, sources)] = entry
    text: str = yaml.safe_dump({"sources": sources}, sort_keys=False, allow_unicode=True)
    return text


def _entry_name(text: str, taken: Iterable[str]) -> str:
    """Return a name for a session as an attribute of a catalog."""
    stem = _ENDINGS.sub("", text.rstrip("/").rpartition("/")[2]) or "session"
    name = re.sub(r"\W", "_", stem)
    name = f"session_{name}" if name[0].isdigit() else name
    known = set(taken)
    number = 2
    unique = name
    while unique in known:
        unique, number = f"{name}_{number}", number + 1
    return unique
