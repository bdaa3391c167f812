"""Stored arrays: a file and a node, from which selections are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.gather import Place, Reading, copy, gather, read_table
from intake_nwbzarr.arrays.layout import Layout, PackedTable, field_dtype, layout
from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.errors import NWBZarrError
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.limits import limits
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.loop import on_loop, run
from intake_nwbzarr.transport.open import Opener, StoredFile

MOST_CARRIED: Final = 2**21
"""Bytes of a table of chunks that a pickle carries; about a million chunks have as many."""

TABLE_BYTES: Final = 2
"""Bytes of a table of chunks for each of them, about."""


class Readable(Protocol):
    """An array that is read by outer selections: stored, scaled, or computed from such arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the array's shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of values that are read."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the shape of parts that are best read at once."""

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read a selection."""

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read as `read` does, on any event loop."""

    def __dask_tokenize__(self) -> Hashable:
        """Return a token of the values, the same in every process."""


class Gatherable(Protocol):
    """A stored or scaled array, of which `read_many` reads several in one gather."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of values that are read."""

    def reading(self, key: Key | tuple[Key, ...]) -> Reading:
        """Prepare to read a selection."""


@dataclass(frozen=True)
class StoredArray:
    """An array of an NWB file, read on demand.

    Its pickle is small and complete: another process reads the array without requesting metadata.

    Parameters
    ----------
    file
        The file, in the state that the node was read from.
    node
        The node of the array.
    field_name
        The field of a compound to read, None for the whole array.
    """

    file: StoredFile
    node: ArrayNode
    field_name: str | None = None

    @property
    def location(self) -> Location:
        """Return the file's location."""
        return self.file.location

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the array's shape."""
        return self.node.shape

    @property
    def ndim(self) -> int:
        """Return the number of dimensions."""
        return self.node.ndim

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return self.node.size

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype that `read` returns, in native byte order; object for strings."""
        return field_dtype(self.node, self.field_name)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Return the shape of a stored object: a chunk, or a shard of a sharded array."""
        return self.node.chunks

    def field(self, name: str) -> StoredArray:
        """Return one field of a compound; its strings and references are Python strings.

        Raises
        ------
        NodeNotFoundError
            When the array has no such field.
        """
        field_dtype(self.node, name)
        return replace(self, field_name=name)

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read a selection: the chunks it touches, and only those, in one gather.

        Parameters
        ----------
        key
            An outer (orthogonal) key: integers, slices with any step, arrays of integers or booleans; axes
            not named are read whole.

        Returns
        -------
        numpy.ndarray
            The values, in native byte order; the fill value where chunks are not stored.

        Raises
        ------
        BoundsError
            When the key does not fit the shape.
        ChunkError, LimitError
            When a chunk is damaged.
        AccessError, TransportError
            When a chunk cannot be fetched.
        """
        return read_many([(self, key)])[0]

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read as `read` does, on any event loop."""
        return (await on_loop(gather([self.reading(key)])))[0]

    def reading(
        self,
        key: Key | tuple[Key, ...],
        dtype: np.dtype[Any] | None = None,
        place: Place = copy,
        opener: Opener | None = None,
    ) -> Reading:
        """Prepare to read a selection, or with `place`, to fill an array of another dtype from it."""
        # While a session is opened, the file is read through the transport that an `opener` returns.
        selection = select(key, self.shape)
        out = np.empty(selection.shape, dtype or self.dtype)
        transport = self.file.transport if opener is None else opener(self.location).at(self.file.etag)
        return Reading(transport, self._layout, selection, out, place)

    @cached_property
    def _layout(self) -> Layout:
        return layout(self.node, self.field_name)

    @cached_property
    def document(self) -> bytes:
        """Return the metadata as JSON, the same for the same metadata."""
        return json.dumps(self.node.metadata, sort_keys=True, separators=(",", ":")).encode()

    def __reduce__(self) -> tuple[Any, ...]:
        # As one JSON document: small, and the same bytes for equal arrays, so that dask's tokens are stable.
        state = type(self), self.file, self.node.path, self.document, self.field_name
        table = self._table()
        if table is None or table.data is None or len(table.data) > MOST_CARRIED:
            return _restored, state
        return _restored, (*state, table.data, table.etag)

    def _table(self) -> PackedTable | None:
        """Return the table of an HDF5 dataset's chunks; of a dataset larger than a dask block, it is read."""
        # Each process that gets some of the blocks would otherwise read it for itself.
        is_large = self.size * self.dtype.itemsize > limits().block_bytes // 2
        if not is_large and "_layout" not in vars(self):
            return None
        # What cannot be read now is an error where the array is read.
        with suppress(NWBZarrError):
            ranges = self._layout.ranges
            if ranges is not None and is_large and prod(ranges.counts) * TABLE_BYTES <= MOST_CARRIED:
                run(read_table(self.file.transport, self._layout))
        layout: Layout | None = vars(self).get("_layout")
        return None if layout is None or layout.ranges is None else layout.ranges.table

    def __copy__(self) -> StoredArray:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredArray:
        return self

    def __dask_tokenize__(self) -> tuple[Hashable, ...]:
        # The location without secrets, and the metadata's ETag: stable over reopening, not over a change.
        digest = hashlib.sha256(self.document).hexdigest()
        where = self.location.__dask_tokenize__()
        return "intake_nwbzarr.StoredArray", where, self.node.path, self.field_name, self.file.etag, digest

    def __repr__(self) -> str:
        field = f"[{self.field_name!r}]" if self.field_name else ""
        return f"<StoredArray {self.node.path}{field} {self.dtype} {self.shape} in {self.location}>"


def _restored(
    kind: type[StoredArray],
    file: StoredFile,
    path: str,
    document: bytes,
    field: str | None,
    table: bytes | None = None,
    etag: str | None = None,
) -> StoredArray:
    array = kind(file, ArrayNode(path, json.loads(document)), field)
    if table is not None and array._layout.ranges is not None:
        array._layout.ranges.table.data, array._layout.ranges.table.etag = table, etag
    return array


def read_many(
    requests: Sequence[Gatherable | tuple[Gatherable, Key | tuple[Key, ...]]],
) -> list[NDArray[Any]]:
    """Read selections from many arrays in one gather; a chunk that several of them touch is fetched once.

    Parameters
    ----------
    requests
        Arrays to read whole, or pairs of an array and a key as for `StoredArray.read`.

    Returns
    -------
    list of numpy.ndarray
        One for each request, in their order.
    """
    pairs = [request if isinstance(request, tuple) else (request, ()) for request in requests]
    return _gathered([array.reading(key) for array, key in pairs])


def read_at_open(arrays: Sequence[StoredArray], opener: Opener | None) -> list[NDArray[Any]]:
    """Read whole arrays in one gather while a session is opened, through the transports of its opener."""
    return _gathered([array.reading((), opener=opener) for array in arrays])


def _gathered(readings: Sequence[Reading]) -> list[NDArray[Any]]:
    if not any(reading.out.size for reading in readings):
        return [reading.result for reading in readings]
    results: list[NDArray[Any]] = run(gather(readings))
    return results
