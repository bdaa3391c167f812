"""The model of a mapping: the variables, coordinates and attributes that one neurodata object becomes."""

from __future__ import annotations

from collections.abc import Container, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from intake_nwbzarr.arrays import Readable, StoredArray, read_at_open
from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError, code_of_skipped, warn_caller
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.limits import limits
from intake_nwbzarr.transport.open import Opener
from intake_nwbzarr.untrusted_input import MOST_CHUNKS_AT_OPEN

# Series in it count time "relative to the beginning of the stimulus" (NWB schema).
TEMPLATES = "stimulus/templates/"


def free_name(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken, appending underscores if necessary."""
    while name in taken:
        name += "_"
    return name


# Bytes that a short string takes in memory.
STRING_AT_OPEN = 64


@dataclass(frozen=True)
class Dimension:
    """A dimension before it has its final name."""

    identity: Hashable  # dimensions of equal identity are one dimension in a view of several objects
    name: str  # in the view of a single object: time, channel, unit
    flat_name: str  # in the view of a whole session: units, ElectricalSeriesAP_channel
    size: int
    # The path of the object whose name begins `flat_name`, such as general/extracellular_ephys/electrodes for
    # `electrodes`; None for the object with the dimension. Where two objects of a view have that name, the
    # dimension is qualified like its owner, and coordinates on it are named after its owner.
    owner: str | None = None
    is_rows: bool = False  # whether it is all rows of a table (its owner) in order


@dataclass(frozen=True)
class ArrayPart:
    """One array of a neurodata object, which becomes a variable."""

    name: str  # in the view of a single object: data, spike_times
    dimensions: tuple[Dimension, ...]
    array: Readable | np.ndarray[Any, Any]  # lazy, or in memory if small
    attributes: Mapping[str, Any] = field(default_factory=dict)  # as netCDF and Zarr can store them
    # A `main` array is named like its object in the flat view; a `variable` has the object's name as prefix.
    # A `coordinate` is named after the owner of its first dimension in the flat view, so that all series
    # joined to a table share the table's columns.
    role: Literal["main", "variable", "coordinate"] = "variable"
    # whether the values are seconds from the session's reference time, which can be decoded
    is_time: bool = False
    # the path of the object it belongs to if not the one with this part: a joined column's table
    object: str | None = None
    column: str | None = None  # of a table: the column's name in the view of the table alone


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
    """Samples at stored timestamps in seconds, possibly those of another object by a link."""

    dimension: Dimension
    timestamps: StoredArray
    attributes: Mapping[str, Any] = field(default_factory=dict)
    object: str | None = None
    column: None = None


@dataclass(frozen=True)
class Labels:
    """In-memory labels of a dimension: row ids, electrode ids, axis names; or the time of a single sample."""

    dimension: Dimension
    values: np.ndarray[Any, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    object: str | None = None  # of row ids, as of an ArrayPart
    column: str | None = None
    is_time: bool = False


@dataclass(frozen=True)
class MappedObject:
    """One neurodata object as arrays, indexes of their dimensions, and attributes."""

    path: str
    neurodata_type: str
    parts: tuple[ArrayPart, ...]
    indexes: tuple[RegularTime | IrregularTime | Labels, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()  # paths of damaged datasets, which are skipped

    @property
    def name(self) -> str:
        """Return the object's own name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Region:
    """Rows of a table as a dimension of another object; the result of `map_region`."""

    # The table's own row dimension if the region is the whole table in order. Otherwise one whose identity is
    # equal for equal regions, owned by the object that holds the region.
    dimension: Dimension
    # the ids of the rows; None if the table is missing or the axis has labels of its own
    labels: Labels | None
    parts: tuple[ArrayPart, ...] = ()  # the table's columns, as coordinates on the dimension
    unmapped: tuple[str, ...] = ()  # paths of damaged arrays of the region, and of the ids of its table


# A mapper yields the arrays that it needs to read, is sent their values, and returns its result.
type Mapper[T] = Generator[Sequence[StoredArray], Sequence[np.ndarray[Any, Any]], T]


def run_mappers[T](mappers: Iterable[Mapper[T]], opener: Opener | None = None) -> list[T]:
    """Run mappers concurrently, with one gather for each round of reads, and return their results."""
    # Raises LimitError if the arrays declare more than set_limits(bytes_at_open=...) allows, and ChunkError
    # for a damaged chunk that a mapper needs.
    everything = run_together(mappers)
    taken = chunks = 0
    try:
        wanted = next(everything)
        while True:
            taken, chunks = _checked_sizes(wanted, taken, chunks)
            try:
                read = read_at_open(wanted, opener)
            except (ChunkError, MetadataError, LimitError) as error:
                # `run_together` finds the mappers whose own chunks are damaged or unreadable; only they fail.
                damaged = error if isinstance(error, ChunkError) else ChunkError(*error.args)
                damaged.__dict__.update(error.__dict__)
                wanted = everything.throw(damaged)
            else:
                wanted = everything.send(read)
    except StopIteration as stop:
        results: list[T] = stop.value
        return results


def _checked_sizes(arrays: Sequence[StoredArray], taken: int, chunks: int) -> tuple[int, int]:
    """Add up the bytes and chunks that opening reads, and refuse too many before anything is read."""
    # A shape takes a few bytes of metadata, but its memory is allocated before anything is read.
    sizes = [_bytes_of(array) for array in arrays]
    for array in arrays:
        pairs = zip(array.shape, array.chunks, strict=True)
        chunks += prod(-(-length // max(width, 1)) for length, width in pairs)
    taken, allowed = taken + sum(sizes), limits().bytes_at_open
    if taken > allowed or chunks > MOST_CHUNKS_AT_OPEN:
        size, array = max(zip(sizes, arrays, strict=True), key=lambda pair: pair[0])
        raise LimitError(
            f"Opening {array.location} would read {taken:,} bytes in {chunks:,} chunks; at most {allowed:,} "
            f"bytes in {MOST_CHUNKS_AT_OPEN:,} chunks are allowed. {array.node.path!r} declares "
            f"{array.size:,} elements, {size:,} bytes, in chunks of {array.chunks}.",
            location=array.location,
            path=array.node.path,
            found=(taken, chunks),
            expected=(allowed, MOST_CHUNKS_AT_OPEN),
            next_step="If the file is not damaged, open single objects with group=, or raise the limit with "
            "intake_nwbzarr.set_limits(bytes_at_open=...).",
        )
    return taken, chunks


def _bytes_of(array: StoredArray) -> int:
    return array.size * (STRING_AT_OPEN if array.dtype.kind == "O" else max(array.dtype.itemsize, 1))


def run_together[T](mappers: Iterable[Mapper[T]]) -> Mapper[list[T]]:
    """Combine mappers into one that requests the arrays of a round together."""
    # `first, second = yield from run_together([one(), other()])` takes as many rounds as the longer of the
    # two.
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
            values = yield from _one_by_one(wanted, running, results, error)
    return [results[number] for number in sorted(results)]


def _one_by_one[T](
    wanted: Mapping[int, Sequence[StoredArray]],
    running: dict[int, Mapper[T]],
    results: dict[int, T],
    error: ChunkError,
) -> Mapper[dict[int, Sequence[np.ndarray[Any, Any]] | None]]:
    """Serve mappers one after the other, throwing into each the error of its own damaged chunks."""
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
            results[number] = yield from _throw(running.pop(number), own)
    return values


def _throw[T](mapper: Mapper[T], error: ChunkError) -> Mapper[T]:
    """Throw an error into a mapper, then serve what it requests instead, to its end."""
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
    """Combine two mappers of different results."""
    mappers: list[Mapper[Any]] = [first, second]
    one, other = yield from run_together(mappers)
    return one, other


def values_of(arrays: Sequence[StoredArray]) -> Mapper[Sequence[np.ndarray[Any, Any]]]:
    """Read arrays in one round."""
    return (yield arrays)


def values_or_none(arrays: Sequence[StoredArray]) -> Mapper[list[np.ndarray[Any, Any] | None]]:
    """Read arrays; None, with a warning, for a damaged one."""
    try:
        return list((yield from values_of(arrays)))
    except ChunkError:
        found: list[np.ndarray[Any, Any] | None] = []
        for array in arrays:
            try:
                found += yield from values_of([array])
            except ChunkError as error:
                warn_caller(
                    f"{array.node.path!r} in {array.location} is skipped. {error}",
                    code=code_of_skipped(error),
                    path=array.node.path,
                )
                found.append(None)
        return found


def whole_values(
    arrays: Mapping[str, StoredArray],
) -> Mapper[tuple[dict[str, np.ndarray[Any, Any]], tuple[str, ...]]]:
    """Read arrays by name; return their values, and the paths of damaged ones, which are skipped."""
    values = yield from values_or_none(list(arrays.values()))
    pairs = list(zip(arrays.items(), values, strict=True))
    lost = tuple(array.node.path for (_, array), value in pairs if value is None)
    return {name: value for (name, _), value in pairs if value is not None}, lost


def stored(hierarchy: Hierarchy, node: ArrayNode) -> StoredArray:
    """Return the stored array of a node of the hierarchy's file."""
    return StoredArray(hierarchy.file, node)
