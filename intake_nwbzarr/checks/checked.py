"""A session while it is checked: its metadata, what is stored of it, and what may be read of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.arrays.stored import read_many
from intake_nwbzarr.checks.chunks import ChunkCount, ChunkCounts
from intake_nwbzarr.checks.report import Finding, finding
from intake_nwbzarr.errors import (
    AccessError,
    ChunkError,
    CredentialsError,
    LimitError,
    MetadataError,
    NWBZarrError,
)
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode, Node
from intake_nwbzarr.transport.answers import Listed

MOST_BYTES: Final = 256 * 2**20
"""Decoded bytes that all checks of one session read together."""

MOST_REQUESTS: Final = 4_000
"""Chunks that they read together."""

BLOCKS: Final = 8
"""Blocks of a large array of times that are read."""

WHOLE: Final = 16 * 2**20
"""Decoded bytes up to which one array is read whole; of larger ones, some blocks are."""

type Selection = tuple[ArrayNode, tuple[slice, ...]]


@dataclass
class Checked:
    """A session while it is checked."""

    hierarchy: Hierarchy
    # All stored objects; None where they cannot be listed, and of HDF5 files.
    listed: Sequence[Listed] | None
    counts: ChunkCounts | None
    progress: Callable[[str], None]
    # What could not be determined, and why.
    unchecked: list[str] = field(default_factory=list)
    # Findings of damage that reading values met.
    damaged: list[Finding] = field(default_factory=list)
    # Samples in a second, by the path of timestamps.
    rates: dict[str, float] = field(default_factory=dict)
    # The last timestamp of any series, as far as they were read; None if there is none.
    last_time: float | None = None
    left_bytes: int = MOST_BYTES
    left_requests: int = MOST_REQUESTS

    def finding(self, code: str, path: str, found: str) -> Finding:
        """Return a finding of this session."""
        return finding(code, path, found, self.hierarchy.location)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Return the groups and arrays without damaged ones and cached schemas, by path."""
        schemas = f"{self.hierarchy.specifications}/"
        return {
            node.path: node
            for node in self.hierarchy.valid_nodes()
            if not f"{node.path}/".startswith(schemas)
        }

    @property
    def arrays(self) -> Iterator[ArrayNode]:
        """Yield the arrays."""
        return (node for node in self.nodes.values() if isinstance(node, ArrayNode))

    @property
    def groups(self) -> Iterator[GroupNode]:
        """Yield the groups."""
        return (node for node in self.nodes.values() if isinstance(node, GroupNode))

    @cached_property
    def counted(self) -> Mapping[str, ChunkCount]:
        """Return the counts of chunks by the path of their array; empty where they were not counted."""
        return {} if self.counts is None else {count.path: count for count in self.counts.arrays}

    def read(self, wanted: Sequence[Selection]) -> list[NDArray[Any] | None]:
        """Read selections at once; None for those that are damaged, or more than may be read."""
        taken = [selection if self._take(selection) else None for selection in wanted]
        kept = [selection for selection in taken if selection is not None]
        values = iter(self._read(kept))
        return [None if selection is None else next(values) for selection in taken]

    def may_read_whole(self, node: ArrayNode) -> bool:
        """Return whether an array is small enough to be read whole."""
        return node.size * node.dtype.itemsize <= WHOLE and _chunks(node, ()) <= MOST_REQUESTS // 10

    def parts(self, node: ArrayNode) -> list[slice]:
        """Return which parts of an array of times are read: all of it, or some blocks if it is large."""
        if self.may_read_whole(node):
            return [slice(0, node.size)]
        width = max(node.inner_chunks[0], 1)
        # The first and the last chunk, and some between them.
        chosen = sorted(set(np.linspace(0, -(-node.size // width) - 1, BLOCKS).astype(int).tolist()))
        # Chunks may be as large as the array.
        most = min(width, 2**20)
        return [slice(each * width, min(each * width + most, node.size)) for each in chosen]

    def _read(self, wanted: Sequence[Selection]) -> list[NDArray[Any] | None]:
        readings = [(StoredArray(self.hierarchy.file, node), key) for node, key in wanted]
        with suppress(AccessError, ChunkError, MetadataError, LimitError):
            return list(read_many(readings)) if readings else []
        found: list[NDArray[Any] | None] = []
        for node, key in wanted:
            try:
                found.append(StoredArray(self.hierarchy.file, node).read(key))
            except (ChunkError, MetadataError, LimitError) as error:
                self.damaged.append(self.finding("damaged-object", node.path, message(error)))
                found.append(None)
            except CredentialsError:
                raise
            except AccessError as error:
                self.damaged.append(self.finding("denied-chunks", node.path, message(error)))
                found.append(None)
        return found

    def _take(self, selection: Selection) -> bool:
        node, key = selection
        requests = _chunks(node, key)
        nbytes = requests * prod(node.inner_chunks) * max(node.dtype.itemsize, 1)
        if requests > self.left_requests or nbytes > self.left_bytes:
            told = "some values: more would be read than one check reads"
            if told not in self.unchecked:
                self.unchecked.append(told)
            return False
        self.left_requests -= requests
        self.left_bytes -= nbytes
        return True


def message(error: NWBZarrError) -> str:
    """Return an error's message on one line, without its next step."""
    return " ".join(str(part) for part in error.args).replace("\n", " ")


def _chunks(node: ArrayNode, key: Sequence[slice]) -> int:
    """Return how many chunks a selection touches."""
    total = 1
    for axis, (length, width) in enumerate(zip(node.shape, node.inner_chunks, strict=True)):
        start, stop, _ = key[axis].indices(length) if axis < len(key) else (0, length, 1)
        total *= max(ceil(stop / width) - start // width, 0) if stop > start else 0
    return total


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Return whether values are integers or floats."""
    return dtype.kind in "iuf"
