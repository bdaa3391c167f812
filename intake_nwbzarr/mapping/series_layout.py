"""The layout of a TimeSeries: its datasets, links and attributes, and the names of its data's axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import warn_caller
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, Target
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.mapping.attributes import linked, scalar
from intake_nwbzarr.mapping.model import stored
from intake_nwbzarr.mapping.regions import is_region
from intake_nwbzarr.mapping.schema import DimensionNames, ancestry, is_scalar
from intake_nwbzarr.untrusted_input import LONGEST_ATTRIBUTE

# The names of dimensions for the schema's names, which differ between types.
_WORDS = {
    "num_times": "time",
    "frame": "time",
    "num_events": "event",
    "num_channels": "channel",
    "num_samples": "sample",
    "num_features": "feature",
    "num_bands": "band",
    "num_rois": "roi",
    "num_ROIs": "roi",
    "width": "x",
    "height": "y",
    "depth": "z",
    "number of non-zero values": "nonzero",
    "number of rows in the matrix + 1": "row_bound",
    "num_images": "image",
    "num_DIM2": "dim_1",
    "num_DIM3": "dim_2",
    "num_DIM4": "dim_3",
}

# Rows and columns of a map (ImagingRetinotopy); rows without columns are those of a table.
_OF_MAPS = {"num_rows": "y", "num_cols": "x"}


@dataclass(frozen=True)
class Axes:
    """The names of an array's dimensions, one for each axis as stored."""

    names: tuple[str, ...]  # ("time", "channel")
    # labels that the schema defines: {"axis": ("x", "y")}
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    schema_order: tuple[str, ...] | None = None  # the schema's order, if the stored one differs


def schema_axes(alternatives: Sequence[DimensionNames], shape: Sequence[int], *, series: bool = True) -> Axes:
    """Return the schema's names for the axes of an array; further axes are ``dim_<k>``.

    >>> schema_axes([(("num_times",), ("num_times", "x,y"))], (100, 2))
    Axes(names=('time', 'axis'), labels={'axis': ('x', 'y')}, schema_order=None)
    """
    # `alternatives` are those of the type, then of its ancestors: the nearest with this number of dimensions
    # is used. The first axis of a series' data is time, whatever its name in the schema.
    for options in alternatives:
        for option in options:
            if len(option) != len(shape):
                continue
            if (axes := _fitting(option, options, shape, series=series)) is not None:
                return axes
    shorter = [option for option in alternatives[0] if len(option) < len(shape)]
    longest = max(shorter, key=lambda option: len(option), default=("time",))
    start = tuple(_word(name) for name in longest)
    names = start[: len(shape)] + tuple(f"dim_{axis}" for axis in range(len(start), len(shape)))
    return Axes(names)


def rows_first(axes: Axes) -> Axes:
    """Return the axes of an image that is stored with rows first, unlike in the schema."""
    other = {"x": "y", "y": "x"}
    return replace(axes, names=tuple(other.get(name, name) for name in axes.names))


def _fitting(
    option: tuple[str, ...], options: DimensionNames, shape: Sequence[int], *, series: bool
) -> Axes | None:
    names: list[str] = []
    labels: dict[str, tuple[str, ...]] = {}
    for axis, name in enumerate(option):
        # "x,y" lists the labels of an axis; "x" in the same place of an alternative shape does so too.
        listed = any("," in other[axis] for other in options if len(other) == len(option))
        if not listed:
            is_time = series and axis == 0 and name != "num_events"
            names.append("time" if is_time else _OF_MAPS[name] if "num_cols" in option else _word(name))
            continue
        each = tuple(label.strip() for label in name.split(","))
        if len(each) != shape[axis]:
            return None
        names.append("color" if each[0] == "r" else "axis")
        labels[names[-1]] = each
    return Axes(_distinct(names), labels)


def _word(name: str) -> str:
    if name in _WORDS:
        return _WORDS[name]
    if name.startswith("num_"):
        return name.removeprefix("num_").removesuffix("s")
    return name


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, made unique: an extension may give two axes the same name."""
    return tuple(f"{name}_{axis}" if name in names[:axis] else name for axis, name in enumerate(names))


def fit_lengths(axes: Axes, shape: Sequence[int], lengths: Mapping[str, int]) -> Axes:
    """Swap names of axes where a known length matches another axis than the schema's.

    >>> fit_lengths(Axes(("time", "roi")), (219, 2000), {"roi": 219}).names
    ('roi', 'time')
    """
    # `lengths` are known from elsewhere: of time from timestamps, of channel or roi from a region. A length
    # that matches no axis changes nothing.
    names = list(axes.names)
    for name, length in lengths.items():
        if name not in names or shape[names.index(name)] == length:
            continue
        here = names.index(name)
        for there, other in enumerate(names):
            settled = lengths.get(other) == shape[there]
            if shape[there] == length and not settled and other not in axes.labels:
                names[here], names[there] = names[there], names[here]
                break
    if tuple(names) == axes.names:
        return axes
    return Axes(tuple(names), axes.labels, axes.names)


# Short lists that describe a series.
_DESCRIPTIONS = frozenset(
    {"control_description", "dimension", "external_file", "feature_units", "features", "field_of_view"}
)

# The datasets of a series that may be shared with another by a link; other links are not followed.
_SHARED = frozenset(
    {"data", "timestamps", "control", "channel_conversion", "electrodes", "rois", "source_channels"}
)

# The datasets with a series' times, and what they must be.
_EXPECTED = {"timestamps": "numbers along one dimension", "starting_time": "one number"}


@dataclass
class SeriesMembers:
    """The datasets, regions and links of one series."""

    hierarchy: Hierarchy
    path: str
    data: StoredArray | None = None
    timestamps: StoredArray | None = None
    starting_time: StoredArray | None = None
    control: StoredArray | None = None
    channel_conversion: StoredArray | None = None
    regions: dict[str, Target] = field(default_factory=dict)  # DynamicTableRegions by name: electrodes, rois
    # the columns of a DecompositionSeries' table of frequency bands
    bands: dict[str, StoredArray] = field(default_factory=dict)
    # scalars and short lists, which are read on opening
    small: dict[str, StoredArray] = field(default_factory=dict)
    scalars: set[str] = field(default_factory=set)  # names of scalars that are stored with shape (1,)
    arrays: dict[str, StoredArray] = field(default_factory=dict)  # all other datasets
    links: dict[str, str] = field(default_factory=dict)  # links to other objects, as text

    @property
    def name(self) -> str:
        """Return the series' own name."""
        return self.path.rpartition("/")[2]

    @property
    def neurodata_type(self) -> str:
        """Return the series' type."""
        return self.hierarchy[self.path].neurodata_type or "TimeSeries"

    @property
    def lineage(self) -> tuple[str, ...]:
        """Return the series' type and all types that it extends."""
        return ancestry(self.neurodata_type, self.hierarchy)

    @property
    def where(self) -> str:
        """Return the series' type, path and location, for warnings."""
        return f"{self.neurodata_type} {self.path!r} in {self.hierarchy.location}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the data."""
        return () if self.data is None else self.data.shape

    def axis_length(self, axes: Axes, name: str) -> int | None:
        """Return the length of an axis of the data by name, or None."""
        return self.shape[axes.names.index(name)] if name in axes.names else None

    def region_length(self, name: str) -> int:
        """Return the number of rows of a region."""
        node = self.regions[name].node
        return node.size if isinstance(node, ArrayNode) else 0

    @property
    def rate(self) -> float | None:
        """Return the samples per second, None if not stored or not a valid rate."""
        value: Any = scalar(
            None if self.starting_time is None else self.starting_time.node.attributes.get("rate")
        )
        return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


def series_layout(hierarchy: Hierarchy, path: str) -> SeriesMembers:
    """Sort the datasets and links of a series by how they are mapped."""
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
            warn_caller(
                f"{found.where} is mapped without its {name!r}: {error}", code="dangling-link", path=path
            )
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
    elif array.ndim == 0 or (name in _DESCRIPTIONS and array.ndim == 1 and array.size <= LONGEST_ATTRIBUTE):
        found.small[name] = array
    elif is_scalar(found.neurodata_type, name, array.node, found.hierarchy):
        found.small[name] = array
        found.scalars.add(name)
    else:
        found.arrays[name] = array
    if name in _EXPECTED and getattr(found, name) is None:
        warn_caller(
            f"{found.where} has {name} of {array.dtype} and shape {array.shape} instead of "
            f"{_EXPECTED[name]}: they are mapped as stored, and the data have no times.",
            code="invalid-times",
            path=found.path,
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
