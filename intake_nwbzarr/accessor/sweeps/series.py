"""The series that are stimuli and responses: scaled data, rate, start and settings, from metadata alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from intake_nwbzarr.accessor.sweeps.arrays import Segment
from intake_nwbzarr.arrays import ScaledArray, StoredArray, scaled
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Reference, Target, parse_reference
from intake_nwbzarr.mapping.model import read_pieces, values_of
from intake_nwbzarr.mapping.series_members import SeriesMembers, series_members
from intake_nwbzarr.mapping.series_parts import number


@dataclass(frozen=True)
class Extent:
    """Samples of a series, as a table of recordings refers to them.

    Parameters
    ----------
    reference
        The series.
    start, count
        Which of its samples; a count of None is all of them.
    """

    reference: Reference
    start: int = 0
    count: int | None = None


@dataclass(frozen=True)
class SweepSeries:
    """What a sweep needs to know of a series.

    Parameters
    ----------
    path, neurodata_type
        The series.
    array
        Its data in units, ``(time,)``.
    unit
        What they are in, None where that is not stored.
    rate
        Samples a second, None where there are timestamps instead.
    starting_time
        Of its first sample, in seconds; NaN where there are timestamps instead.
    timestamps
        Of its samples.
    settings
        Scalars that are stored with it: ``gain``, ``bias_current``.
    """

    path: str
    neurodata_type: str
    array: StoredArray | ScaledArray
    unit: str | None
    rate: float | None
    starting_time: float
    timestamps: StoredArray | None = None
    settings: Mapping[str, StoredArray] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """The stimulus or the response of one recording."""

    series: SweepSeries
    start: int
    count: int

    @property
    def segment(self) -> Segment:
        """Its samples."""
        return Segment(self.series.array, self.start, self.count)

    @property
    def timestamps(self) -> Segment | None:
        """Their times, where these are stored."""
        times = self.series.timestamps
        return None if times is None else Segment(times, self.start, self.count)

    @property
    def starting_time(self) -> float:
        """When its first sample was taken, in seconds."""
        rate = self.series.rate
        return self.series.starting_time + (self.start / rate if rate else 0.0)


def read_sides(hierarchy: Hierarchy, extents: Iterable[Extent | None]) -> list[Side | None]:
    """Find the series that extents refer to, and read when they start, all in one gather.

    Parameters
    ----------
    hierarchy
        The file.
    extents
        What is wanted, None where nothing was recorded.

    Returns
    -------
    list
        One entry for each extent, None also where it leads to nothing that can be a sweep.

    Warns
    -----
    MappingWarning
        When an extent leads nowhere, to something other than a series of one-dimensional data, or beyond the
        end of its data: it is then left out, or cut at the end.
    """
    extents = list(extents)
    wanted = dict.fromkeys(extent.reference for extent in extents if extent is not None)
    members = {reference: _members(hierarchy, reference) for reference in wanted}
    starts = [found.starting_time for found in members.values() if found and found.starting_time]
    (values,) = read_pieces([values_of(starts)])
    seconds = {array: float(value.item()) for array, value in zip(map(id, starts), values, strict=True)}
    series = {
        reference: _series(found, seconds.get(id(found.starting_time), float("nan")))
        for reference, found in members.items()
        if found is not None
    }
    return [_side(extent, series) for extent in extents]


def target_of(hierarchy: Hierarchy, value: str | Reference, what: str) -> Target | None:
    """What a stored reference leads to; None, with a warning, where that is nothing."""
    try:
        target = hierarchy.reference(value)
        _ = target.node
    except UNREACHABLE as error:
        warn_caller(f"{what} in {hierarchy.location} is left out of the sweeps: {error}")
        return None
    return target


def reference_to(value: object, hierarchy: Hierarchy) -> Reference:
    """An object reference as it is stored."""
    return parse_reference(str(value), where=f"A reference in {hierarchy.location}")


def _members(hierarchy: Hierarchy, reference: Reference) -> SeriesMembers | None:
    target = target_of(hierarchy, reference, f"The series {reference.path!r}")
    if target is None:
        return None
    members = series_members(target.hierarchy, target.path)
    data = members.data
    if data is None or data.ndim != 1 or data.dtype.kind not in "biuf":
        found = "no data" if data is None else f"data of shape {data.shape} and type {data.dtype}"
        warn_caller(f"{members.where} has {found}, where a sweep is a series of numbers: it is left out.")
        return None
    return members


def _series(members: SeriesMembers, starting_time: float) -> SweepSeries:
    data = members.data
    assert data is not None  # noqa: S101 - for the type checker; `_members` looked.
    attributes = data.node.attributes
    unit = attributes.get("unit")
    irregular = members.timestamps is not None and members.timestamps.shape == data.shape
    settings = {
        name: array for name, array in members.small.items() if array.ndim == 0 and array.dtype.kind in "biuf"
    }
    return SweepSeries(
        path=members.path,
        neurodata_type=members.neurodata_type,
        array=scaled(
            data,
            number(attributes, "conversion", 1.0, members.where),
            number(attributes, "offset", 0.0, members.where),
        ),
        unit=None if unit is None else str(unit),
        rate=None if irregular else members.rate,
        starting_time=starting_time,
        timestamps=members.timestamps if irregular else None,
        settings=settings,
    )


def _side(extent: Extent | None, series: Mapping[Reference, SweepSeries]) -> Side | None:
    found = None if extent is None else series.get(extent.reference)
    if extent is None or found is None:
        return None
    size = found.array.size
    count = size - extent.start if extent.count is None else extent.count
    if extent.start + count > size:
        warn_caller(
            f"A recording refers to the samples {extent.start} to {extent.start + count} of {found.path!r}, "
            f"which has {size}: what is beyond them is left out."
        )
        count = max(size - extent.start, 0)
    return Side(found, extent.start, count)
