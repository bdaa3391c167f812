"""What reading arrays takes: requests, bytes, seconds and money, at the prices of a date."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from math import ceil, prod

from intake_nwbzarr.arrays.layout import layout
from intake_nwbzarr.arrays.shards import RANGE
from intake_nwbzarr.checks.chunks import ChunkCount, chunk_grid
from intake_nwbzarr.hdf5.documents import EXTENSION
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.limits import limits


@dataclass(frozen=True)
class Prices:
    """Prices of requests and of data that leave a region, at a date."""

    what: str
    date: str
    source: str
    currency: str
    get_per_1000: float
    put_per_1000: float
    list_per_1000: float
    egress_per_gb: float


@cache
def shipped_prices() -> Prices:
    """Return the prices that come with the package."""
    text = files("intake_nwbzarr.checks").joinpath("prices.json").read_text()
    return Prices(**json.loads(text))


@dataclass(frozen=True)
class Connection:
    """What is assumed of whoever reads a session.

    Parameters
    ----------
    latency
        Seconds for a request.
    bandwidth
        Bytes per second.
    window
        Seconds of a recording that are read at once.
    prices
        Of requests, and of bytes that leave the region.
    """

    latency: float = 0.05
    bandwidth: float = 12.5e6
    window: float = 10.0
    prices: Prices = field(default_factory=shipped_prices)

    def cost(self, requests: int, nbytes: int) -> Cost:
        """Return what requests that are independent of one another take, with intake-nwbzarr."""
        concurrent = ceil(requests / limits().requests)
        seconds = max(concurrent * self.latency, self.latency + nbytes / self.bandwidth) if requests else 0.0
        egress = nbytes / 1e9 * self.prices.egress_per_gb
        return Cost(requests, nbytes, seconds, requests / 1000 * self.prices.get_per_1000 + egress)


@dataclass(frozen=True)
class Cost:
    """What a read takes.

    Parameters
    ----------
    requests, nbytes
        Stored objects or ranges that are requested, and bytes that are received.
    seconds
        As long as latency or bandwidth allow, whichever takes longer.
    money
        What the owner of the bucket pays, or the requester of a requester-pays bucket, if the data leave
        the region.
    """

    requests: int
    nbytes: int
    seconds: float
    money: float


@dataclass(frozen=True)
class ArrayCost:
    """What reading one array takes.

    Parameters
    ----------
    path
        In the file.
    shape, dtype
        As stored.
    chunk_bytes
        Of the smallest part that can be read, before compression.
    chunks
        Stored chunks, or shards; as many as the shape has room for where they are not counted.
    stored_bytes
        Bytes of these; None where the storage cannot be listed, and costs count uncompressed bytes then.
    whole
        To read all of it.
    window
        To read some seconds of it, from the beginning; None without known times.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunk_bytes: int
    chunks: int
    stored_bytes: int | None
    whole: Cost
    window: Cost | None


@dataclass(frozen=True)
class Timed:
    """The axis of an array that is time, and how many samples it has in a second."""

    axis: int
    rate: float


def array_cost(
    node: ArrayNode, count: ChunkCount | None, timed: Timed | None, connection: Connection
) -> ArrayCost:
    """Return what reading an array takes, of which chunks were counted or not."""
    grid = chunk_grid(node)
    chunks = prod(grid) if count is None else count.stored
    inner = node.inner_chunks
    chunk_bytes = prod(inner) * node.dtype.itemsize
    stored = None if count is None else count.nbytes
    decoded = node.size * node.dtype.itemsize
    total = decoded if stored is None else stored
    return ArrayCost(
        path=node.path,
        shape=node.shape,
        dtype="object" if node.dtype.kind == "O" else str(node.dtype),
        chunk_bytes=chunk_bytes,
        chunks=chunks,
        stored_bytes=stored,
        whole=connection.cost(_requests(node, chunks, total), total),
        window=None if timed is None else _window(node, grid, total, timed, connection),
    )


def _requests(node: ArrayNode, objects: int, nbytes: int, part: float = 1.0) -> int:
    """Return how many requests chunks or shards take, of each of which a part is wanted."""
    if EXTENSION in node.metadata and objects:
        # One for neighbouring chunks, which were written one after the other; and one for the table of them.
        together = max(RANGE * objects // max(nbytes, 1), 1)
        return ceil(objects / together) + 1
    if not objects or _is_read_whole(node, part):
        return objects
    # The index of a shard, then ranges of it.
    return objects * (1 + max(ceil(nbytes / objects / RANGE), 1))


def _is_read_whole(node: ArrayNode, part: float) -> bool:
    """Return whether chunks are read in one request each, which shards are if they are small."""
    sharding = layout(node).sharding
    if sharding is None:
        return True
    chunks = prod(node.chunks) // max(prod(node.inner_chunks), 1)
    return sharding.is_whole(max(round(chunks * part), 1), chunks)


def _window(
    node: ArrayNode, grid: Sequence[int], total: int, timed: Timed, connection: Connection
) -> Cost | None:
    """Return what the first seconds take: whole chunks along time, all of the others."""
    axis, length = timed.axis, node.shape[timed.axis]
    samples = min(max(ceil(timed.rate * connection.window), 1), length)
    if not node.size:
        return connection.cost(0, 0)
    width, inner = node.chunks[axis], node.inner_chunks[axis]
    along = ceil(samples / width)
    objects = along * prod(each for other, each in enumerate(grid) if other != axis)
    taken = min(ceil(samples / inner) * inner, length)
    part = taken / min(along * width, length)
    if _is_read_whole(node, part):
        taken = min(along * width, length)
    nbytes = round(total * taken / length)
    return connection.cost(_requests(node, objects, nbytes, part), nbytes)
