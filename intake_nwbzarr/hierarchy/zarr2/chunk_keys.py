"""Chunk keys of compounds that hdmf-zarr up to 0.11 stored with a second axis: chunk `i` is ``i.0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zarr.registry import register_chunk_key_encoding

from intake_nwbzarr.hierarchy.nodes import FIRST_COLUMN
from intake_nwbzarr.zarr_internals import ChunkKeyEncoding


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
