"""Check links, object references and regions: whether they lead to something, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.checks.checked import Checked, Selection, is_numeric, message
from intake_nwbzarr.checks.report import Finding
from intake_nwbzarr.errors import LinkError, MetadataError, NWBZarrError
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Reference, parse_reference
from intake_nwbzarr.hierarchy.nodes import ArrayNode, Node
from intake_nwbzarr.mapping.schema import is_a

# Rows of a compound of which the references are read.
_MOST_ROWS: Final = 200_000


def link_findings(session: Checked) -> Iterator[Finding]:
    """Yield links and references that lead to nothing, or out of the session's folder or bucket."""
    checker = _Checker(session)
    for node in session.nodes.values():
        yield from checker.links(node)
        for name, value in node.attributes.items():
            if name != "_LINKS":
                yield from checker.attribute(node.path, name, value)
    yield from checker.values()
    yield from _regions(session)


class _Checker:
    """Resolves references, each once."""

    def __init__(self, session: Checked) -> None:
        self.session = session
        self.known: dict[Reference, str | None] = {}

    def links(self, node: Node) -> Iterator[Finding]:
        """Yield the links of a group that cannot be followed."""
        session = self.session
        if isinstance(node, ArrayNode):
            return
        try:
            links = session.hierarchy.links(node.path)
        except LinkError as error:
            yield session.finding("dangling-link", node.path, message(error))
            return
        for name, reference in links.items():
            path = f"{node.path}/{name}".lstrip("/")
            if self._leaves(reference):
                yield session.finding("external-link", path, f"It leads to {reference.source!r}.")
                continue
            if reason := self._reason(reference):
                target = f"{reference.path!r}{'' if reference.source == '.' else f' in {reference.source!r}'}"
                yield session.finding("dangling-link", path, f"It leads to {target}: {reason}")

    def attribute(self, path: str, name: str, value: Any) -> Iterator[Finding]:
        """Yield the references in an attribute that lead to nothing."""
        if isinstance(value, list | tuple):
            for each in value:
                if isinstance(each, Mapping | list | tuple):
                    yield from self.attribute(path, name, each)
        elif isinstance(value, Mapping) and "_REFERENCE" in value:
            yield from self._reference(path, f"The attribute {name!r}", value)
        elif isinstance(value, Mapping):
            for each in value.values():
                if isinstance(each, Mapping | list | tuple):
                    yield from self.attribute(path, name, each)

    def values(self) -> Iterator[Finding]:
        """Yield the elements of arrays that are references to nothing."""
        session = self.session
        chosen: list[Selection] = []
        fields: list[tuple[str, ...]] = []
        for node in session.arrays:
            names = tuple(name for name in node.reference_fields if name in (node.dtype.names or ()))
            if (node.is_reference or names) and node.size and node.shape[:1] <= (_MOST_ROWS,):
                chosen.append((node, ()))
                fields.append(names)
        for (node, _), names, found in zip(chosen, fields, session.read(chosen), strict=True):
            if found is None:
                continue
            parts = [found[name] for name in names] if names else [found]
            unique = {str(value) for part in parts for value in np.unique(_texts(part)) if value}
            bad = [value for value in sorted(unique) if self._reason_of(value)]
            if bad:
                yield session.finding(
                    "dangling-reference",
                    node.path,
                    f"{len(bad):,} of {len(unique):,} targets are not in the file, such as {bad[0]!r:.100}.",
                )

    def _reference(self, path: str, what: str, value: Mapping[str, Any]) -> Iterator[Finding]:
        try:
            reference = parse_reference(value, where=what)
        except LinkError as error:
            yield self.session.finding("dangling-reference", path, message(error))
            return
        if self._leaves(reference):
            yield self.session.finding("external-link", path, f"{what} refers to {reference.source!r}.")
        elif reference.path.strip("/") and (reason := self._reason(reference)):
            yield self.session.finding(
                "dangling-reference", path, f"{what} refers to {reference.path!r}: {reason}"
            )

    def _reason_of(self, text: str) -> str | None:
        try:
            reference = parse_reference(text, where="An element")
        except LinkError as error:
            return message(error)
        return self._reason(reference) if reference.path.strip("/") else None

    def _reason(self, reference: Reference) -> str | None:
        """Return why a reference cannot be followed, None if it can."""
        if reference not in self.known:
            hierarchy = self.session.hierarchy
            try:
                target = hierarchy.follow(reference.source).resolve(reference.path, look_up=True)
                found = None if target.node is not None else "there is nothing."
            except UNREACHABLE as error:
                found = _short(error)
            self.known[reference] = found
        return self.known[reference]

    def _leaves(self, reference: Reference) -> bool:
        """Return whether a reference leads out of the folder, or to another server."""
        hierarchy = self.session.hierarchy
        if reference.source == ".":
            return False
        try:
            hierarchy.location.sibling(reference.source)
        except LinkError as error:
            # An absolute path of this file before it was moved is no other file.
            return error.next_step is not None and not _is_this(self.session, reference)
        except NWBZarrError:
            return False
        return False


def _is_this(session: Checked, reference: Reference) -> bool:
    try:
        return session.hierarchy.follow(reference.source) is session.hierarchy
    except NWBZarrError:
        return False


def _short(error: NWBZarrError) -> str:
    text = message(error)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(values).astype(str).ravel()


def _regions(session: Checked) -> Iterator[Finding]:
    """Yield regions with row numbers that their tables do not have."""
    hierarchy = session.hierarchy
    chosen: list[Selection] = []
    rows: list[int] = []
    for node in session.arrays:
        if node.neurodata_type is None or not is_a(hierarchy, node, "DynamicTableRegion"):
            continue
        count = _row_count(session, node.attributes.get("table"))
        if count is None or not is_numeric(node.dtype) or not node.size:
            continue
        if session.may_read_whole(node):
            chosen.append((node, ()))
            rows.append(count)
    for (node, _), count, found in zip(chosen, rows, session.read(chosen), strict=True):
        if found is None:
            continue
        least, most = found.min(), found.max()
        if least < 0 or most >= count:
            yield session.finding(
                "region-out-of-range",
                node.path,
                f"Its rows are {least:,} to {most:,}, and the table has {count:,}.",
            )


def _row_count(session: Checked, reference: Any) -> int | None:
    """Return the number of rows of the table that a region refers to; None if that is not known."""
    if not isinstance(reference, Mapping):
        return None
    try:
        table = session.hierarchy.reference(reference)
        ids = table.hierarchy.get(f"{table.path}/id")
    except (*UNREACHABLE, MetadataError):
        return None
    return ids.shape[0] if isinstance(ids, ArrayNode) and ids.ndim == 1 else None
