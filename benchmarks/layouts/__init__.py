"""Layouts of real assets, as plain facts: every array with its chunks, the bytes of them and the last key.

The tables were taken from listings of the DANDI Archive's public bucket; the first line names the asset.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

OPHYS = "dandi-000719-ophys-c8c6b848"
ICEPHYS = "dandi-000719-icephys-18e75d22"
ECEPHYS = "dandi-ecephys-ef6b21c6"


@dataclass(frozen=True)
class Stored:
    """An array of a real asset.

    Parameters
    ----------
    chunks
        How many are stored.
    chunk_bytes
        The median of their sizes, as stored.
    grid
        How many there are along each axis.
    """

    chunks: int
    chunk_bytes: int
    grid: tuple[int, ...]


def layout(name: str) -> dict[str, Stored]:
    """The arrays of a real asset, by path."""
    with (Path(__file__).parent / f"{name}.layout.tsv").open(newline="") as file:
        rows = csv.reader((line for line in file if not line.startswith("#")), delimiter="\t")
        return {path: Stored(int(chunks), int(median), _grid(last)) for path, chunks, _, median, last in rows}


def _grid(last_key: str) -> tuple[int, ...]:
    # Of an array without chunks there is no last one.
    return tuple(int(index) + 1 for index in last_key.replace("/", ".").split(".")) if last_key else ()
