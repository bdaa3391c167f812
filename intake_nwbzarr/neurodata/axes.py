"""Which axis of a series is which: the schema's names, checked against the lengths that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from intake_nwbzarr.neurodata.schema import DimensionNames

# The schema's names, which differ from type to type, in the words used here.
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

# Rows and columns of a map (ImagingRetinotopy), where rows alone are those of a table.
_OF_MAPS = {"num_rows": "y", "num_cols": "x"}


@dataclass(frozen=True)
class Axes:
    """The names of a series' dimensions, one for each axis as it is stored.

    Parameters
    ----------
    names
        ``("time", "channel")``.
    labels
        Labels that the schema itself gives: ``{"axis": ("x", "y")}``.
    schema_order
        The order the schema has, where the stored one differs.
    """

    names: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    schema_order: tuple[str, ...] | None = None


def schema_axes(alternatives: Sequence[DimensionNames], shape: Sequence[int], *, series: bool = True) -> Axes:
    """The schema's names for the axes of an array.

    Parameters
    ----------
    alternatives
        What the type itself allows, then what its ancestors do.
    shape
        The array's.
    series
        Whether it is the data of a series, whose first axis is time whatever the schema calls it.

    Returns
    -------
    Axes
        Of the nearest type that allows as many dimensions; where none does, further axes are ``dim_<k>``.

    Examples
    --------
    >>> schema_axes([(("num_times",), ("num_times", "x,y"))], (100, 2))
    Axes(names=('time', 'axis'), labels={'axis': ('x', 'y')}, schema_order=None)
    """
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
    """The axes of an image whose rows are stored first, which the schema has last."""
    other = {"x": "y", "y": "x"}
    return replace(axes, names=tuple(other.get(name, name) for name in axes.names))


def _fitting(
    option: tuple[str, ...], options: DimensionNames, shape: Sequence[int], *, series: bool
) -> Axes | None:
    names: list[str] = []
    labels: dict[str, tuple[str, ...]] = {}
    for axis, name in enumerate(option):
        # "x,y" lists the axis's labels; so does the "x" that stands in the same place of a sibling option.
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
    """Names of which none occurs twice: an extension may call two axes the same."""
    return tuple(f"{name}_{axis}" if name in names[:axis] else name for axis, name in enumerate(names))


def fit_lengths(axes: Axes, shape: Sequence[int], lengths: Mapping[str, int]) -> Axes:
    """Exchange names where a known length fits another axis and not the one the schema says.

    Parameters
    ----------
    axes
        The schema's.
    shape
        The array's.
    lengths
        What is known from elsewhere: of ``time`` from timestamps, of ``channel`` or ``roi`` from a region.

    Returns
    -------
    Axes
        With `schema_order` where names were exchanged. A length that fits no axis changes nothing.

    Examples
    --------
    >>> fit_lengths(Axes(("time", "roi")), (219, 2000), {"roi": 219}).names
    ('roi', 'time')
    """
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
