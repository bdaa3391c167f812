"""The model of a mapping: the variables, coordinates and attributes that one neurodata object becomes."""

from __future__ import annotations

from collections.abc import Container, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from intake_nwbzarr.arrays import Readable, StoredArray, read_at_open
from intake_nwbzarr.bounds import MOST_CHUNKS_AT_OPEN
from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.limits import limits
from intake_nwbzarr.transport.open import Opener

TEMPLATES = "stimulus/templates/"


def free_name(name: str, taken: Container[str]) -> str:
    """A name that is not taken: itself, or with underscores after it."""
    while name in taken:
        name += "_"
    return name


# What a short string takes.
STRING_AT_OPEN = 64


@dataclass(frozen=True)
class Dimension:
    """A dimension before it has its final name.

    Parameters
    ----------
    identity
        Two dimensions of equal identity are one and the same wherever their objects meet.
    name
        In the view of a single object: ``time``, ``channel``, ``unit``.
    flat_name
        In the view of a whole session: ``units``, ``ElectricalSeriesAP_channel``.
    size
        Its length.
    owner
        The path of the object that `flat_name` starts with: ``general/extracellular_ephys/electrodes`` for
        ``electrodes``. Where two objects of a view have that name, the dimension is qualified as its owner
        is, and coordinates on it are named for its owner. None: the object that brings the dimension.
    is_rows
        Whether it is the rows of a table, its owner, all of them in order.
    """

    identity: Hashable
    name: str
    flat_name: str
    size: int
    owner: str | None = None
    is_rows: bool = False


@dataclass(frozen=True)
class Part:
    """One array of a neurodata object.

    Parameters
    ----------
    name
        In the view of a single object: ``data``, ``spike_times``.
    dimensions
        One for each axis of the array.
    array
        Lazy (anything with ``shape``, ``dtype`` and ``read``), or in memory where it is small.
    attributes
        What netCDF and Zarr can store.
    role
        ``main`` is named like its object in the flat view, ``variable`` gets the object's name as prefix,
        ``coordinate`` becomes a coordinate; in the flat view it is named for its first dimension's owner,
        so that many series joined to one table share that table's columns.
    is_time
        Whether the values are times, in seconds from the session's reference time: these can be decoded.
    object
        The path of the object that it is of, where that is not the one that brings it: of a column that is
        joined to a series, the table; of a picture, itself.
    column
        Of a table: what the column is called in the view of that table alone.
    """

    name: str
    dimensions: tuple[Dimension, ...]
    array: Readable | np.ndarray[Any, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    role: Literal["main", "variable", "coordinate"] = "variable"
    is_time: bool = False
    object: str | None = None
    column: str | None = None


@dataclass(frozen=True)
class RegularTime:
    """Samples at ``starting_time + k / rate`` seconds."""

    dimension: Dimension
    starting_time: float
    rate: float
    attributes: Mapping[str, Any] = field(default_factory=dict)
    object: str | None = None
    column: None = None


@dataclass(frozen=True)
class IrregularTime:
    """Samples at stored timestamps, in seconds; those of another object where it links to them."""

    dimension: Dimension
    timestamps: StoredArray
    attributes: Mapping[str, Any] = field(default_factory=dict)
    object: str | None = None
    column: None = None


@dataclass(frozen=True)
class Labels:
    """In-memory labels of a dimension: row ids, electrode ids, axis names; the time of a single sample.

    Row ids say which table and column they are, as a `Part` does.
    """

    dimension: Dimension
    values: np.ndarray[Any, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    object: str | None = None
    column: str | None = None
    is_time: bool = False


@dataclass(frozen=True)
class Piece:
    """One neurodata object, mapped: its arrays, the indexes of its dimensions, its attributes."""

    path: str
    neurodata_type: str
    parts: tuple[Part, ...]
    indexes: tuple[RegularTime | IrregularTime | Labels, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()
    """Paths of its datasets that are left out, for they are damaged."""

    @property
    def name(self) -> str:
        """The object's own name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Region:
    """Rows of a table, as a dimension of something else: what `map_region` gives.

    Parameters
    ----------
    dimension
        The table's own row dimension when the region is the whole table in order. Otherwise one of its own,
        whose identity is equal for equal regions, owned by the object that holds the region.
    labels
        The ids of the rows; None when the table is missing or the axis has labels of its own.
    parts
        The table's columns, joined: coordinates on the dimension.
    unmapped
        Paths of what is damaged, of the region and the ids of its table.
    """

    dimension: Dimension
    labels: Labels | None
    parts: tuple[Part, ...] = ()
    unmapped: tuple[str, ...] = ()


# `map_region(hierarchy, path, options, *, name, owner) -> Mapper[Region]` in regions.py: `path` is the
# DynamicTableRegion (free of links), `name` the dimension's in the view of one object (``channel``, ``roi``),
# `owner` the path of the series or table that holds it.
type Mapper[T] = Generator[Sequence[StoredArray], Sequence[np.ndarray[Any, Any]], T]


def read_pieces[T](mappers: Iterable[Mapper[T]], opener: Opener | None = None) -> list[T]:
    """Drive mappers side by side: each round of theirs is one gather for all of them.

    Parameters
    ----------
    mappers
        Generators that yield the arrays they need, are sent their values, and return their result.
    opener
        Of the hierarchy, while it is opened.

    Returns
    -------
    list
        One result for each mapper, in order.

    Raises
    ------
    LimitError
        When what opening needs to know declares more, in all, than `intake_nwbzarr.set_limits` allows.
    ChunkError
        When a chunk is damaged that a mapper cannot do without.
    """
    everything = together(mappers)
    taken = chunks = 0
    try:
        wanted = next(everything)
        while True:
            taken, chunks = _checked_sizes(wanted, taken, chunks)
            try:
                read = read_at_open(wanted, opener)
            except (ChunkError, MetadataError, LimitError) as error:
                # Of many, only those fail whose own chunks are damaged, or stored in a way that cannot be
                # understood: `together` finds them.
                wanted = everything.throw(error if isinstance(error, ChunkError) else ChunkError(str(error)))
            else:
                wanted = everything.send(read)
    except StopIteration as stop:
        results: list[T] = stop.value
        return results


def _checked_sizes(arrays: Sequence[StoredArray], taken: int, chunks: int) -> tuple[int, int]:
    """Add up bytes and chunks of what one opening reads, and refuse what is too much before it is read."""
    # A shape is written in a few bytes, and memory for it is taken before anything is read.
    sizes = [_bytes_of(array) for array in arrays]
    for array in arrays:
        pairs = zip(array.shape, array.chunks, strict=True)
        chunks += prod(-(-length // max(width, 1)) for length, width in pairs)
    taken, allowed = taken + sum(sizes), limits().bytes_at_open
    if taken > allowed or chunks > MOST_CHUNKS_AT_OPEN:
        size, array = max(zip(sizes, arrays, strict=True), key=lambda pair: pair[0])
        raise LimitError(
            f"Opening {array.location} would read {taken:,} bytes in {chunks:,} chunks, where {allowed:,} "
            f"bytes in {MOST_CHUNKS_AT_OPEN:,} are allowed; {array.node.path!r} declares {array.size:,} "
            f"elements, {size:,} bytes, in chunks of {array.chunks}. If the file is not damaged, open other "
            "objects of it with group=, or allow more with intake_nwbzarr.set_limits(bytes_at_open=...)."
        )
    return taken, chunks


def _bytes_of(array: StoredArray) -> int:
    return array.size * (STRING_AT_OPEN if array.dtype.kind == "O" else max(array.dtype.itemsize, 1))


def together[T](mappers: Iterable[Mapper[T]]) -> Mapper[list[T]]:
    """One mapper of many: what they want in the same round is asked for together.

    Inside a mapper, ``first, second = yield from together([one(), other()])`` takes as many rounds as the
    longer of the two.
    """
    running = dict(enumerate(mappers))
    results: dict[int, T] = {}
    values: dict[int, Sequence[np.ndarray[Any, Any]] | None] = dict.fromkeys(running)
    while running:
        wanted: dict[int, Sequence[StoredArray]] = {}
        for number, mapper in list(running.items()):
            sent = values[number]
            try:
                wanted[number] = next(mapper) if sent is None else mapper.send(sent)
            except StopIteration as stop:
                results[number] = stop.value
                del running[number]
        if not wanted:
            continue
        try:
            read = iter((yield [array for arrays in wanted.values() for array in arrays]))
            values = {number: [next(read) for _ in arrays] for number, arrays in wanted.items()}
        except ChunkError as error:
            values = yield from _apart(wanted, running, results, error)
    return [results[number] for number in sorted(results)]


def _apart[T](
    wanted: Mapping[int, Sequence[StoredArray]],
    running: dict[int, Mapper[T]],
    results: dict[int, T],
    error: ChunkError,
) -> Mapper[dict[int, Sequence[np.ndarray[Any, Any]] | None]]:
    """One mapper after the other, for something that one of them wants is damaged: that one is told."""
    values: dict[int, Sequence[np.ndarray[Any, Any]] | None] = {}
    for number, arrays in wanted.items():
        own: ChunkError | None = error
        if len(wanted) > 1:
            own = None
            try:
                values[number] = list((yield arrays))
            except ChunkError as its_own:
                own = its_own
        if own is not None:
            results[number] = yield from _told(running.pop(number), own)
    return values


def _told[T](mapper: Mapper[T], error: ChunkError) -> Mapper[T]:
    """Throw an error into a mapper, and serve whatever it wants instead, to its end."""
    try:
        wanted = mapper.throw(error)
        while True:
            try:
                read = list((yield wanted))
            except ChunkError as another:
                wanted = mapper.throw(another)
            else:
                wanted = mapper.send(read)
    except StopIteration as stop:
        result: T = stop.value
        return result


def both[A, B](first: Mapper[A], second: Mapper[B]) -> Mapper[tuple[A, B]]:
    """Two mappers of different results, `together`."""
    mappers: list[Mapper[Any]] = [first, second]
    one, other = yield from together(mappers)
    return one, other


def values_of(arrays: Sequence[StoredArray]) -> Mapper[Sequence[np.ndarray[Any, Any]]]:
    """The simplest mapper: the values of some arrays, in one round."""
    return (yield arrays)


def values_or_none(arrays: Sequence[StoredArray]) -> Mapper[list[np.ndarray[Any, Any] | None]]:
    """The values of some arrays; None, with a warning, for one that is damaged."""
    try:
        return list((yield from values_of(arrays)))
    except ChunkError:
        found: list[np.ndarray[Any, Any] | None] = []
        for array in arrays:
            try:
                found += yield from values_of([array])
            except ChunkError as error:
                warn_caller(f"{array.node.path!r} in {array.location} is left out. {error}")
                found.append(None)
        return found


def whole_values(
    arrays: Mapping[str, StoredArray],
) -> Mapper[tuple[dict[str, np.ndarray[Any, Any]], tuple[str, ...]]]:
    """The values of some arrays by name, and the paths of those that are damaged and so left out."""
    values = yield from values_or_none(list(arrays.values()))
    pairs = list(zip(arrays.items(), values, strict=True))
    lost = tuple(array.node.path for (_, array), value in pairs if value is None)
    return {name: value for (name, _), value in pairs if value is not None}, lost


def stored(hierarchy: Hierarchy, node: ArrayNode) -> StoredArray:
    """The array of a node, told apart from another state of the same file by the metadata's ETag."""
    return StoredArray(hierarchy.file, node)
