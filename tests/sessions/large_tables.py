"""Tables of as many sessions as one likes, as a scan would write them, in a second or two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.tables.table_schema import SCHEMAS, Kind
from intake_nwbzarr.sessions.tables.tables import Tables

SPECIES = {
    "Mus musculus": "Mus musculus",
    "mouse": "Mus musculus",
    "House mouse": "Mus musculus",
    "Rattus norvegicus": "Rattus norvegicus",
    "Homo sapiens": "Homo sapiens",
}
# Paths in a session, with their types.
OBJECTS: list[tuple[str, list[str]]] = [
    ("units", ["Units", "DynamicTable", "Container"]),
    ("intervals/trials", ["TimeIntervals", "DynamicTable", "Container"]),
    ("general/extracellular_ephys/electrodes", ["ElectrodesTable", "DynamicTable", "Container"]),
    ("processing/behavior/running_speed", ["TimeSeries", "NWBDataInterface", "NWBContainer", "Container"]),
    *(
        (
            f"acquisition/ElectricalSeries{number}",
            ["ElectricalSeries", "TimeSeries", "NWBDataInterface", "NWBContainer", "Container"],
        )
        for number in range(16)
    ),
]


def write_large_tables(place: Path, sessions: int = 100_000, objects: int = 20, first: str = "") -> Tables:
    """Write tables of that many sessions, with that many objects each; the first, of a mouse, may be real."""
    random = np.random.default_rng(0)
    locations = [f"s3://dandiarchive/zarr/{number:032x}" for number in range(sessions)]
    if first:
        locations[0] = first
    species = list(SPECIES)
    number = random.integers(0, len(species), sessions)
    number[0] = 0
    number[0] = 0
    of_sessions = {
        "location": pa.array(locations),
        "identifier": pa.array([f"session-{each}" for each in range(sessions)]),
        "session_id": pa.array([f"{each}" for each in range(sessions)]),
        "subject_id": pa.array([f"sub-{each}" for each in random.integers(0, sessions // 10 + 1, sessions)]),
        "species": pa.array(species).take(pa.array(number)),
        "taxon": pa.array(list(SPECIES.values())).take(pa.array(number)),
        "age_days": pa.array(random.uniform(30, 200, sessions)),
        "object_count": pa.array(np.full(sessions, objects)),
        "unit_count": pa.array(random.integers(0, 500, sessions)),
        "nbytes": pa.array(random.integers(10**6, 10**10, sessions)),
        "etag": pa.array([f'"{each:032x}"' for each in range(sessions)]),
    }
    chosen = [OBJECTS[each % len(OBJECTS)] for each in range(objects)]
    kinds = np.tile(np.arange(objects), sessions)
    units = [
        "cm/s" if path.endswith("speed") else None if "series" not in path.lower() else "volts"
        for path, _ in chosen
    ]
    rates = [30000.0 if unit == "volts" else 60.0 if unit else None for unit in units]
    codes = pa.array(kinds)
    paths = pa.array([path for path, _ in chosen])
    of_objects = {
        "location": pa.array(locations).take(pa.array(np.repeat(np.arange(sessions), objects))),
        "path": paths.take(codes),
        "name": pa.array([path.rpartition("/")[2] for path, _ in chosen]).take(codes),
        "type": pa.array([types[0] for _, types in chosen]).take(codes),
        "types": pa.array([types for _, types in chosen]).take(codes),
        "unit": pa.array(units, pa.string()).take(codes),
        "rate": pa.array(rates, pa.float64()).take(codes),
        "nbytes": pa.array(random.integers(0, 10**9, sessions * objects)),
    }
    tables = Tables(locate(place))
    tables.write("all", "s3://dandiarchive", _whole("sessions", of_sessions), _whole("objects", of_objects))
    return tables


def _whole(kind: Kind, columns: dict[str, Any]) -> pa.Table:
    length = len(columns["location"])
    filled = [columns.get(field.name, pa.nulls(length, field.type)) for field in SCHEMAS[kind]]
    return pa.table(filled, schema=SCHEMAS[kind])


if __name__ == "__main__":
    write_large_tables(Path(sys.argv[1]), *map(int, sys.argv[2:4]), *sys.argv[4:5])
