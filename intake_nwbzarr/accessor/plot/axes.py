"""Axes, colors, labels and units shared by all quick-look plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.arguments import invalid_argument

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

INK = "#22223b"
ACCENT = "#d1495b"

# Tick labels per inch of an axis that do not overlap.
_TICKS_PER_INCH = 4

# The NWB schema spells units out.
_SYMBOLS = {
    "volts": "V",
    "volt": "V",
    "amperes": "A",
    "ampere": "A",
    "seconds": "s",
    "meters": "m",
    "m": "m",
    "V": "V",
    "A": "A",
    "s": "s",
}


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes passed, or those of a new figure."""
    from matplotlib.axes import Axes

    if isinstance(ax, Axes):
        return ax
    if ax is not None:
        raise invalid_argument("ax", ax, "matplotlib Axes")
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]


def checked_color(color: object) -> Any:
    """Return a matplotlib color, or None for None."""
    from matplotlib.colors import to_rgba

    if color is None:
        return None
    try:
        return to_rgba(color)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise invalid_argument("color", color, "a matplotlib color") from None


def with_units(name: str, variable: xr.Variable) -> str:
    """Return a label with the variable's units, unless they are unknown or missing."""
    units = str(variable.attrs.get("units", ""))
    return name if units.lower() in {"", "n/a", "n.a.", "na", "unknown"} else f"{name} [{units}]"


def ticks_with_units(axis: Axis, units: str) -> bool:
    """Label the ticks of an axis with an SI prefix and the unit, where it has a symbol; return whether."""
    symbol = _SYMBOLS.get(units)
    if symbol is None:
        return False
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(unit=symbol))
    return True


def quantity(value: float, units: str) -> str:
    """Return a number with its units, with an SI prefix where possible: ``200 µV``."""
    symbol = _SYMBOLS.get(units)
    if symbol is None:
        return f"{value:g} {units}".rstrip()
    from matplotlib.ticker import EngFormatter

    return str(EngFormatter(unit=symbol)(value))


def label_rows(ax: Axes, positions: Sequence[float], labels: Sequence[object]) -> None:
    """Label the rows of an axis, or as many as are readable."""
    figure = ax.get_figure(root=True)
    inches = ax.get_window_extent().height / (figure.dpi if figure is not None else 100)
    most = max(1, round(inches * _TICKS_PER_INCH))
    steps = (step * 10**power for power in range(len(str(len(positions))) + 1) for step in (1, 2, 5))
    every = next(step for step in steps if step * most >= len(positions))
    ax.set_yticks(positions[::every], [str(label) for label in labels[::every]])
    ax.tick_params(axis="y", length=0)


def without_frame(ax: Axes, *sides: str) -> None:
    """Hide the sides of the frame without a scale."""
    for side in ("top", "right", *sides):
        ax.spines[side].set_visible(False)
