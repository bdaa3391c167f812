"""The HTML document of a page: its head, which forbids everything from elsewhere, pictures, and its foot."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from intake_nwbzarr.accessor.html import STYLE, cut
from intake_nwbzarr.pages.picture import LeftOut, Picture

POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
"""The content security policy: no scripts, and nothing that would have to be fetched."""

_MOST_LINES: Final = 60

PICTURE_STYLE: Final = """
.nwbzarr .pictures { columns: 2 27rem; column-gap: 2em; }
.nwbzarr figure { margin: 0 0 1.8em; break-inside: avoid; min-width: 0; }
.nwbzarr figure h3 { font-size: 1em; margin: 0 0 .2em; }
.nwbzarr figure svg { display: block; width: 100%; height: auto; max-width: 40rem; }
.nwbzarr figcaption { font-size: .87em; color: var(--soft); margin-top: .3em; }
.nwbzarr .left-out li, .nwbzarr .notes li { margin: .2em 0; }
"""

_PAGE_STYLE: Final = """
:root { color-scheme: light dark; }
html { background: #fff; color: #1b1d22; }
body { margin: 0; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; box-sizing: border-box; }
footer { margin-top: 2.5em; font-size: .85em; opacity: .75; }
@media (prefers-color-scheme: dark) { html { background: #14161a; color: #e6e8ec; } }
@media print { details:not([open]) { display: none; } }
"""


GENERATOR: Final = '<meta name="generator" content="nwbzarr page">'
"""What tells a page, which may be replaced, from other files."""


def document(title: str, body: str, style: str = "") -> str:
    """Return a whole HTML document, which needs nothing but itself."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n{GENERATOR}\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{PICTURE_STYLE}{_PAGE_STYLE}{style}</style>\n</head>\n"
        f'<body>\n<main class="nwbzarr">\n{body}\n</main>\n</body>\n</html>\n'
    )


def pictures_html(pictures: Sequence[Picture]) -> str:
    """Return the pictures, each with its title and what it shows."""
    if not pictures:
        return ""
    figures = "\n".join(_figure(picture) for picture in pictures)
    return (
        f'<section aria-label="Pictures"><h2>Pictures</h2><div class="pictures">\n{figures}\n</div></section>'
    )


def _figure(picture: Picture) -> str:
    paths = ", ".join(picture.paths[:3]) + (
        f" and {len(picture.paths) - 3} more" if len(picture.paths) > 3 else ""
    )
    source = f"<br><small>{escape(cut(paths))}</small>" if paths else ""
    return (
        f"<figure><h3>{escape(picture.title)}</h3>{picture.svg}"
        f"<figcaption>{escape(picture.caption)}{source}</figcaption></figure>"
    )


def left_out_html(left_out: Sequence[LeftOut], notes: Sequence[str]) -> str:
    """Return a line for each picture that was left out, and the warnings."""
    lines = [f"{each.title or each.kind}: {each.reason}" for each in left_out]
    return _lines("Not drawn", "left-out", lines) + _lines("Warnings", "notes", notes)


def _lines(heading: str, kind: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    shown = [*map(cut, lines[:_MOST_LINES])]
    if len(lines) > _MOST_LINES:
        shown.append(f"and {len(lines) - _MOST_LINES:,} more")
    items = "".join(f"<li>{escape(line)}</li>" for line in shown)
    return f'<section class="{kind}"><h2>{heading}</h2><ul>{items}</ul></section>'
