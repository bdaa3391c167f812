"""A session that a search has found: its location, its objects' paths, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from intake_nwbzarr.errors import NWBZarrError
from intake_nwbzarr.location.location import Location

type Multiple = Literal["error", "first", "all"]


@dataclass(frozen=True)
class Selected:
    """One found session, which is all that a worker is sent of it."""

    # The key of the tables, as they have it.
    key: str
    location: Location
    # The ETag of the consolidated metadata that were scanned, None if there was none.
    etag: str | None = None
    # By the name of the condition (`units=Find(...)`), the paths of the objects that it has found.
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # By the same names, what happens if a condition has found several objects in one session.
    multiple: Mapping[str, Multiple] = field(default_factory=dict)
    # Subject, species and session id, which every result is labelled with.
    labels: Mapping[str, str | None] = field(default_factory=dict)
    # The session's snapshot, as the table has it: the document of a `KeptSession`.
    snapshot: bytes | None = None
    # Why a table must not name this location, and what to pass to allow it: raised instead of opening it.
    refused: NWBZarrError | None = None
