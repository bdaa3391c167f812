"""External links of a converted session: their sources, written anew for the place of the destination."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from posixpath import relpath
from typing import Any

from intake_nwbzarr.errors import LinkError, NWBZarrError
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.urls import split_url


@dataclass
class Relinked:
    """The sources of external links, as they are in the destination, and what is wrong with them."""

    hierarchy: Hierarchy
    destination: Location
    # From the text in the source to that in the destination.
    sources: dict[str, str] = field(default_factory=dict)
    # By the text in the source.
    problems: dict[str, str] = field(default_factory=dict)

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return attributes whose links and references lead from the destination to the same files."""
        return {
            name: self._links(value) if name == "_LINKS" else self._value(value)
            for name, value in attributes.items()
        }

    def _links(self, links: Any) -> Any:
        return [{**link, "source": self.source(link.get("source"))} for link in links]

    def _value(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            inner = value.get("_REFERENCE")
            if isinstance(inner, Mapping):
                return {**value, "_REFERENCE": {**inner, "source": self.source(inner.get("source"))}}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        return value

    def text(self, text: str) -> str:
        """Return an element of an array of references: a path, or JSON of one in another file."""
        if not text.startswith("{"):
            return text
        try:
            reference = json.loads(text)
            inner = reference.get("_REFERENCE", reference)
            changed = {**inner, "source": self.source(inner.get("source"))}
        except (ValueError, AttributeError, TypeError):
            return text
        return str(inner["path"]) if changed["source"] == "." else json.dumps(changed)

    def source(self, source: Any) -> str:
        """Return where a file that is linked to is, as seen from the destination."""
        text = str(source or ".")
        if text not in self.sources:
            self.sources[text] = self._found(text)
        return self.sources[text]

    def _found(self, text: str) -> str:
        here = self.hierarchy.location
        if text in {".", "./"} or self.hierarchy.is_itself(text):
            return "."
        try:
            target = here.link_target(text)
        except NWBZarrError as error:
            self.problems[text] = f"cannot be followed in the source either. {error.args[0]}"
            return text
        if target == here.url:
            return "."
        try:
            is_hdf5 = self.hierarchy.follow(text).location.is_hdf5
        except LinkError:
            # It is outside of the source's folder, where links are followed only if that is asked for. Links
            # of an HDF5 file lead to HDF5 files.
            is_hdf5 = here.is_hdf5
        except UNREACHABLE as error:
            is_hdf5 = False
            self.problems[text] = f"leads to {target}, which cannot be opened. {error.args[0]}"
        found = relative_source(target, self.destination.url)
        self._check(text, target, found)
        if is_hdf5:
            known = f"{self.problems[text]}; it " if text in self.problems else ""
            self.problems[text] = (
                f"{known}leads to {target}, an HDF5 file: readers other than this package cannot follow a "
                "link from Zarr into an HDF5 file, and may not open the session at all. Store what it leads "
                "to in the session, or convert that file too and link to the result"
            )
        return found

    def _check(self, text: str, target: str, found: str) -> None:
        """Note what keeps readers from following a link from the destination."""
        try:
            reached: str | None = self.destination.link_target(found)
        except NWBZarrError:
            reached = None
        if reached != target:
            self.problems[text] = f"leads to {target}, which is not reached from {self.destination}"
            return
        try:
            self.destination.sibling(found)
        except LinkError:
            self.problems.setdefault(
                text,
                f"leads to {target}, outside of the destination's folder: readers have to pass "
                "storage_options={'allow_external': True}",
            )


def mutual_links(hierarchy: Hierarchy, groups: Iterable[str], arrays: Container[str]) -> dict[str, str]:
    """Return targets of links to arrays, of groups that link to each other, and what is wrong.

    HDF5 allows several names for one dataset: which of them becomes the link is not written in the file.
    """
    found: dict[tuple[str, str], str] = {}
    for path in groups:
        for link in hierarchy[path].attributes.get("_LINKS") or ():
            target = str(link.get("path")).strip("/")
            inside = str(link.get("source") or ".") in {".", "./"} and target in arrays
            owner = target.rpartition("/")[0]
            if inside and owner != path:
                found[path, owner] = f"/{target}"
    return {
        text: f"is in {path!r}, while a link in {owner!r} leads back to it: pynwb cannot read objects that "
        "link to each other (RecursionError), though xarray can. Store one of the arrays twice in the source"
        for (path, owner), text in found.items()
        if (owner, path) in found
    }


def relative_source(target: str, destination: str) -> str:
    """Return a file's path from the destination if both are on one disk or in one bucket, or its URL."""
    base, path = split_url(target)
    own, start = split_url(destination)
    if base == own:
        return relpath("/".join(["", *path]), "/".join(["", *start]))
    return "/".join(["", *path]) if base == "file://" else target
