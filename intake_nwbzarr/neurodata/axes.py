"""Which axis of a series is which: the schema's names, checked against the lengths that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    "num_DIM2": "dim_1",
    "num_DIM3": "dim_2",
    "num_DIM4": "dim_3",
}


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


def schema_axes(alternatives: Sequence[DimensionNames], shape: Sequence[int]) -> Axes:
    """The schema's names for the axes of an array.

    Parameters
    ----------
    alternatives
        What the type itself allows, then what its ancestors do.
    shape
        The array's.

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
            if len(option) == len(shape) and (axes := _fitting(option, options, shape)) is not None:
                return axes
    shorter = [option for option in alternatives[0] if len(option) < len(shape)]
    longest = max(shorter, key=lambda option: len(option), default=("time",))
    start = tuple(_word(name) for name in longest)
    names = start[: len(shape)] + tuple(f"dim_{axis}" for axis in range(len(start), len(shape)))
    return Axes(names)


def _fitting(option: tuple[str, ...], options: DimensionNames, shape: Sequence[int]) -> Axes | None:
    names: list[str] = []
    labels: dict[str, tuple[str, ...]] = {}
    for axis, name in enumerate(option):
        # "x,y" lists the axis's labels; so does the "x" that stands in the same place of a sibling option.
        listed = any("," in other[axis] for other in options if len(other) == len(option))
        if not listed:
            names.append("time" if axis == 0 and name != "num_events" else _word(name))
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
