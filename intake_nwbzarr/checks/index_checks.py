"""Check ragged columns and references to parts of series: whether indexes and ranges fit what they divide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.checks.checked import Checked, Selection
from intake_nwbzarr.checks.report import Finding
from intake_nwbzarr.errors import LinkError, MetadataError
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, parse_reference
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.mapping.schema import is_a

# Rows of references to series that are read.
_MOST_ROWS: Final = 200_000

_RANGE: Final = ("idx_start", "count", "timeseries")


def index_findings(session: Checked) -> Iterator[Finding]:
    """Yield index columns that do not fit their targets, and ranges that series do not have."""
    yield from _indexes(session)
    yield from _ranges(session)


def _indexes(session: Checked) -> Iterator[Finding]:
    """Yield index columns whose values decrease, or lie beyond the end of what they divide."""
    chosen: list[Selection] = []
    lengths: list[int] = []
    for node in session.arrays:
        if node.dtype.kind not in "iu" or node.ndim != 1 or not node.size or node.neurodata_type is None:
            continue
        if not is_a(session.hierarchy, node, "VectorIndex"):
            continue
        length = _length_of_target(session, node)
        if length is not None:
            # The last value tells the most, where they are too many to be read.
            whole = session.may_read_whole(node)
            chosen.append((node, () if whole else (slice(node.size - 1, node.size),)))
            lengths.append(length)
    for (node, _), length, ends in zip(chosen, lengths, session.read(chosen), strict=True):
        if ends is None or not ends.size:
            continue
        # Not differences: those of unsigned integers are positive.
        back = np.flatnonzero(ends[1:] < ends[:-1])
        if len(back):
            row = int(back[0]) + 1
            found = f"The end of row {row:,} is {ends[row]:,}, and that of the row before {ends[row - 1]:,}."
            yield session.finding("damaged-index", node.path, found)
        elif ends[0] < 0:
            yield session.finding("damaged-index", node.path, f"The end of row 0 is {ends[0]:,}.")
        elif ends[-1] > length:
            yield session.finding(
                "damaged-index",
                node.path,
                f"Its last row ends at {ends[-1]:,}, and its target at {length:,}.",
            )


def _length_of_target(session: Checked, index: ArrayNode) -> int | None:
    """Return the length of what an index column divides; None if that is not known."""
    reference = index.attributes.get("target")
    try:
        if isinstance(reference, dict):
            target = session.hierarchy.reference(reference)
            node = target.hierarchy.get(target.path)
        else:
            node = session.nodes.get(index.path.removesuffix("_index"))
    except (*UNREACHABLE, MetadataError):
        return None
    return node.shape[0] if isinstance(node, ArrayNode) and node.ndim and node.path != index.path else None


def _ranges(session: Checked) -> Iterator[Finding]:
    """Yield columns of references to series with samples that these do not have."""
    chosen: list[Selection] = [
        (node, ())
        for node in session.arrays
        if set(_RANGE) <= set(node.dtype.names or ())
        and node.ndim == 1
        and 0 < node.size <= _MOST_ROWS
        and not _is_of_intervals(session, node)
    ]
    for (node, _), rows in zip(chosen, session.read(chosen), strict=True):
        if rows is not None:
            yield from _outside(session, node, rows)


def _is_of_intervals(session: Checked, node: ArrayNode) -> bool:
    # pynwb computes their ranges from times, also where a trial begins before a series or ends after it.
    group = session.nodes.get(node.path.rpartition("/")[0])
    return group is not None and is_a(session.hierarchy, group, "TimeIntervals")


def _outside(session: Checked, node: ArrayNode, rows: NDArray[Any]) -> Iterator[Finding]:
    starts, counts = (rows[name].astype(np.int64) for name in _RANGE[:2])
    targets, of = np.unique(np.asarray(rows[_RANGE[2]]).astype(str), return_inverse=True)
    # Of what is not known, all samples are taken to exist.
    most = np.iinfo(np.int64).max
    known = [_samples(session, str(target)) for target in targets]
    lengths = np.array([most if length is None else length for length in known], np.int64)[of.ravel()]
    # Starts are negative where a row refers to nothing.
    outside = (counts > 0) & (starts >= 0) & (starts > lengths - counts)
    if not outside.any():
        return
    row = int(np.flatnonzero(outside)[0])
    yield session.finding(
        "region-out-of-range",
        node.path,
        f"{np.count_nonzero(outside):,} of {len(rows):,} rows, the first at {row:,}: {counts[row]:,} samples "
        f"from {starts[row]:,}, and {str(targets[of.ravel()[row]])!r:.100} has {lengths[row]:,}.",
    )


def _samples(session: Checked, text: str) -> int | None:
    """Return the number of samples of a series that a reference names; None if that is not known."""
    lengths = []
    try:
        reference = parse_reference(text, where="An element")
        hierarchy = session.hierarchy.follow(reference.source)
    except (*UNREACHABLE, LinkError, MetadataError):
        return None
    for name in ("data", "timestamps"):
        try:
            found = hierarchy.resolve(f"{reference.path.rstrip('/')}/{name}", look_up=True).node
        except (*UNREACHABLE, LinkError, MetadataError):
            continue
        if isinstance(found, ArrayNode) and found.ndim:
            lengths.append(found.shape[0])
    # The data of series whose frames are in external files are empty.
    return max(lengths, default=0) or None
