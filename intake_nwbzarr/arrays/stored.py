"""Stored arrays: a file and a node, which are all that it takes to read a selection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays.gather import Place, Reading, copy, gather
from intake_nwbzarr.arrays.layout import Layout, field_dtype, layout
from intake_nwbzarr.arrays.selection import Key, select
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.loop import on_loop, run
from intake_nwbzarr.transport.open import Opener, StoredFile


class Readable(Protocol):
    """Anything that is read by outer selections: stored, scaled, or derived from such arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What reading gives."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of what is best read at once."""

    def read(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Read a selection."""

    async def read_async(self, key: Key | tuple[Key, ...] = ()) -> NDArray[Any]:
        """Like `read`, for any event loop."""

    def __dask_tokenize__(self) -> Hashable:
        """What identifies the values, the same in every process."""


class Gatherable(Protocol):
    """What `read_many` reads in one gather with others: stored and scaled arrays."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What reading gives."""

    def reading(self, key: Key | tuple[Key, ...]) -> Reading:
        """Prepare to read a selection."""


@dataclass(frozen=True)
class StoredArray:
    """An array of an NWB file, read when it is asked to be.

    Small to pickle, and complete: another process reads it without a request for metadata.

    Parameters
    ----------
    file
        The file, in the state that the node is from.
    node
        The array in it.
    field_name
        The one field of a compound this is about.
    """

    file: StoredFile
    node: ArrayNode
    field_name: str | None = None

    @property
    def location(self) -> Location:
        """The file's location."""
        return self.file.location

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.node.shape

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.node.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.node.size

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """What `read` gives, in native byte order; strings are Python objects."""
        return field_dtype(self.node, self.field_name)

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of what is stored under one key: a chunk, or a shard of a sharded array."""
        return self.node.chunks

    def field(self, name: str) -> StoredArray:
        """One field of a compound; its texts and references are Python strings.

        Raises
        ------
        NodeNotFoundError
            When there is no such field.
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
            In native byte order. Chunks that are not stored hold the fill value.

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
        """Like `read`, for any event loop."""
        return (await on_loop(gather([self.reading(key)])))[0]

    def reading(
        self,
        key: Key | tuple[Key, ...],
        dtype: np.dtype[Any] | None = None,
        place: Place = copy,
        opener: Opener | None = None,
    ) -> Reading:
        """Prepare to read a selection, into an array of another dtype if a `place` is given that fills it.

        With an `opener`, while a session is opened, the file is read through the transport that it gives.
        """
        selection = select(key, self.shape)
        out = np.empty(selection.shape, dtype or self.dtype)
        transport = self.file.transport if opener is None else opener(self.location).at(self.file.etag)
        return Reading(transport, self._layout, selection, out, place)

    @cached_property
    def _layout(self) -> Layout:
        return layout(self.node, self.field_name)

    @cached_property
    def document(self) -> bytes:
        """The metadata as JSON, the same for the same metadata."""
        return json.dumps(self.node.metadata, sort_keys=True, separators=(",", ":")).encode()

    def __reduce__(self) -> tuple[Any, ...]:
        # As one JSON document: small, and the same bytes for equal arrays, so that dask's tokens are stable.
        return _restored, (type(self), self.file, self.node.path, self.document, self.field_name)

    def __dask_tokenize__(self) -> tuple[Hashable, ...]:
        # The location without secrets, and the metadata's ETag: stable over reopening, not over a change.
        digest = hashlib.sha256(self.document).hexdigest()
        where = self.location.__dask_tokenize__()
        return "intake_nwbzarr.StoredArray", where, self.node.path, self.field_name, self.file.etag, digest

    def __repr__(self) -> str:
        field = f"[{self.field_name!r}]" if self.field_name else ""
        return f"<StoredArray {self.node.path}{field} {self.dtype} {self.shape} in {self.location}>"


def _restored(
    kind: type[StoredArray], file: StoredFile, path: str, document: bytes, field: str | None
) -> StoredArray:
    return kind(file, ArrayNode(path, json.loads(document)), field)


def read_many(
    requests: Sequence[Gatherable | tuple[Gatherable, Key | tuple[Key, ...]]],
) -> list[NDArray[Any]]:
    """Read selections from many arrays in one gather; a chunk that several of them touch is fetched once.

    Parameters
    ----------
    requests
        Arrays, wanted whole, or pairs of an array and a key as for `StoredArray.read`.

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
