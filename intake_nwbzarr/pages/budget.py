"""What a page may read: the cost of a selection in chunks and bytes, and how much of the budget is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.errors import LimitError, NWBZarrError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.transport.request_log import RequestLog, counted, readable_size

MOST_BYTES: Final = 20 * 10**6
"""Bytes that a page receives at most, opening the session included."""

MOST_REQUESTS: Final = 3000
"""Requests of all pictures of a page at most."""

PICTURE_BYTES: Final = 3 * 10**6
"""Bytes of chunks that a picture has where it can choose; of one with larger chunks, one of them."""

PICTURE_CHUNKS: Final = 640
"""Chunks that a picture has at most."""

# What opening chunks' tables and shards' indexes takes beside the chunks themselves.
_MARGIN = 500_000

# A string of variable length with what a chunk stores beside it; compressed, they are far smaller.
_TEXT_BYTES = 32

# Variables that are read at once.
_THREADS = 16

type Chosen = slice | NDArray[np.intp]

EVERYTHING: Final[Mapping[str, Chosen]] = MappingProxyType({})
"""The selection of all positions along all dimensions."""


@dataclass(frozen=True)
class Cost:
    """What reading a selection takes at most."""

    bytes: int
    chunks: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.chunks + other.chunks)

    @property
    def is_cheap(self) -> bool:
        """Return whether a picture may choose it."""
        return self.bytes <= PICTURE_BYTES and self.chunks <= PICTURE_CHUNKS


class Budget:
    """Tells what selections of a session's variables cost, and refuses what the rest cannot pay.

    Parameters
    ----------
    hierarchy
        Of the session, which knows chunks.
    log
        Of what was received so far.
    most
        Bytes to receive at most.
    """

    def __init__(self, hierarchy: Hierarchy, log: RequestLog, most: int = MOST_BYTES) -> None:
        self._hierarchy = hierarchy
        self._log = log
        self._most = most
        # Opening a session of thousands of series takes as many requests by itself.
        self._opened = log.requests

    @property
    def hierarchy(self) -> Hierarchy:
        """Return the session's hierarchy."""
        return self._hierarchy

    @property
    def received(self) -> int:
        """Return the bytes that were received so far."""
        return self._log.bytes

    @property
    def left(self) -> int:
        """Return the bytes that may still be received."""
        return max(self._most - self._log.bytes - _MARGIN, 0)

    def cost(self, variable: xr.Variable, chosen: Mapping[str, Chosen] = EVERYTHING) -> Cost:
        """Return what a selection along some dimensions of a variable takes at most: all of its chunks."""
        selection = {str(dim): chosen.get(str(dim), slice(None)) for dim in variable.dims}
        node = self._node(variable)
        if node is None:
            size = variable.dtype.itemsize if variable.dtype.kind != "O" else _TEXT_BYTES
            return Cost(variable.size * size, 1)
        return chunk_cost(node, list(selection.values()))

    def cost_at(self, path: str, *chosen: Chosen) -> Cost:
        """Return what a selection of the array at a path takes at most."""
        node = self._hierarchy.resolve(path).node
        return chunk_cost(node, chosen) if isinstance(node, ArrayNode) else Cost(0, 0)

    def check(self, cost: Cost, what: str) -> None:
        """Raise `LimitError` if a selection would exceed what is left."""
        if cost.bytes > self.left:
            raise LimitError(
                f"The smallest part of {what} that can be read has up to {readable_size(cost.bytes)}, and "
                f"{readable_size(self.left)} of the page's {readable_size(self._most)} are left.",
                found=cost.bytes,
                expected=self.left,
            )
        if cost.chunks > PICTURE_CHUNKS or self._log.requests - self._opened + cost.chunks > MOST_REQUESTS:
            raise LimitError(
                f"Reading {what} would take {counted(cost.chunks, 'chunk')}.",
                found=cost.chunks,
                expected=PICTURE_CHUNKS,
            )

    def longest(
        self,
        variable: xr.Variable,
        dim: str,
        start: int,
        length: int,
        chosen: Mapping[str, Chosen] = EVERYTHING,
    ) -> int:
        """Return how many positions from `start` on are cheap, or in one row of chunks; at most `length`."""
        length = min(length, variable.sizes[dim] - start)
        if length <= 0:
            return 0
        node = self._node(variable)
        width = length if node is None else _width(node, list(map(str, variable.dims)).index(dim))
        least = min(width - start % max(width, 1), length)
        while length > least:
            if self.cost(variable, {**chosen, dim: slice(start, start + length)}).is_cheap:
                break
            length = max(length // 2, least)
        return length

    def load(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a Dataset in memory; its variables are read concurrently, and its time coordinates too."""
        lazy = {**dataset.data_vars, **dataset.coords}
        with ThreadPoolExecutor(_THREADS) as pool:
            values = dict(
                zip(lazy, pool.map(lambda name: dataset[name].variable.to_numpy(), lazy), strict=True)
            )
        own = {
            name: xr.Variable(array.dims, values[name], array.attrs)
            for name, array in dataset.data_vars.items()
        }
        plain = {
            name: xr.Variable(array.dims, values[name], array.attrs)
            for name, array in dataset.coords.items()
            if name not in dataset.xindexes
        }
        return dataset.drop_vars([*own, *plain]).assign(own).assign_coords(plain)[list(map(str, own))]

    def _node(self, variable: xr.Variable) -> ArrayNode | None:
        """Return the array that a variable's values are stored in, None if they are computed from others."""
        path = str(variable.attrs.get("nwb_path", ""))
        for each in (path, f"{path}/data"):
            try:
                node = self._hierarchy.resolve(each).node
            except NWBZarrError:
                continue
            if isinstance(node, ArrayNode) and node.shape == variable.shape:
                return node
        return None


def chunk_cost(node: ArrayNode, chosen: Sequence[Chosen]) -> Cost:
    """Return the number of an array's chunks that a selection touches, and their bytes in memory."""
    widths = [max(min(_width(node, axis), length), 1) for axis, length in enumerate(node.shape)]
    number = 1
    for axis, width in enumerate(widths):
        part = chosen[axis] if axis < len(chosen) else slice(None)
        number *= _touched(part, node.shape[axis], width)
    itemsize = _TEXT_BYTES if node.dtype.kind == "O" else node.dtype.itemsize
    return Cost(number * prod(widths) * itemsize, number)


def _width(node: ArrayNode, axis: int) -> int:
    """Return the length along an axis of what is read at least: of a chunk, or of a shard's part."""
    return node.inner_chunks[axis]


def _touched(part: Chosen, length: int, width: int) -> int:
    """Return how many chunks along an axis a selection touches."""
    if isinstance(part, slice):
        start, stop, _ = part.indices(length)
        return 0 if stop <= start else (stop - 1) // width - start // width + 1
    return len(np.unique(np.asarray(part) // width))


def evenly(number: int, most: int) -> NDArray[np.intp]:
    """Return positions of at most so many things, evenly spaced among all."""
    return np.unique(np.linspace(0, max(number - 1, 0), min(number, most)).round().astype(np.intp))
