"""What objects a session has: by listing it, or, where that cannot be done, by its consolidated metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final

from intake_nwbzarr.arrays.layout import layout
from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    DownloadWarning,
    LimitError,
    ListingError,
    warn_caller,
)
from intake_nwbzarr.hierarchy.documents import Documents, load_documents
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.prepare.chunks import chunk_grid
from intake_nwbzarr.prepare.download.record import NAME
from intake_nwbzarr.transport.requests import Transport, run

MOST_OBJECTS: Final = 2 * 10**6
"""Objects of a session that is downloaded."""

ROOTS: Final = frozenset({"zarr.json", ".zgroup", ".zmetadata"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object to be downloaded.

    Parameters
    ----------
    key
        Relative to the session.
    size
        In bytes, None where that is not known.
    etag
        None where that is not known.
    """

    key: str
    size: int | None
    etag: str | None


@dataclass(frozen=True)
class Inventory:
    """All objects of a session.

    Parameters
    ----------
    objects
        By key.
    listed
        Whether they were listed; else some may turn out not to exist, as chunks of fill values do.
    """

    objects: dict[str, Wanted]
    listed: bool


def take_inventory(transport: Transport) -> Inventory:
    """Find out what there is.

    Raises
    ------
    LocationNotFoundError, NotZarrError, HDF5FileError
        When there is no Zarr store.
    ListingError
        When it can neither be listed nor has consolidated metadata.
    LimitError
        When it has more than two million objects.
    """
    try:
        listed = run(transport.list())
    except CredentialsError:
        raise
    except (ListingError, AccessError):
        # A bucket may give its objects and deny listing.
        return Inventory(_from_metadata(transport), listed=False)
    # The names of a store in memory are all that it lists.
    knows_sizes = transport.location.store is None
    found = {
        entry.key: Wanted(entry.key, entry.size if knows_sizes else None, entry.etag)
        for entry in listed
        if entry.key != NAME
    }
    if not ROOTS & found.keys():
        # For the error that says what is there instead.
        run(load_documents(transport))
    _check_number(len(found), transport)
    return Inventory(found, listed=True)


def _from_metadata(transport: Transport) -> dict[str, Wanted]:
    documents = run(load_documents(transport))
    hierarchy = Hierarchy(transport.location, transport, documents)
    arrays = [node for path in hierarchy if isinstance(node := hierarchy[path], ArrayNode)]
    names = _document_keys(documents)
    _check_number(len(names) + sum(prod(chunk_grid(node)) for node in arrays), transport)
    if hierarchy.specifications not in hierarchy:
        warn_caller(
            f"{transport.location} cannot be listed, so that only what its consolidated metadata name is "
            f"downloaded: not the schemas in {hierarchy.specifications!r}, if there are any. Types of "
            "extensions are then shown by what they hold.",
            DownloadWarning,
        )
    keys = [*names, *(key for node in arrays for key in chunk_keys(node))]
    return {key: Wanted(key, None, None) for key in keys}


def _document_keys(documents: Documents) -> list[str]:
    keys = [f"{path}/{name}".lstrip("/") for path, names in documents.nodes.items() for name in names]
    return keys if documents.zarr_format == 3 else [".zmetadata", *keys]


def chunk_keys(node: ArrayNode) -> Iterator[str]:
    """The keys of all chunks, or shards, that an array may have.

    Raises
    ------
    MetadataError
        When they cannot be told from the array's metadata.
    """
    stored = layout(node)
    for coordinates in product(*map(range, chunk_grid(node))):
        yield stored.key(coordinates)


def _check_number(number: int, transport: Transport) -> None:
    if number > MOST_OBJECTS:
        raise LimitError(
            f"{transport.location} has {number:,} objects by its own account; {MOST_OBJECTS:,} are "
            "downloaded at most."
        )
