"""An index of many sessions: an HTML file with a small picture of each, and links to their pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from intake_nwbzarr.accessor.html import cut
from intake_nwbzarr.copies.local_files import write_local
from intake_nwbzarr.pages.html import document
from intake_nwbzarr.pages.page import Page, replaceable
from intake_nwbzarr.pages.picture import reason_of
from intake_nwbzarr.transport.request_log import counted, readable_size

INDEX: Final = "index.html"

_STYLE: Final = """
.nwbzarr .cards { list-style: none; margin: 0; padding: 0; display: grid; gap: 1em;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.nwbzarr .cards li { border: 1px solid var(--line); border-radius: .5em; padding: .8em; min-width: 0; }
.nwbzarr .cards a { color: inherit; font-weight: 600; }
.nwbzarr .cards img { display: block; width: 100%; height: 9rem; object-fit: contain; margin-bottom: .6em; }
.nwbzarr .cards p { margin: .2em 0 0; font-size: .87em; color: var(--soft); }
"""

# Characters of a session's name that a file's name keeps.
_LONGEST: Final = 80


@dataclass(frozen=True)
class IndexedPage:
    """A session in an index.

    Parameters
    ----------
    location, title
        Of the session.
    file
        The name of its page in the folder.
    pictures, left_out
        How many pictures it has, and how many were left out.
    requests, received
        What it took.
    facts
        Start, subject and species.
    thumbnail
        A small picture as a data URL.
    """

    location: str
    title: str
    file: str
    pictures: int
    left_out: int
    requests: int
    received: int
    facts: Mapping[str, str]
    thumbnail: str


@dataclass(frozen=True)
class PageIndex:
    """The index of many sessions, as `SessionCatalog.page` returns it.

    Parameters
    ----------
    folder
        With ``index.html``, and a page of each session.
    pages
        The sessions that have a page.
    failures
        Why the others have none, by location.
    """

    folder: str
    pages: tuple[IndexedPage, ...]
    failures: Mapping[str, str]

    @property
    def output(self) -> str:
        """Return the file of the index."""
        return str(Path(self.folder) / INDEX)

    @property
    def document(self) -> dict[str, Any]:
        """Return all of it without the pictures, for JSON."""
        pages = [
            {name: value for name, value in asdict(each).items() if name != "thumbnail"}
            for each in self.pages
        ]
        return {"folder": self.folder, "output": self.output, "pages": pages, "failures": dict(self.failures)}

    def __str__(self) -> str:
        failed = f", {len(self.failures):,} failed" if self.failures else ""
        received = readable_size(sum(each.received for each in self.pages))
        lines = [f"{self.output}: {counted(len(self.pages), 'session')}{failed}, {received} received"]
        return "\n".join([*lines, *(f"  {location}: {reason}" for location, reason in self.failures.items())])


def write_index(
    folder: Path, sessions: Iterable[tuple[str, Callable[[Path], Page]]], note: Callable[[str], None]
) -> PageIndex:
    """Write the page of each session to a folder, and then the index of them.

    Parameters
    ----------
    folder
        Made if it does not exist; pages of the same names are replaced.
    sessions
        The location of each, and a function that writes its page to a file.
    note
        Called with ``done`` or ``failed`` after each.
    """
    replaceable(folder / INDEX)
    folder.mkdir(parents=True, exist_ok=True)
    taken = {INDEX}
    pages: list[IndexedPage] = []
    failures: dict[str, str] = {}
    for location, make in sessions:
        name = file_name(location, taken)
        try:
            made = make(folder / name)
        except Exception as error:
            failures[location] = reason_of(error)
            note("failed")
            continue
        pages.append(indexed(made, name))
        note("done")
    return finished_index(folder, pages, failures)


def indexed(page: Page, name: str) -> IndexedPage:
    """Return what an index says of a page, without the page itself."""
    return IndexedPage(
        page.location, page.title, name, len(page.pictures), len(page.left_out), page.requests, page.received,
        page.facts, page.thumbnail,
    )  # fmt: skip


def finished_index(folder: Path, pages: list[IndexedPage], failures: Mapping[str, str]) -> PageIndex:
    """Write the index of pages that are in a folder."""
    write_local(replaceable(folder / INDEX), index_html(pages, failures).encode())
    return PageIndex(str(folder), tuple(pages), dict(failures))


def file_name(location: str, taken: set[str]) -> str:
    """Return a name for the page of a session that no other one has, and take it."""
    # The last part of a path; of a URL without its query, which may be a secret.
    last = re.split(r"[?#]", location)[0].rstrip("/").rpartition("/")[2]
    own = re.sub(r"[^A-Za-z0-9._-]+", "_", last).strip("._")[:_LONGEST] or "session"
    own = re.sub(r"(\.nwb)?(\.zarr)?(\.zip)?$", "", own) or "session"
    number, name = 1, f"{own}.html"
    while name.lower() in taken:
        number += 1
        name = f"{own}-{number}.html"
    taken.add(name.lower())
    return name


def index_html(pages: Iterable[IndexedPage], failures: Mapping[str, str]) -> str:
    """Return the document of an index."""
    cards = [_card(page) for page in pages]
    title = counted(len(cards), "session")
    listed = f'<ul class="cards">{"".join(cards)}</ul>' if cards else "<p>No session has a page.</p>"
    failed = "".join(
        f"<li><b>{escape(cut(location))}</b>: {escape(reason)}</li>" for location, reason in failures.items()
    )
    failed = f"<section><h2>{len(failures):,} failed</h2><ul>{failed}</ul></section>" if failures else ""
    return document(title, f"<header><h1>{title}</h1></header>{listed}{failed}", _STYLE)


def _card(page: IndexedPage) -> str:
    picture = f'<img src="{escape(page.thumbnail)}" alt="">' if page.thumbnail else ""
    facts = ", ".join(page.facts.values())
    number = counted(page.pictures, "picture")
    return (
        f'<li>{picture}<a href="{escape(quote(page.file))}">{escape(page.title)}</a>'
        f"<p>{escape(facts)}</p><p>{escape(cut(page.location))}</p><p>{number}</p></li>"
    )
