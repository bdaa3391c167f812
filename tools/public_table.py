"""Write the table of public sessions that comes with the package, from what this repository knows of them.

Run it from the root of a checkout, with the package installed::

    uv run tools/public_table.py

It needs no internet access: `tests/data/*.layout.tsv` list the arrays of the two sessions with their chunks,
the replicas that the tests read have objects of the same types at the same paths, and catalogs/dandi.yaml has
the subject. All other columns are null, and named in the column `not_read`. With internet access, a scan
makes a complete table in its place::

    nwbzarr catalog dandi 000719 -o intake_nwbzarr/catalog/public/public.parquet
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from intake_nwbzarr.catalog.public_sessions import PUBLIC
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.scan.harvest import FoundSession, harvest
from intake_nwbzarr.sessions.tables.table_schema import SESSIONS, table_of
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.replica import ECEPHYS, IMAGING, Stored, layout, write_replicas

# Layouts, and what is known of the sessions otherwise.
KNOWN: Mapping[str, tuple[str, dict[str, Any]]] = {
    IMAGING: ("dandi-000719-ophys", {"dandiset": "000719", "subject_id": "R6", "roi_count": 2799}),
    ECEPHYS: ("dandi-ecephys", {}),
}
# Of an object of a replica, what is also true of the one in the archive.
SHARED = ("path", "name", "type", "namespace", "types")
# Columns that are not about a session's contents.
NO_FACTS = frozenset(
    {"version", "asset_path", "asset_id", "title", "not_read", "requests", "scanned", "source", "snapshot"}
    | {"error", "error_type", "transient", "zip_etag", "requests_for_all", "stale"}
)


def main() -> None:
    """Write the two files."""
    sessions, objects = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_replicas(Path(folder))
        for place, (name, known) in KNOWN.items():
            location = f"s3://dandiarchive/{place}"
            rows = object_rows(location, Path(folder, place), layout(name))
            sessions.append(session_row(location, len(rows), known))
            objects += rows
    tables = Tables(locate(PUBLIC / "public.parquet"))
    tables.write("", "https://dandiarchive.org", table_of("sessions", sessions), table_of("objects", objects))
    print(f"{tables.place}: {len(sessions)} sessions, {len(objects)} objects")


def session_row(location: str, object_count: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a session."""
    row = {
        "location": location,
        "storage": "dandi",
        "zarr_format": 2,
        "consolidated": True,
        "object_count": object_count,
        **known,
    }
    return row | {"not_read": [name for name in SESSIONS.names if name not in row.keys() | NO_FACTS]}


def object_rows(location: str, replica: Path, arrays: Mapping[str, Stored]) -> list[dict[str, Any]]:
    """Return the rows of the objects that have arrays in the session, or contain objects that have."""
    _, found = harvest(FoundSession(locate(replica)))
    above = {
        array: [path for path in map(_path, found) if f"{array}/".startswith(f"{path}/")] for array in arrays
    }
    owners = {array: max(paths, key=len, default="") for array, paths in above.items()}
    kept = {path for paths in above.values() for path in paths}
    return [
        {
            "location": location,
            **{name: row[name] for name in SHARED},
            "chunks": sum(stored.chunks for array, stored in arrays.items() if owners[array] == row["path"]),
        }
        for row in sorted(found, key=_path)
        if row["path"] in kept
    ]


def _path(row: Mapping[str, Any]) -> str:
    return str(row["path"])


if __name__ == "__main__":
    main()
