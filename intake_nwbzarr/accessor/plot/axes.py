"""What all pictures share: where to draw, and how labels and units are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.arguments import describe_value
from intake_nwbzarr.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#22223b"
ACCENT = "#d1495b"

# Labels that go below each other without touching, in an inch of an axis.
_TICKS_PER_INCH = 4

# The schema writes units out.
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
    """The axes given, or those of a new figure."""
    from matplotlib.axes import Axes

    if isinstance(ax, Axes):
        return ax
    if ax is not None:
        raise OptionError(f"ax must be Axes of matplotlib, not {describe_value(ax)}.")
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]


def checked_color(color: object) -> Any:
    """A color that matplotlib knows, None where none is given.

    Raises
    ------
    OptionError
        When it is anything else.
    """
    from matplotlib.colors import to_rgba

    if color is None:
        return None
    try:
        return to_rgba(color)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise OptionError(
            f"color must be a color that matplotlib knows, not {describe_value(color)}."
        ) from None


def with_units(name: str, variable: xr.Variable) -> str:
    """A label with the variable's units, where it has any that say something."""
    units = str(variable.attrs.get("units", ""))
    return name if units.lower() in {"", "n/a", "n.a.", "na", "unknown"} else f"{name} [{units}]"


def amount(value: float, units: str) -> str:
    """A number with its units, with a prefix where the unit takes one: ``200 µV``."""
    symbol = _SYMBOLS.get(units)
    if symbol is None:
        return f"{value:g} {units}".rstrip()
    from matplotlib.ticker import EngFormatter

    return str(EngFormatter(unit=symbol)(value))


def label_rows(ax: Axes, positions: Sequence[float], labels: Sequence[object]) -> None:
    """Label rows of an axis, few enough to be read."""
    figure = ax.get_figure(root=True)
    inches = ax.get_window_extent().height / (figure.dpi if figure is not None else 100)
    most = max(1, round(inches * _TICKS_PER_INCH))
    steps = (step * 10**power for power in range(len(str(len(positions))) + 1) for step in (1, 2, 5))
    every = next(step for step in steps if step * most >= len(positions))
    ax.set_yticks(positions[::every], [str(label) for label in labels[::every]])
    ax.tick_params(axis="y", length=0)


def without_frame(ax: Axes, *sides: str) -> None:
    """Take away sides of the frame that carry no scale."""
    for side in ("top", "right", *sides):
        ax.spines[side].set_visible(False)
