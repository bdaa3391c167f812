"""Figures as inline SVG that reads well in light and dark colours, and small PNG pictures of them."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from intake_nwbzarr.accessor.plot.axes import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 5.4
"""Inches of a picture, which phones show at two thirds of that, and screens beside another one."""

DATA: Final = "#3a86c8"
"""The colour of data, which has enough contrast on white and on nearly black."""

COLORS: Final = ("#3a86c8", "#e07a1f", "#3f9b57", "#c9527a", "#8a6fd1", "#b58a00", "#1a9aa0", "#d1495b")
"""The same for several kinds, which follow one another."""

# Dots per inch of parts that are drawn as pixels.
_DPI = 130

_THUMBNAIL_COLORS = 32

_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names may hold dollar signs
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.formatter.useoffset": False,
}

_NUMBER = re.compile(r"-?\d+\.\d+")
_PATH = re.compile(r'(?<= d=")[^"]*')
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r'(?:url\(#|href="#)([^")]+)')


@contextmanager
def styled(salt: str = "") -> Iterator[None]:
    """Draw in the style of pages; the salt makes the names in an SVG its own, the same each time."""
    import matplotlib as mpl

    with mpl.rc_context():
        # Not in the style that a user has set for other figures.
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]  # names in variables
        mpl.rcParams["svg.hashsalt"] = salt or "page"
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return a figure that pyplot does not know of."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=72)
    FigureCanvasSVG(figure)
    return figure


def as_svg(figure: Figure, alt: str) -> str:
    """Return a figure as an SVG element, whose black is the colour of the text around it."""
    from html import escape

    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", dpi=_DPI, metadata=nothing)
    text = written.getvalue()
    # Without the prologue, which has no place inside of HTML.
    text = text[text.index("<svg") :].strip()
    text = _PATH.sub(lambda found: _NUMBER.sub(_rounded, found.group()), text)
    used = set(_USED.findall(text))
    text = _ID.sub(lambda found: found.group() if found.group(1) in used else "", text)
    text = text.replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return f'<svg role="img" aria-label="{escape(alt)}"{text.removeprefix("<svg")}'


def _rounded(found: re.Match[str]) -> str:
    """Return a coordinate to a hundredth of a point."""
    return f"{float(found.group()):.2f}".rstrip("0").rstrip(".")


def as_thumbnail(figure: Figure) -> str:
    """Return a small picture of a figure without its texts, as a data URL."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image  # which matplotlib depends on

    FigureCanvasAgg(figure)
    for axes in figure.axes:
        axes.set_axis_off()
        axes.set_title("")
        for text in (*axes.texts, *([] if (legend := axes.get_legend()) is None else [legend])):
            text.set_visible(False)
    for text in figure.texts:
        text.set_visible(False)
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=52, transparent=True, metadata={"Software": None})
    # Few colours make them a third as large, of which an index has hundreds.
    small = io.BytesIO()
    with Image.open(written) as picture:
        picture.quantize(_THUMBNAIL_COLORS, method=Image.Quantize.FASTOCTREE).save(
            small, "png", optimize=True
        )
    return f"data:image/png;base64,{base64.b64encode(small.getvalue()).decode()}"


def offset_times(figure: Figure) -> None:
    """Take from the ticks of times far from 0 what they have in common, and say it in the label."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        if axes.get_xlabel() != "time [s]" or abs(low) < 1e5 or high - low > abs(low) / 1000 or high <= low:
            continue
        step = 10.0 ** math.ceil(math.log10(high - low))
        offset = math.floor((low + 0.02 * (high - low)) / step) * step
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _, offset=offset: f"{x - offset:g}"))
        axes.set_xlabel(f"time [s] + {offset:,.10g}")


@contextmanager
def recoloured(axes: Axes, color: str = DATA) -> Iterator[None]:
    """Draw lines, which the quick-look plots draw in the colour of text, in the colour of data."""
    before = set(axes.lines)
    yield
    for line in axes.lines:
        if line not in before and line.get_clip_on():
            line.set_color(color)


type Draw = Callable[[Figure], None]
"""Draws into a figure what was read for it."""
