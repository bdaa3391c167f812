"""What is stored with a time series, sorted by what it is for; from metadata alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.links import UNREACHABLE, Target
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.neurodata.axes import Axes
from intake_nwbzarr.neurodata.metadata import linked, scalar
from intake_nwbzarr.neurodata.pieces import stored
from intake_nwbzarr.neurodata.regions import is_region
from intake_nwbzarr.neurodata.types import ancestry, is_scalar

# Short lists that describe a series rather than sample it.
_DESCRIPTIONS = frozenset(
    {"control_description", "dimension", "external_file", "feature_units", "features", "field_of_view"}
)

# The parts of a series that may be shared with another, hence links; others need not be followed.
_SHARED = frozenset(
    {"data", "timestamps", "control", "channel_conversion", "electrodes", "rois", "source_channels"}
)

# What gives a series its times.
_EXPECTED = {"timestamps": "numbers along one dimension were", "starting_time": "one number was"}

# Longer lists are not read at open.
_LONGEST = 1000


@dataclass
class SeriesMembers:
    """The arrays and links of one series.

    Parameters
    ----------
    hierarchy, path
        The series.
    data, timestamps, starting_time, control, channel_conversion
        What TimeSeries and ElectricalSeries define.
    regions
        DynamicTableRegions by name: ``electrodes``, ``rois``.
    bands
        The columns of a DecompositionSeries' table of frequency bands.
    small
        Scalars and short lists, worth reading at open.
    scalars
        Names of those that are one value, though stored along a dimension.
    arrays
        Whatever else.
    links
        Links to other objects, as text.
    """

    hierarchy: Hierarchy
    path: str
    data: StoredArray | None = None
    timestamps: StoredArray | None = None
    starting_time: StoredArray | None = None
    control: StoredArray | None = None
    channel_conversion: StoredArray | None = None
    regions: dict[str, Target] = field(default_factory=dict)
    bands: dict[str, StoredArray] = field(default_factory=dict)
    small: dict[str, StoredArray] = field(default_factory=dict)
    scalars: set[str] = field(default_factory=set)
    arrays: dict[str, StoredArray] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The series' own name."""
        return self.path.rpartition("/")[2]

    @property
    def neurodata_type(self) -> str:
        """The series' type."""
        return self.hierarchy[self.path].neurodata_type or "TimeSeries"

    @property
    def lineage(self) -> tuple[str, ...]:
        """The series' type and all that it extends."""
        return ancestry(self.neurodata_type, self.hierarchy)

    @property
    def where(self) -> str:
        """The series, for warnings."""
        return f"{self.neurodata_type} {self.path!r} in {self.hierarchy.location}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the data."""
        return () if self.data is None else self.data.shape

    def axis_length(self, axes: Axes, name: str) -> int | None:
        """The length of the data's axis of that name, None where there is none."""
        return self.shape[axes.names.index(name)] if name in axes.names else None

    def region_length(self, name: str) -> int:
        """How many rows a region has."""
        node = self.regions[name].node
        return node.size if isinstance(node, ArrayNode) else 0

    @property
    def rate(self) -> float | None:
        """Samples a second, None where it is not stored or is no rate."""
        value: Any = scalar(
            None if self.starting_time is None else self.starting_time.node.attributes.get("rate")
        )
        return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


def series_members(hierarchy: Hierarchy, path: str) -> SeriesMembers:
    """Sort what is stored with a series.

    Parameters
    ----------
    hierarchy, path
        The series, free of links.

    Warns
    -----
    MappingWarning
        When a link to a part of the series leads nowhere; the series is shown without it.
    """
    found = SeriesMembers(hierarchy, path)
    for name, reference in hierarchy.links(path).items():
        if reference.source != "." and name not in _SHARED:
            found.links[name] = linked(reference)
    for name in hierarchy.members(path):
        if name in found.links:
            continue
        try:
            target = hierarchy.resolve(f"{path}/{name}")
            node = target.node
        except UNREACHABLE as error:
            if name not in hierarchy.links(path):
                raise  # the series' own array is damaged
            found.links[name] = linked(hierarchy.links(path)[name])
            warn_caller(f"{found.where} is shown without its {name!r}: {error}")
            continue
        if isinstance(node, ArrayNode):
            _sort(found, name, target, stored(target.hierarchy, node))
        elif name in hierarchy.links(path):
            found.links[name] = linked(hierarchy.links(path)[name])
        elif name == "bands":
            _add_bands(found, target)
    return found


def _sort(found: SeriesMembers, name: str, target: Target, array: StoredArray) -> None:
    if name in {"data", "control", "channel_conversion"} or (name == "timestamps" and _are_times(array)):
        setattr(found, name, array)
    elif name == "starting_time" and array.size == 1 and array.dtype.kind in "iuf":
        found.starting_time = array
    elif is_region(target):
        found.regions[name] = target
    elif array.ndim == 0 or (name in _DESCRIPTIONS and array.ndim == 1 and array.size <= _LONGEST):
        found.small[name] = array
    elif is_scalar(found.neurodata_type, name, array.node, found.hierarchy):
        found.small[name] = array
        found.scalars.add(name)
    else:
        found.arrays[name] = array
    if name in _EXPECTED and getattr(found, name) is None:
        warn_caller(
            f"{found.where} has {name} of {array.dtype} and shape {array.shape}, where {_EXPECTED[name]} "
            "expected: what is stored is shown as it is, and the data without times."
        )


def _are_times(array: StoredArray) -> bool:
    return array.ndim <= 1 and array.dtype.kind in "iuf"


def _add_bands(found: SeriesMembers, table: Target) -> None:
    for column in table.hierarchy.children(table.path):
        node = table.hierarchy[f"{table.path}/{column}"]
        if isinstance(node, ArrayNode) and node.ndim > 0:
            array = stored(table.hierarchy, node)
            if column == "band_name":
                found.small["bands"] = array
            elif column != "id":
                found.bands[column] = array
