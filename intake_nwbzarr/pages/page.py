"""One HTML file that shows a session to a person: who, what and when, and pictures from bounded reads."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intake_nwbzarr.accessor.contents import shown_objects
from intake_nwbzarr.accessor.html import STYLE, brief_facts, header_html, objects_html, plain
from intake_nwbzarr.accessor.times import indexed_times
from intake_nwbzarr.arguments import check_bool, local_path, takes_storage_options
from intake_nwbzarr.checks.session_info import extension_versions
from intake_nwbzarr.copies.local_files import write_local
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, load_hierarchy
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.pages.html import GENERATOR, PICTURE_STYLE, document, left_out_html, pictures_html
from intake_nwbzarr.pages.picture import LeftOut, PageProgress, Picture, own_name, parent, reason_of
from intake_nwbzarr.transport.request_log import counted, readable_size, track_requests

if TYPE_CHECKING:
    import xarray as xr
    from zarr.abc.store import Store

_MOST_WARNINGS = 200

# Series without times, of which some of each kind are opened again; how many of a kind, and of all.
_MANY = 100
_OF_KIND = 8
_MOST_TIMED = 200


@dataclass(frozen=True)
class Page:
    """A session's page, as `page` returns it; in a notebook, it is shown.

    Parameters
    ----------
    location
        Of the session, without secrets.
    title
        The description of the session.
    output
        The file that was written; None without one.
    pictures
        In the order in which they are shown.
    left_out
        Pictures that were not drawn, and why.
    notes
        Warnings about the session.
    requests, received
        How many requests, and bytes, it took to open the session and to read what the pictures show.
    html
        The whole document.
    body
        The same without what only a document has, for a notebook.
    thumbnail
        A small picture as a data URL, empty without pictures.
    facts
        What an index of many says of it: start, subject and species.
    """

    location: str
    title: str
    output: str | None
    pictures: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    requests: int
    received: int
    html: str
    body: str
    thumbnail: str
    facts: Mapping[str, str]

    @property
    def document(self) -> dict[str, Any]:
        """Return what ``nwbzarr page --json`` prints."""
        pictures = [
            {name: value for name, value in asdict(picture).items() if name != "svg"}
            for picture in self.pictures
        ]
        own = {"location": self.location, "title": self.title, "output": self.output, "pictures": pictures}
        left = [asdict(each) for each in self.left_out]
        took = {"requests": self.requests, "received": self.received, "bytes": len(self.html.encode())}
        return {"document": "nwbzarr-page 1.0", **own, "left_out": left, "warnings": [*self.notes], **took}

    def save(self, output: str | os.PathLike[str]) -> Path:
        """Write the page to a local file, in place of one that exists.

        Raises
        ------
        OptionError
            When `output` is not a local path, or exists and is not a page.
        OSError
            When it cannot be written.
        """
        path = replaceable(local_path(output, "The page"))
        write_local(path, self.html.encode())
        return path

    def __str__(self) -> str:
        size = readable_size(len(self.html.encode()))
        where = "" if self.output is None else f"{self.output}: "
        lines = [f"{where}{counted(len(self.pictures), 'picture')} of {self.location}"]
        lines += [f"  not drawn: {each.title or each.kind}: {each.reason}" for each in self.left_out]
        return "\n".join(
            [*lines, f"{size}; {counted(self.requests, 'request')}, {readable_size(self.received)} received"]
        )

    def __repr__(self) -> str:
        return f"<Page of {self.location}, {counted(len(self.pictures), 'picture')}>"

    def _repr_html_(self) -> str:
        return self.body


@takes_storage_options
def page(
    location: str | os.PathLike[str] | Location | Store,
    output: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    pictures: bool = True,
    consolidated: bool | None = None,
    progress: Callable[[PageProgress], None] | None = None,
) -> Page:
    """Show a session as one HTML file that needs nothing from elsewhere.

    It has the metadata of session and subject; the neurodata objects; and, of what the session has: a raster
    of units, the probes, ROI contours over a mean image, patch-clamp sweeps, poses and paths, a time line of
    trials, epochs and series, traces of each kind of series, images and frames of movies. Each picture reads
    a few chunks, and says in its caption which part of the data that is. A page receives at most 20 MB:
    pictures for which that is not enough are left out, with a line that says so, and so are those of objects
    that cannot be read.

    Parameters
    ----------
    location, storage_options, consolidated
        As for `open_hierarchy`.
    output
        The file to write, such as ``session.html``; one that exists is replaced. None: nothing is written.
    pictures
        Whether there are pictures; without them, nothing but metadata is read.
    progress
        Called with a `PageProgress` before each picture.

    Returns
    -------
    Page
        What was drawn and left out, what it took, and the HTML.

    Raises
    ------
    OptionError
        When `output` is not a local path, or exists and is not a page.
    MissingPackageError
        When matplotlib is not installed, unless ``pictures=False``.
    LocationNotFoundError, NotZarrError, NotNWBError, AccessError, TransportError, MetadataError
        As for `open_hierarchy`.
    OSError
        When the file cannot be written.

    Examples
    --------
    >>> import intake_nwbzarr
    >>> session = "tests/data/corpus/icephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
    >>> [picture.kind for picture in intake_nwbzarr.page(session).pictures]
    ['sweeps', 'timeline']
    """
    check_bool("pictures", pictures)
    target = None if output is None else replaceable(local_path(output, "The page"))
    where = locate(location, storage_options).read_consolidated(consolidated)
    made = _made(where, pictures, progress, target)
    if target is not None:
        write_local(target, made.html.encode())
    return made


def replaceable(path: Path) -> Path:
    """Return the path of a page, which may replace an earlier one, and nothing else."""
    if path.exists() and not (path.is_file() and _is_page(path)):
        raise OptionError(
            f"{path} already exists and is not a page, and was not replaced.",
            location=path,
            found="a folder" if path.is_dir() else "another file",
            expected="nothing, or an earlier page",
            next_step="Pass another name, such as session.html.",
        )
    if any((path.parent / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise OptionError(
            f"{path.parent} is a Zarr store, in which no page is written.",
            location=path.parent,
            found="a Zarr store",
            next_step="Pass another folder.",
        )
    return path


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2000)


def _made(
    where: Location, with_pictures: bool, progress: Callable[[PageProgress], None] | None, target: Path | None
) -> Page:
    with track_requests() as log, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset, hierarchy = _opened(where)
        drawn: tuple[list[Picture], list[LeftOut], str] = ([], [], "")
        if with_pictures:
            # They need matplotlib.
            from intake_nwbzarr.pages.budget import Budget
            from intake_nwbzarr.pages.pictures import draw_pictures
            from intake_nwbzarr.pages.plans import PageSession

            timed = _with_times(dataset, hierarchy)
            drawn = draw_pictures(PageSession(dataset, timed, Budget(hierarchy, log)), progress)
    pictures, left_out, thumbnail = drawn
    title = plain(dataset.attrs.get("session_description")) or plain(own_name(str(hierarchy.location)))
    notes = _notes(caught)
    state = (
        "HDF5"
        if hierarchy.location.is_hdf5
        else f"Zarr {hierarchy.zarr_format}, {'' if hierarchy.consolidated else 'not '}consolidated"
    )
    facts = {"Format": state}
    extensions = extension_versions(hierarchy)
    if extensions:
        facts["Extensions"] = ", ".join(f"{name} {version}" for name, version in extensions.items())
    took = f"{counted(log.requests, 'request')}, {readable_size(log.bytes)}"
    body = "\n".join(
        part
        for part in (
            header_html(dataset, facts),
            pictures_html(pictures),
            objects_html(dataset)
            if shown_objects(dataset)
            else "<p>The session has no neurodata objects.</p>",
            left_out_html([*left_out, *_unreadable(hierarchy)], notes),
            f"<footer>Made by nwbzarr page from {escape(plain(str(hierarchy.location)))}, {took}.</footer>",
        )
        if part
    )
    return Page(
        location=str(hierarchy.location),
        title=title,
        output=None if target is None else str(target),
        pictures=tuple(pictures),
        left_out=tuple(left_out),
        notes=tuple(notes),
        requests=log.requests,
        received=log.bytes,
        html=document(title, body),
        body=f'<div class="nwbzarr notebook"><style>{STYLE}{PICTURE_STYLE}</style>{body}</div>',
        thumbnail=thumbnail,
        facts=brief_facts(dataset),
    )


def _opened(where: Location) -> tuple[xr.Dataset, Hierarchy]:
    """Return the whole session as a flat Dataset, and its hierarchy."""
    from intake_nwbzarr.backend import with_way_back
    from intake_nwbzarr.mapping.options import MappingOptions
    from intake_nwbzarr.mapping.views import open_session
    from intake_nwbzarr.transport.memory_cache import keeping_in_memory

    hierarchy = load_hierarchy(where, keeping_in_memory())
    dataset = open_session(hierarchy, MappingOptions())
    return with_way_back(dataset, hierarchy, None, dataset.attrs), hierarchy


def _with_times(dataset: xr.Dataset, hierarchy: Hierarchy) -> xr.Dataset:
    """Return a Dataset whose series have times: some of each kind, where very many were left without."""
    from intake_nwbzarr.backend import with_way_back
    from intake_nwbzarr.mapping.options import MappingOptions
    from intake_nwbzarr.mapping.views import open_group
    from intake_nwbzarr.pages.plans import is_numeric

    shown = shown_objects(dataset)
    timed = {time.dim for time in indexed_times(dataset)}
    series = [each for each in shown if is_numeric(dataset, each)]
    without = [each for each in series if timed.isdisjoint(map(str, dataset.variables[str(each.main)].dims))]
    if len(without) <= _MANY:
        return dataset
    kinds: Counter[tuple[object, ...]] = Counter()
    chosen = []
    for each in [each for each in shown if each.kind != "series"] + series:
        if each.kind == "series":
            variable = dataset.variables[str(each.main)]
            kind = parent(each.path), each.neurodata_type, str(variable.attrs.get("units")), variable.ndim
            kinds[kind] += 1
            if kinds[kind] > _OF_KIND:
                continue
        chosen.append(each.path)
    some = open_group(hierarchy, chosen[:_MOST_TIMED], MappingOptions())
    return with_way_back(some, hierarchy, None, dataset.attrs)


def _unreadable(hierarchy: Hierarchy) -> list[LeftOut]:
    return [LeftOut("object", path, (path,), reason) for path, reason in hierarchy.unreadable.items()]


def _notes(caught: list[warnings.WarningMessage]) -> list[str]:
    """Return the warnings about the session, each once."""
    from intake_nwbzarr.errors import NWBZarrWarning

    own = (each.message for each in caught if isinstance(each.message, NWBZarrWarning))
    return list(dict.fromkeys(reason_of(each) for each in own))[:_MOST_WARNINGS]
