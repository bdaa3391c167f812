"""The chunk key encoding of compound arrays that hdmf-zarr up to 0.11 stored with a second dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zarr.registry import register_chunk_key_encoding

from intake_nwbzarr.hierarchy.nodes import FIRST_COLUMN
from intake_nwbzarr.zarr_internals import ChunkKeyEncoding


@dataclass(frozen=True)
class FirstColumnKeys(ChunkKeyEncoding):
    """The chunk key encoding ``nwbzarr.first_column``: chunk *i* has the key ``i.0``."""

    name: ClassVar[str] = FIRST_COLUMN
    # The dimension_separator of the .zarray, "." or "/".
    separator: str = "."

    def encode_chunk_key(self, chunk_coords: tuple[int, ...]) -> str:
        """Return the key of a chunk."""
        return self.separator.join(map(str, (*chunk_coords, 0)))


register_chunk_key_encoding(FIRST_COLUMN, FirstColumnKeys)
