"""The folder of a map's files: their names, how they are read, and what an earlier map has left there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from intake_nwbzarr.errors import NWBZarrError, OptionError
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.map.ended import Ended, decoded
from intake_nwbzarr.sessions.map.provenance import Provenance
from intake_nwbzarr.sessions.map.tasks import file_name
from intake_nwbzarr.untrusted_input import LARGEST_TABLE

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS: Final = "results"
PROVENANCE: Final = "provenance.json"
SESSIONS: Final = "sessions.parquet"
# Files that are read at once.
BATCH: Final = 1000


def results_place(folder: Location, name: str) -> Location:
    """Return the folder, in a user's folder, of the files of one map."""
    return replace(folder, url=f"{folder.url}/{name}")


def results_folder(place: Location) -> Location:
    """Return the folder of the results' own files."""
    return replace(place, url=f"{place.url}/{RESULTS}")


def checked_name(name: object) -> str:
    """Return a map's name, which is that of a folder."""
    import re

    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        return name
    shown = repr(name)[:60] if isinstance(name, str) else f"an object of type {type(name).__name__}"
    raise OptionError(
        f"name must be letters, digits, '.', '_' and '-', not {shown}.",
        found=shown,
        expected="a name such as 'tuning-1'",
        next_step="It names the results, and a folder for them.",
    )


def read(place: Location, name: str) -> bytes | None:
    """Read a file of a folder; None where it does not exist."""
    return read_many(place, [name])[0]


def read_many(place: Location, names: Sequence[str], end: int | None = None) -> list[bytes | None]:
    """Read files of a folder, or their last bytes; None for those that do not exist."""
    from intake_nwbzarr.transport.answers import Part
    from intake_nwbzarr.transport.loop import gather, run
    from intake_nwbzarr.transport.open import open_transport

    transport = open_transport(place)

    async def one(name: str) -> bytes | None:
        part = None if end is None else Part(suffix=end)
        found = await transport.fetch(name, part, LARGEST_TABLE)
        return None if found is None else bytes(found.data)

    return run(gather([partial(one, name) for name in names]))


def earlier_provenance(place: Location) -> Provenance | None:
    """Return the provenance that a folder of results has, None without one that can be read."""
    try:
        data = read(place, PROVENANCE)
        return None if data is None else Provenance.decode(data)
    except (NWBZarrError, ValueError, json.JSONDecodeError):
        return None


class EarlierResults:
    """The results that a folder has already, by their keys, with what is known of each."""

    def __init__(self, table: pa.Table | None = None, found: Mapping[str, int] | None = None) -> None:
        self._table = table
        keys = [] if table is None else table["key"].to_pylist()
        self._rows = {key: row for row, key in enumerate(keys)}
        # Rows of those that no table has noted.
        self._found = dict(found or {})

    @classmethod
    def of(cls, place: Location, *, is_noted: bool) -> Self:
        """List the results in a folder; what ``sessions.parquet`` does not say is read from their files.

        `is_noted` is whether the map that stored them last has ended, and could write that table.

        Raises
        ------
        LocationNotFoundError
            When the folder has none.
        """
        from intake_nwbzarr.transport.loop import run
        from intake_nwbzarr.transport.open import open_transport

        names = set(run(open_transport(results_folder(place)).list_folder("")).names)
        table = _noted(place, names) if is_noted else None
        noted = set() if table is None else {file_name(each) for each in table["session"].to_pylist()}
        others = sorted(name for name in names - noted if name.endswith(".parquet"))
        return cls(table, _found(results_folder(place), others))

    def __bool__(self) -> bool:
        return bool(self._rows or self._found)

    def take(self, key: str) -> Ended | None:
        """Return what is known of a result, None where there is none."""
        if key in self._rows and self._table is not None:
            return Ended(**self._table.slice(self._rows[key], 1).to_pylist()[0])
        return Ended("", key, "done", self._found[key]) if key in self._found else None


def _noted(place: Location, names: set[str]) -> pa.Table | None:
    """Return the rows of ``sessions.parquet`` whose results are there, None where it cannot be read."""
    import pyarrow as pa

    try:
        data = read(place, SESSIONS)
        if data is None:
            return None
        table = decoded(data)
        states, sessions = table["state"].to_pylist(), table["session"].to_pylist()
        there = [
            state == "done" and file_name(session) in names
            for state, session in zip(states, sessions, strict=True)
        ]
        return table.filter(pa.array(there, pa.bool_()))
    except (NWBZarrError, ValueError, TypeError):
        return None


def _found(folder: Location, names: Sequence[str]) -> dict[str, int]:
    """Return the keys of results, and how many rows each has, from the ends of their files."""
    from intake_nwbzarr.sessions.map.results import NOT_A_RESULT, summary

    found = {}
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        for data in read_many(folder, batch, _END):
            with suppress(*NOT_A_RESULT):
                key, rows = summary(data or b"")
                found[key] = rows
    return found


# Bytes at the end of a Parquet file, in which its metadata nearly always are.
_END: Final = 64 * 2**10
