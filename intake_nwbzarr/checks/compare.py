"""Equality of values, attributes and arrays, and the findings that `verify` reports."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan, prod
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from intake_nwbzarr.checks.chunks import ChunkCounts, counted_chunks
from intake_nwbzarr.errors import ChunkError, NWBZarrError

# Elements compared at once, at the least one chunk: 32 MiB of float64.
BLOCK = 4 * 2**20

type Slices = tuple[slice, ...]


def same(raw: Any, shown: Any) -> bool:
    """Return whether an attribute has the same value as a field of pynwb.

    Attributes contain what netCDF and Zarr can store: booleans are 0 and 1 there, dates ISO texts, what is
    nested or mixed JSON, a single compound the list of its fields. pynwb, in turn, gives a single text as a
    tuple of one where it expects several.

    Examples
    --------
    >>> same(True, 1), same(float("nan"), float("nan")), same(("one",), "one"), same([[1]], "[[1]]")
    (True, True, True, True)
    >>> same(1, 2), same("1", 1), same([1, 2], [1])
    (False, False, False)
    """
    raw, shown = _plain(raw), _plain(shown)
    if isinstance(raw, dict) and isinstance(shown, list):
        # A single compound is a list of its fields.
        return same(list(raw.values()), shown)
    if isinstance(shown, str) and (isinstance(raw, list | dict) or _is_large(raw)):
        return _same_as_text(raw, shown)
    if isinstance(raw, list) and not isinstance(shown, list):
        return len(raw) == 1 and same(raw[0], shown)
    if isinstance(shown, list) and not isinstance(raw, list):
        return len(shown) == 1 and same(raw, shown[0])
    if isinstance(raw, list):
        return len(raw) == len(shown) and all(map(same, raw, shown))
    if isinstance(raw, dt.datetime | dt.date):
        return _same_date(raw, shown)
    if isinstance(raw, str) or isinstance(shown, str):
        return type(raw) is type(shown) and bool(raw == shown)
    if isinstance(raw, float) and isinstance(shown, float) and isnan(raw):
        return isnan(shown)
    return bool(raw == shown)


def _is_large(raw: Any) -> bool:
    """Return whether an integer is too large for an attribute, which is then text."""
    return isinstance(raw, int) and not -(2**63) <= raw < 2**63


def _same_as_text(raw: Any, shown: str) -> bool:
    if isinstance(raw, list) and len(raw) == 1 and same(raw[0], shown):
        return True
    try:
        parsed = json.loads(shown)
    except ValueError:
        return False
    if isinstance(raw, dict):
        return (
            isinstance(parsed, dict)
            and raw.keys() == parsed.keys()
            and all(same(raw[name], parsed[name]) for name in raw)
        )
    return type(parsed) is type(raw) and same(raw, parsed)


def _same_date(raw: dt.datetime | dt.date, shown: Any) -> bool:
    if not isinstance(shown, str):
        return False
    try:
        if not isinstance(raw, dt.datetime):
            return raw == dt.date.fromisoformat(shown)
        parsed = dt.datetime.fromisoformat(shown)
    except ValueError:
        return False
    # Equal moments of different zones are not the same text. Without a zone, the time is local.
    zoned = parsed if parsed.tzinfo is not None or raw.tzinfo is None else parsed.astimezone()
    return zoned.replace(tzinfo=None) == raw.replace(tzinfo=None) and zoned.utcoffset() == raw.utcoffset()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.item() if value.ndim == 0 else value.tolist()
    elif hasattr(value, "shape") and hasattr(value, "__getitem__"):
        return _plain(np.asarray(value[...] if value.shape == () else value[:]))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def blocks(shape: Sequence[int], chunks: Sequence[int] | None = None) -> Iterator[Slices]:
    """Yield slices that cover an array, each of whole chunks, of about `BLOCK` elements.

    Examples
    --------
    >>> list(blocks((3, 2)))
    [(slice(0, 3, None), slice(0, 2, None))]
    """
    lengths = [min(max(chunk, 1), max(size, 1)) for chunk, size in zip(chunks or shape, shape, strict=True)]
    if chunks is None:
        lengths = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        others = prod(lengths) // lengths[axis]
        times = max(1, BLOCK // max(others * lengths[axis], 1))
        lengths[axis] = min(lengths[axis] * times, max(shape[axis], 1))
    starts = (range(0, size, length) for size, length in zip(shape, lengths, strict=True))
    for corner in product(*starts):
        yield tuple(
            slice(start, min(start + length, size))
            for start, length, size in zip(corner, lengths, shape, strict=True)
        )


type Allowed = Callable[[], NDArray[Any]] | None
"""How far rounding may be from a block's values; called only where some differ."""

type Conversion = Callable[[NDArray[Any], Slices], tuple[NDArray[Any], Allowed]]


def unlike(raw: Any, shown: xr.Variable, conversion: Conversion | None = None) -> tuple[str, str] | None:
    """Return the first elements of an array and a variable that differ; None where they are equal.

    `conversion` gives, of a block, the values expected and how far rounding may be from them. Chunks that
    cannot be read are all listed, and the others are compared.
    """
    array = raw if hasattr(raw, "shape") else _listed(raw)
    if tuple(array.shape) != shown.shape:
        return f"shape {tuple(array.shape)}", f"shape {shown.shape}"
    chunks = _chunks(array, shown.ndim)
    damaged: list[tuple[list[int], Exception]] = []
    for place in blocks(shown.shape, chunks):
        try:
            found = _unlike_block(array, shown, conversion, place)
        except ChunkError:
            for part in _whole_chunks(place, chunks):
                try:
                    found = _unlike_block(array, shown, conversion, part)
                except ChunkError as error:
                    damaged.append(([each.start for each in part], error))
                else:
                    if found is not None:
                        return found
            continue
        if found is not None:
            return found
    return _damage(damaged)


MOST_DAMAGED: Final = 20
"""Damaged chunks of an array whose positions a finding lists."""


def _damage(damaged: Sequence[tuple[list[int], Exception]]) -> tuple[str, str] | None:
    if not damaged:
        return None
    text = f"cannot be read: {damaged[0][1]}"
    if damaged[1:]:
        places = ", ".join(str(place) for place, _ in damaged[:MOST_DAMAGED])
        more = f" and {len(damaged) - MOST_DAMAGED:,} more" if len(damaged) > MOST_DAMAGED else ""
        text += f" {len(damaged):,} chunks are damaged, at {places}{more}."
    return text, text


def _unlike_block(
    array: Any, shown: xr.Variable, conversion: Conversion | None, place: Slices
) -> tuple[str, str] | None:
    """Return the first elements of a block that differ, or its dtypes if only these do."""
    there = np.asarray(shown[place].values)
    try:
        block = np.asarray(array[place]) if place else np.asarray(array[...] if _lazy(array) else array)
    except OSError as error:
        if isinstance(error, NWBZarrError):
            raise
        return f"pynwb cannot read it: {error}", "read"
    allowed: Allowed = None
    if conversion is not None:
        block, allowed = conversion(block, place)
    found = _first_unlike(block, there, allowed)
    if found is not None:
        position = tuple(int(at) + part.start for at, part in zip(found, place, strict=True))
        where = f" at {list(position)}" if position else ""
        return f"{block[found]!r}{where}", f"{there[found]!r}{where}"
    return _type_mismatch(block.dtype, there.dtype)


def _whole_chunks(place: Slices, chunks: Sequence[int] | None) -> Iterator[Slices]:
    """Yield the chunks of a block."""
    axes = (
        [slice(at, min(at + max(width, 1), each.stop)) for at in range(each.start, each.stop, max(width, 1))]
        for each, width in zip(place, chunks or [each.stop for each in place], strict=True)
    )
    yield from product(*axes)


@dataclass(frozen=True)
class OneField:
    """One field of a lazy array of compounds, read when indexed."""

    compound: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the compounds."""
        return tuple(self.compound.shape)

    @property
    def chunks(self) -> Any:
        """Return the shape of the stored chunks; None of an array in memory."""
        return getattr(self.compound, "chunks", None)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        values: NDArray[Any] = np.asarray(self.compound[key])[self.name]
        return values


def _lazy(array: Any) -> bool:
    return not isinstance(array, np.ndarray | np.generic)


def _listed(raw: Any) -> NDArray[Any]:
    array = np.asarray(raw)
    return array.astype(object) if array.dtype.kind in "SU" else array


def _chunks(array: Any, ndim: int) -> tuple[int, ...] | None:
    """Return the shape of the stored chunks of a lazy array, or of its shards unless they are large."""
    found = getattr(array, "shards", None)
    # A shard of many chunks would be a block of gigabytes, once it is scaled.
    if not isinstance(found, tuple) or prod(found) > BLOCK:
        found = getattr(array, "chunks", None)
    return tuple(found) if isinstance(found, tuple) and len(found) == ndim else None


def _first_unlike(raw: NDArray[Any], shown: NDArray[Any], allowed: Allowed) -> Any:
    if raw.dtype.kind in "OSUT" or shown.dtype.kind in "OSUT":
        unequal = texts(raw) != texts(shown)
    else:
        with np.errstate(invalid="ignore"):
            unequal = raw != shown
            if not np.any(unequal):
                return None
            if raw.dtype.kind in "fc" and shown.dtype.kind in "fc":
                unequal &= ~((raw != raw) & (shown != shown))
            if allowed is not None:
                unequal &= ~(np.abs(raw - shown) <= allowed())
    found = np.argwhere(np.asarray(unequal, bool))
    return tuple(found[0]) if len(found) else None


def _type_mismatch(raw: np.dtype[Any], shown: np.dtype[Any]) -> tuple[str, str] | None:
    """Return dtypes that differ where values are equal: only floats may be wider, and texts of any dtype."""
    if raw.kind in "OSUT" and shown.kind in "OSUT":
        return None
    wider = raw.kind == "f" == shown.kind and shown.itemsize >= raw.itemsize
    return None if wider or raw.newbyteorder("=") == shown.newbyteorder("=") else (str(raw), str(shown))


def texts(array: NDArray[Any]) -> NDArray[Any]:
    """Return texts of any dtype as Python strings, and other objects unchanged."""
    result = np.empty(array.shape, object)
    for position, value in np.ndenumerate(array):
        result[position] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return result


# Characters of a value in a finding.
_LONGEST = 120


@dataclass(frozen=True)
class Equal:
    """A field that is equal in pynwb and xarray.

    Parameters
    ----------
    path
        The object, by its path in the file; the session itself is ``""``.
    name
        The field, as pynwb calls it; a table's column by its name.
    neurodata_type
        The object's type.
    """

    path: str
    name: str
    neurodata_type: str


@dataclass(frozen=True)
class Difference:
    """A field that differs between pynwb and xarray, or that only xarray shows.

    Parameters
    ----------
    path, name, neurodata_type
        As of `Equal`.
    raw, shown
        What pynwb has and what xarray has, shortened; of arrays, the first elements that differ, and where.
    """

    path: str
    name: str
    neurodata_type: str
    raw: str
    shown: str


@dataclass(frozen=True)
class Unshown:
    """A field, or a whole object where `name` is empty, that xarray does not show.

    Parameters
    ----------
    path, name, neurodata_type
        As of `Equal`.
    raw
        What pynwb has, shortened.
    """

    path: str
    name: str
    neurodata_type: str
    raw: str


type Finding = Equal | Difference | Unshown


@dataclass(frozen=True)
class Verification:
    """The result of comparing a file's raw object with its DataTree.

    Parameters
    ----------
    location
        The file.
    equal, different, unshown
        One record for each field of each object.
    chunks
        How many chunks its arrays may have, and how many are stored; None where the storage cannot be listed.
        An absent chunk is not a difference: both sides read it as fill values.
    """

    location: str
    equal: tuple[Equal, ...]
    different: tuple[Difference, ...]
    unshown: tuple[Unshown, ...]
    chunks: ChunkCounts | None = None

    @classmethod
    def of(cls, location: str, findings: Iterable[Finding]) -> Verification:
        """Sort findings by their kind."""
        found = list(findings)
        return cls(
            location,
            tuple(each for each in found if isinstance(each, Equal)),
            tuple(each for each in found if isinstance(each, Difference)),
            tuple(each for each in found if isinstance(each, Unshown)),
        )

    def by_type(self) -> dict[str, tuple[int, int, int]]:
        """Count the fields of each neurodata type that are equal, different and not shown, sorted by type."""
        counts: dict[str, list[int]] = {}
        sorts: tuple[tuple[Finding, ...], ...] = (self.equal, self.different, self.unshown)
        for sort, findings in enumerate(sorts):
            for finding in findings:
                counts.setdefault(finding.neurodata_type, [0, 0, 0])[sort] += 1
        return {name: (one, two, three) for name, (one, two, three) in sorted(counts.items())}

    @property
    def document(self) -> dict[str, Any]:
        """Return what ``nwbzarr verify --json`` prints."""
        return {
            "document": "nwbzarr-verify 1.0",
            "location": self.location,
            "equal": len(self.equal),
            "different": self.different,
            "unshown": self.unshown,
            "chunks": None if self.chunks is None else self.chunks.arrays,
        }

    @property
    def report(self) -> str:
        """Return what ``nwbzarr verify`` prints: a table by type, every finding, and absent chunks."""
        return "\n".join([self.fields_report, "", counted_chunks(self.chunks)])

    @property
    def fields_report(self) -> str:
        """Return a table by type, and every finding."""
        counts = self.by_type()
        width = max(map(len, counts), default=4)
        lines = [f"{self}", "", f"{'type':<{width}}  equal  different  not shown"]
        for neurodata_type, (equal, different, unshown) in counts.items():
            lines.append(f"{neurodata_type:<{width}}{equal:>7}{different:>11}{unshown:>11}")
        for each in self.different:
            where = _where(each.path, each.name)
            lines.append(f"\nDiffers: {where}\n  pynwb   {each.raw}\n  xarray  {each.shown}")
        lines += [
            f"\nNot shown: {_where(each.path, each.name)}\n  pynwb   {each.raw}" for each in self.unshown
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return (
            f"{self.location}: {len(self.equal)} fields equal, {len(self.different)} different, "
            f"{len(self.unshown)} not shown."
        )


def _where(path: str, name: str) -> str:
    return f"{path or '/'}: {name}" if name else path


def shortened(value: object) -> str:
    """Return a value as text that fits a line."""
    shape = getattr(value, "shape", ())
    if shape:
        text = f"array of {getattr(value, 'dtype', 'objects')}, shape {tuple(shape)}"
    else:
        text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
