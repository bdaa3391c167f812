"""Search tables of sessions: the rows that meet conditions, and the objects that a `Find` has found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intake_nwbzarr.arguments import invalid_argument
from intake_nwbzarr.errors import OptionError, SessionsWarning, did_you_mean, warn_caller
from intake_nwbzarr.sessions.conditions import (
    Both,
    Find,
    Mask,
    as_find,
    dictionary,
    exact_texts,
    from_text,
    indices,
    is_pattern,
    matches,
    no_range,
    plain,
    value_type,
)
from intake_nwbzarr.sessions.tables.normalize import common_names, sex_code, taxon
from intake_nwbzarr.sessions.tables.table_schema import Kind
from intake_nwbzarr.sessions.tables.tables import Tables
from intake_nwbzarr.transport.request_log import counted

type Rows = NDArray[np.int64]

# Conditions on these columns are met as well by the column beside them, which has the normalised text.
_NORMALISED: Final[Mapping[str, tuple[str, Callable[[str], str | None]]]] = {
    "species": ("taxon", taxon),
    "sex": ("sex_code", sex_code),
}
# Columns about the scan itself: whether they have a value is the question.
_OF_SCANS: Final = frozenset({"error", "error_type", "transient", "not_read"})
# What a column is named in the column not_read, which has the names of what is stored.
_READ_AS: Final = {"taxon": "species", "sex_code": "sex", "age_days": "age", "start": "start_text"}
# Requests for a session's share of the listing, which is not in the table; unneeded ones are not sent.
_LISTING: Final = 5
# How many distinct values a misspelled one is compared with, and how many are shown.
_MOST_COMPARED: Final = 5_000
_MOST_SHOWN: Final = 10


@dataclass(frozen=True)
class Found:
    """The objects that one `Find` has found."""

    # The name of the condition (`units=Find(...)`).
    name: str
    find: Find
    # Of each object, its row in the table objects, ascending, and the row of its session.
    objects: Rows
    sessions: Rows


@dataclass(frozen=True)
class Selection:
    """Rows of the table sessions, ascending, and the objects that were found in them."""

    rows: Rows
    found: tuple[Found, ...] = ()

    def within(self, mask: Mask) -> Selection:
        """Return the selection restricted to those rows of the table sessions where a mask is true."""
        rows = self.rows[mask[self.rows]]
        mask = _mask_of(rows, len(mask))
        return Selection(rows, tuple(_restricted(each, mask[each.sessions]) for each in self.found))

    def with_found(self, found: Sequence[Found], mask: Mask) -> Selection:
        """Return the selection with further found objects, restricted to a mask and to sessions with each."""
        for each in found:
            mask = mask & _mask_of(each.sessions, len(mask))
        return replace(self, found=(*self.found, *found)).within(mask)

    def with_only(self, chosen: Sequence[Found], mask: Mask) -> Selection:
        """Return the selection with chosen objects: of the same names, only those that were found before."""
        before = {each.name: each for each in self.found}
        narrowed = []
        for each in chosen:
            earlier = before.get(each.name)
            if earlier is not None:
                kept_objects = np.isin(each.objects, earlier.objects)
                each = replace(_restricted(each, kept_objects), find=earlier.find)
            narrowed.append(each)
        names = {each.name for each in narrowed}
        kept = tuple(each for each in self.found if each.name not in names)
        return replace(self, found=kept).with_found(narrowed, mask)


def _mask_of(rows: Rows, length: int) -> Mask:
    mask = np.zeros(length, np.bool_)
    mask[rows] = True
    return mask


def _restricted(found: Found, kept: Mask) -> Found:
    return replace(found, objects=found.objects[kept], sessions=found.sessions[kept])


class Columns:
    """The columns of opened tables, each read once, when a condition needs it."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._read: dict[tuple[Kind, str], pa.ChunkedArray] = {}

    def get(self, kind: Kind, names: Iterable[str]) -> list[pa.ChunkedArray]:
        """Return columns, after reading those together that were not read before."""
        wanted = list(names)
        missing = [name for name in dict.fromkeys(wanted) if (kind, name) not in self._read]
        if missing:
            table = self.tables.read(kind, missing)
            self._read |= {(kind, name): table[name] for name in missing}
        return [self._read[kind, name] for name in wanted]

    @cached_property
    def everything(self) -> Rows:
        """Return the rows of the table sessions; of a location that several parts have, the first."""
        if pc.count_distinct(self._locations).as_py() == len(self._locations):
            return np.arange(len(self._locations))
        rows = self.rows_of(self._locations)
        return np.flatnonzero(rows == np.arange(len(rows)))

    def rows_of(self, locations: pa.Array) -> Rows:
        """Return the row of the table sessions of each location, -1 where there is none."""
        rows = pc.index_in(pc.cast(locations, pa.string()), value_set=self._locations)
        return np.asarray(pc.fill_null(rows, -1).to_numpy(zero_copy_only=False), np.int64)

    @cached_property
    def session_of_object(self) -> Rows:
        """Return the row of the session of each object, -1 for an object of a session that is left out."""
        (column,) = self.get("objects", ["location"])
        chunks = [chunk.dictionary_encode() for chunk in column.chunks]
        known = self.rows_of(pa.chunked_array([chunk.dictionary for chunk in chunks], pa.string()))
        of_chunk = np.split(known, np.cumsum([len(chunk.dictionary) for chunk in chunks]))
        rows = [np.append(of, -1)[indices(chunk)] for of, chunk in zip(of_chunk, chunks, strict=False)]
        sessions = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        if len(self.everything) < len(self._locations):
            self._leave_out_repeated(sessions)
        return sessions

    @cached_property
    def _locations(self) -> pa.Array:
        return pc.cast(self.get("sessions", ["location"])[0], pa.string()).combine_chunks()

    def _leave_out_repeated(self, sessions: Rows) -> None:
        """Set the objects of the further parts of a location to -1."""
        others = np.setdiff1d(np.arange(len(self._locations)), self.everything)
        of_repeated = np.isin(sessions, self.rows_of(self._locations.take(pa.array(others))))
        objects = np.flatnonzero(of_repeated)
        paths = self.get("objects", ["path"])[0].take(pa.array(objects)).to_pylist()
        seen: set[tuple[int, str]] = set()
        for row, path in zip(objects, paths, strict=True):
            pair = int(sessions[row]), path
            if pair in seen:
                sessions[row] = -1
            seen.add(pair)


def search(
    columns: Columns,
    selection: Selection,
    conditions: Mapping[str, Any],
    *,
    rendered: bool = False,
    warn: bool = True,
) -> Selection:
    """Return the sessions of a selection that meet all conditions, and the objects of each `Find`.

    In conditions of a catalog file, which Intake has `rendered`, numbers may be texts. A search that finds
    nothing may `warn` of conditions that nothing in the tables meets.
    """
    of_sessions, finds = _sorted_conditions(selection, conditions)
    found = [_find(columns, name, find, rendered) for name, find in finds.items()]
    if "error" not in of_sessions:
        of_sessions = {**of_sessions, "error": None}
    mask = _conditions_mask(columns, "sessions", of_sessions, rendered)
    result = selection.with_found(found, mask)
    if warn and not len(result.rows) and len(columns.everything):
        _warn_of_unmet(columns, of_sessions, found)
    return result


def _sorted_conditions(
    selection: Selection, conditions: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Find]]:
    """Return the conditions on sessions, and those on objects."""
    finds: dict[str, Find] = {}
    of_sessions: dict[str, Any] = {}
    for name, condition in conditions.items():
        find = as_find(condition)
        if find is None:
            of_sessions[name] = condition
            continue
        if any(each.name == name for each in selection.found):
            raise OptionError(
                f"An earlier search has found objects named {name!r}.",
                found=name,
                next_step=f"Pass another name than {name}=, or put all conditions in the first Find.",
            )
        finds[name] = find
    return of_sessions, finds


def _find(columns: Columns, name: str, find: Find, rendered: bool) -> Found:
    """Return the objects of all sessions that meet a Find's conditions."""
    conditions = dict(find.conditions)
    if "type" in conditions:
        # Ancestors are found by inheritance.
        wanted = conditions.pop("type")
        _check_type(columns, wanted)
        also = conditions.pop("types", ...)
        conditions = {"types": wanted if also is ... else Both(wanted, also), **conditions}
    sessions = columns.session_of_object
    mask = _conditions_mask(columns, "objects", conditions, rendered) & (sessions >= 0)
    objects = np.flatnonzero(mask)
    return Found(name, find, objects, sessions[objects])


def _check_type(columns: Columns, wanted: Any) -> None:
    """Refuse a type that no object has, if it is probably the misspelled name of another."""
    if isinstance(wanted, tuple):
        raise no_range("type", wanted)
    texts = [wanted] if isinstance(wanted, str) else list(wanted) if isinstance(wanted, list | set) else []
    known = _known_types(columns)
    for text in texts:
        if not isinstance(text, str) or text in known or is_pattern(text):
            continue
        guess = did_you_mean(text, known)
        if guess is not None and not _is_core_type(text):
            raise OptionError(
                f"No object in {columns.tables.place} has the type {text!r}.",
                location=columns.tables.place,
                found=text,
                expected=sorted(known)[:50],
                next_step=guess,
            )


def _known_types(columns: Columns) -> set[str]:
    """Return the types of all objects, and those that they extend."""
    (types,) = columns.get("objects", ["types"])
    return {text for chunk in types.chunks for text in dictionary(chunk.values).to_pylist() if text}


def _is_type(columns: Columns, text: str) -> bool:
    return text in _known_types(columns) or _is_core_type(text)


def _is_core_type(text: str) -> bool:
    from intake_nwbzarr.mapping.schema import definition_of

    return definition_of(text) is not None


def _conditions_mask(columns: Columns, kind: Kind, conditions: Mapping[str, Any], rendered: bool) -> Mask:
    """Return which rows of a table meet conditions on its columns."""
    known = columns.tables.columns(kind)
    for name in conditions:
        if name not in known:
            raise _no_such_column(columns, kind, name, conditions[name])
    beside = {name: _NORMALISED[name][0] for name in conditions if kind == "sessions" and name in _NORMALISED}
    conditions = {name: plain(condition) for name, condition in conditions.items()}
    arrays = columns.get(kind, [*conditions, *beside.values()])
    of = dict(zip([*conditions, *beside.values()], arrays, strict=True))
    if rendered:
        conditions = {name: from_text(of[name].type, condition) for name, condition in conditions.items()}
    mask: Mask = np.ones(columns.tables.rows(kind), np.bool_)
    # Lists last, which take longest, and of those rows that are left.
    for name, condition in sorted(conditions.items(), key=lambda each: pa.types.is_list(of[each[0]].type)):
        if pa.types.is_list(of[name].type):
            mask[mask] = matches(_filtered(of[name], mask), condition, name)
        else:
            mask &= _met(columns, kind, name, condition)
    return mask


def _met(columns: Columns, kind: Kind, name: str, condition: Any) -> Mask:
    """Return which rows meet a condition on a column, or on the normalised column beside it."""
    met = matches(columns.get(kind, [name])[0], condition, name)
    if kind == "sessions" and name in _NORMALISED and condition is not None:
        beside, normalise = _NORMALISED[name]
        met |= matches(columns.get(kind, [beside])[0], _normalised(condition, normalise), beside)
    return met


def _filtered(column: pa.ChunkedArray, mask: Mask) -> pa.ChunkedArray:
    """Return the rows of a column where a mask is true, chunk by chunk: each has a dictionary of its own."""
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    parts = np.split(mask, ends[:-1]) if len(ends) else []
    chunks = [
        chunk if part.all() else chunk.filter(pa.array(part))
        for chunk, part in zip(column.chunks, parts, strict=True)
    ]
    return pa.chunked_array(chunks, column.type)


def _normalised(condition: Any, normalise: Callable[[str], str | None]) -> Any:
    """Return a condition on the normalised text: `mouse` becomes `Mus musculus`."""
    if isinstance(condition, str):
        return normalise(condition) or condition
    if isinstance(condition, list | set | frozenset):
        return [_normalised(each, normalise) for each in condition if each is not None]
    return condition


def _no_such_column(columns: Columns, kind: Kind, name: str, condition: Any) -> OptionError:
    known = columns.tables.columns(kind)
    others = columns.tables.columns("objects") if kind == "sessions" else []
    advice = did_you_mean(name, known) or f"Columns are {', '.join(known)}."
    if kind == "sessions" and isinstance(condition, str) and _is_type(columns, condition):
        advice = f"Did you mean {name}=Find({condition!r})?"
    elif name in others:
        advice = f"It is a column of the table objects: pass a Find, such as of=Find({name}=...)."
    return OptionError(
        f"The table {kind} of {columns.tables.place} has no column {name!r}.",
        location=columns.tables.place,
        found=name,
        expected=known,
        next_step=advice,
    )


def _warn_of_unmet(columns: Columns, of_sessions: Mapping[str, Any], found: Sequence[Found]) -> None:
    """Warn of conditions that no session or object of the tables meets, since a value may be misspelled."""
    every = np.ones(columns.tables.rows("sessions"), np.bool_)
    told = [
        _unmet(columns, "sessions", name, condition, every, "session")
        for name, condition in of_sessions.items()
        if name not in _OF_SCANS
    ]
    for each in found:
        if not len(each.objects):
            told += _unmet_of_find(columns, each.find)
    if texts := [text for text in told if text is not None]:
        warn_caller(f"The search found nothing in {columns.tables.place}. {' '.join(texts)}", SessionsWarning)


def _unmet_of_find(columns: Columns, find: Find) -> Iterator[str | None]:
    """Yield why a Find has found nothing: no object is of its type, or none of these meets a condition."""
    conditions = dict(find.conditions)
    wanted = conditions.pop("type", None)
    within, what = np.ones(columns.tables.rows("objects"), np.bool_), "object"
    if wanted is not None:
        within = _met(columns, "objects", "types", wanted)
        what = f"object of the type {wanted!r:.80}"
        if not within.any():
            yield f"There is no {what}."
            return
    for name, condition in conditions.items():
        yield _unmet(columns, "objects", name, condition, within, what)


def _unmet(columns: Columns, kind: Kind, name: str, condition: Any, within: Mask, what: str) -> str | None:
    """Return why nothing meets a condition by itself: no row has a value, or one of its exact texts."""
    condition = plain(condition)
    beside = [_NORMALISED[name][0]] if kind == "sessions" and name in _NORMALISED else []
    flat = [flattened(_filtered(column, within)) for column in columns.get(kind, [name, *beside])]
    if condition is None:
        return None
    if all(each.null_count == len(each) for each in flat):
        return f"No {what} has a value in the column {name!r}. {_not_read(columns, kind, name)}".strip()
    is_text = pa.types.is_string(value_type(flat[0].type))
    if not is_text or not exact_texts(condition) or (_met(columns, kind, name, condition) & within).any():
        return None
    values = set().union(*map(distinct_values, flat))
    also = [each for value in values for each in common_names(value)] if name == "species" else []
    return f"{no_such_value(what, name, condition, values, also)} {_not_read(columns, kind, name)}".strip()


def no_such_value(what: str, name: str, condition: Any, values: set[str], also: Sequence[str] = ()) -> str:
    """Return that no object or row has the texts of a condition, and which of the values may be meant."""
    texts = exact_texts(condition)
    given = repr(texts[0]) if isinstance(condition, str) else repr(texts)
    known = [*sorted(values), *also]
    guess = did_you_mean(texts[0], known) if len(known) <= _MOST_COMPARED else None
    shown = ", ".join(f"{each!r:.80}" for each in sorted(values)) if len(values) <= _MOST_SHOWN else None
    parts = (f"No {what} has {name}={given:.200}.", guess, shown and f"Values are {shown}.")
    return " ".join(part for part in parts if part)


def _not_read(columns: Columns, kind: Kind, name: str) -> str:
    """Return how to fill a column that scans have left out to stay within the requests per session."""
    if kind == "objects":
        return ""
    not_read, for_all = columns.get("sessions", ["not_read", "requests_for_all"])
    lacking = matches(not_read, _READ_AS.get(name, name), "not_read")
    if not lacking.any():
        return ""
    most = pc.max(_filtered(for_all, lacking)).as_py()
    how = "a larger requests=" if most is None else f"requests={most + _LISTING}"
    return f"It was not read for {counted(int(lacking.sum()), 'session')}: scan again with {how}."


def distinct(columns: Columns, selection: Selection, name: str) -> list[Any]:
    """Return the distinct values of a column in a selection, sorted."""
    if not isinstance(name, str):
        raise invalid_argument("column", name, "the name of a column")
    tables = columns.tables
    if name in tables.columns("sessions"):
        (column,) = columns.get("sessions", [name])
        rows = selection.rows
    elif name in tables.columns("objects"):
        (column,) = columns.get("objects", [name])
        found = [each.objects for each in selection.found]
        of_selection = np.isin(columns.session_of_object, selection.rows)
        rows = np.unique(np.concatenate(found)) if found else np.flatnonzero(of_selection)
    else:
        known = [*tables.columns("sessions"), *tables.columns("objects")]
        raise OptionError(
            f"The tables {tables.place} have no column {name!r}.",
            location=tables.place,
            found=name,
            expected=known,
            next_step=did_you_mean(name, known) or f"Columns are {', '.join(dict.fromkeys(known))}.",
        )
    values = column.take(pa.array(rows))
    try:
        return sorted(distinct_values(flattened(values)))
    except (pa.ArrowException, TypeError) as error:
        raise OptionError(
            f"The column {name} has values of the type {values.type}, which unique() does not compare.",
            path=name,
            found=str(values.type),
            next_step="See catalog.df, or catalog.objects.",
        ) from error


def flattened(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a column; of lists, their elements."""
    while pa.types.is_list(values.type):
        values = pc.list_flatten(values)
    return values


def distinct_values(flat: pa.ChunkedArray) -> set[Any]:
    """Return the distinct values of a column that has no lists, without null."""
    return {value for value in flat.unique().to_pylist() if value is not None}
