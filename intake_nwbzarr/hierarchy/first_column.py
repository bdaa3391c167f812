"""Chunk names of a one-dimensional array that Zarr 2 stored with a second dimension of a single chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from zarr.registry import register_chunk_key_encoding

from intake_nwbzarr.zarr_internals import ChunkKeyEncoding

FIRST_COLUMN: Final = "nwbzarr.first_column"


@dataclass(frozen=True)
class FirstColumnKeys(ChunkKeyEncoding):
    """The chunk key encoding ``nwbzarr.first_column``: the chunk *i* is stored as ``i.0``.

    Parameters
    ----------
    separator
        ``"."`` or ``"/"``, as in the ``.zarray``.
    """

    name: ClassVar[str] = FIRST_COLUMN
    separator: str = "."

    def encode_chunk_key(self, chunk_coords: tuple[int, ...]) -> str:
        """The name of a chunk."""
        return self.separator.join(map(str, (*chunk_coords, 0)))


register_chunk_key_encoding(FIRST_COLUMN, FirstColumnKeys)
