"""How tables that were scanned are opened, in a line of Python for whoever has scanned them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from intake_nwbzarr.location.location import Location
from intake_nwbzarr.sessions.harvest import FoundSession


def local_prefix(tables: Location, place: Location, found: Sequence[FoundSession]) -> Path | None:
    """Return the local folder whose sessions a table may not name by itself, None if there is none."""
    folder = tables.path
    if folder is not None and folder.suffix == ".parquet":
        folder = folder.parent
    if place.path is None:
        return None
    if place.path.is_file() and place.path.suffix == ".txt":
        above = [each.location.path.parent for each in found if each.location.path is not None]
        if not above:
            return None
        prefix = Path(os.path.commonpath(above))
    else:
        prefix = place.path
    inside = folder is not None and prefix.resolve().is_relative_to(folder.resolve())
    return None if inside else prefix


def how_to_open(tables: Location, prefixes: Sequence[Path], storage: str | None, *, options: bool) -> str:
    """Return the call that opens tables, with those storage options that it needs.

    Parameters
    ----------
    tables
        Their location.
    prefixes
        Local folders of sessions outside the tables' own.
    storage
        Name of the options with which sessions on servers are opened, None for none.
    options
        Whether the tables themselves are opened with options.
    """
    entries = [] if storage is None else [f"{storage!r}: {{...}}"]
    if prefixes:
        paths = list(dict.fromkeys(map(str, prefixes)))
        given = paths[0] if len(paths) == 1 else paths
        entries.append(f"{'local' if storage != 'local' else 'files'!r}: {{'prefix': {given!r}}}")
    arguments = [repr(str(tables.path or tables.url))]
    arguments += [f"storage_options={{{', '.join(entries)}}}"] if entries else []
    arguments += ["table_options={...}"] if options and tables.path is None else []
    return f"intake.open_nwbzarr_sessions({', '.join(arguments)})"
