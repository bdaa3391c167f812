"""One session as a row of the table `sessions` and rows of the table `objects`, in few requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import (
    AccessError,
    ListingError,
    MetadataError,
    NWBZarrError,
    ObjectChangedError,
)
from intake_nwbzarr.hierarchy.documents import (
    Documents,
    find_groups,
    list_documents,
    load_documents,
    missing_groups,
    parse_documents,
)
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, session_hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.hierarchy.recognize import load_recognized
from intake_nwbzarr.location.credentials import mask_secrets
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.mapping.attributes import as_strings
from intake_nwbzarr.mapping.model import STRING_AT_OPEN, run_mappers, stored, whole_values
from intake_nwbzarr.mapping.table_layout import ELECTRODES
from intake_nwbzarr.sessions.scan.contents import (
    Contents,
    Row,
    as_cell,
    as_count,
    as_text,
    chunks_of,
    nbytes_of,
    object_row,
    read_contents,
    typed_members,
)
from intake_nwbzarr.sessions.tables.normalize import age_days, sex_code, start_time, taxon
from intake_nwbzarr.transport.base import Transport, begin_session
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from intake_nwbzarr.transport.request_log import RequestLog, track_requests
from intake_nwbzarr.untrusted_input import (
    LARGEST_COLUMN,
    LARGEST_DOCUMENT,
    LARGEST_SNAPSHOT_CELL,
    LONGEST_CELL,
    MOST_LOOKED_UP,
)

KNOWN: Final = ("dandiset", "version", "asset_path", "asset_id", "title")
"""Columns that an archive's listing may have, so that they are known without opening the session."""


@dataclass(frozen=True)
class FoundSession:
    """A session that was found, and what is known of it before it is opened."""

    # How it is opened.
    location: Location
    # Name of the entry of storage_options with which others open it.
    storage: str | None = None
    # ETag of its consolidated metadata, or of its zip file, if it was listed.
    etag: str | None = None
    # Values of columns in KNOWN.
    known: Mapping[str, Any] = field(default_factory=dict)
    # The metadata document at its root, if a listing shows that there is only this one.
    document: Literal["zarr.json", ".zmetadata", ".zgroup"] | None = None
    # Whether it may be a Zarr store or HDF5 file that is not NWB.
    guessed: bool = False
    # The error with which it cannot be read, if that is known.
    error: NWBZarrError | None = None

    @property
    def is_zip(self) -> bool:
        """Return whether it is a zip file, whose ETag is the file's and not that of a document."""
        path = self.location.path
        return self.location.url.endswith(".zip") and not (path is not None and path.is_dir())


def harvest(
    found: FoundSession, *, requests: int = 10, snapshots: bool = False, check: bool = False
) -> tuple[Row, list[Row]]:
    """Return the row of a session, and those of its objects; what fails is a row with its error.

    Parameters
    ----------
    found
        The session.
    requests
        The requests that may be sent to a server: one for the consolidated metadata, the others for columns
        that are stored as arrays of their own, the most important first. The schemas of extensions, sessions
        without consolidated metadata, HDF5 files whose metadata are spread over the file, and repeated
        attempts take more. Local sessions have no limit.
    snapshots
        Whether to fill the column `snapshot`, for which the session is opened in every way.
    check
        Whether to compare the consolidated metadata with the stored ones, which reads all of them.

    Returns
    -------
    tuple of dict and list of dict
        Their keys are columns of the tables; columns that are missing are null.
    """
    row: Row = {}
    objects: list[Row] = []
    with track_requests() as log:
        # A session that is replaced while it is read is read again, once.
        for is_last in (False, True):
            try:
                row, objects = _harvested(found, requests, snapshots, check, log)
                break
            except Exception as error:  # a session that fails is skipped, whatever is wrong
                row, objects = failed(found, error), []
                if is_last or not isinstance(error, ObjectChangedError):
                    break
    return row | {"requests": requests_of(log, found.location)}, objects


# The largest number that the column requests_for_all can have.
_MOST_REQUESTS: Final = 2**31 - 1


def failed(found: FoundSession, error: Exception) -> Row:
    """Return the row of a session that cannot be read."""
    return _known(found) | {
        "error": _shown_error(error, found.location),
        "error_type": type(error).__name__,
        "transient": bool(getattr(error, "transient", False)),
    }


def _shown_error(error: Exception, location: Location) -> str:
    """Return an error's message on one line, without secrets."""
    text = " ".join(str(error).split())
    if not isinstance(error, NWBZarrError):
        text = f"{type(error).__name__}: {text}"
    return as_cell(mask_secrets(text, location.secrets)) or type(error).__name__


def requests_of(log: RequestLog, location: Location) -> int:
    """Return the requests for a location."""
    return sum(counts.requests for (url, _), counts in list(log.counts.items()) if url == location.url)


def allowed_requests(found: FoundSession, requests: int) -> float:
    """Return how many requests a session may take: a local session has no limit."""
    return requests if found.location.path is None else math.inf


def _known(found: FoundSession) -> Row:
    return {
        **found.known,
        "location": found.location.url,
        "storage": found.storage,
        "scanned": datetime.now(UTC),
        "object_count": 0,
        "zip_etag": found.etag if found.is_zip else None,
    }


def _harvested(
    found: FoundSession, requests: int, snapshots: bool, check: bool, log: RequestLog
) -> tuple[Row, list[Row]]:
    if found.error is not None:
        raise found.error
    where = found.location.uncached
    if found.document is not None:
        # A listing has shown that it is a Zarr store.
        transport = open_transport(where)
        begin_session(where)
        documents = run(_documents(transport, found))
    else:
        transport, documents = load_recognized(where, open_transport, lambda each: run(load_documents(each)))
        where = transport.location
    if len(unlisted := missing_groups(documents.nodes)) > MOST_LOOKED_UP:
        raise MetadataError(
            f"The metadata of {where} lack {len(unlisted):,} groups whose members they list.",
            location=where,
            path=unlisted[0],
            found=len(unlisted),
            expected=MOST_LOOKED_UP,
        )
    hierarchy = session_hierarchy(where, transport, documents, lambda _: transport.while_opening())
    contents = read_contents(hierarchy)
    objects = [object_row(contents, path) for path in contents.typed]
    # One for the metadata; one more without a listing, or for the directory of a zip file.
    spent = 1 if found.document is not None else 2
    allowed = allowed_requests(found, requests)
    if where.is_hdf5:
        spent = requests_of(log, where)
        read, skipped, needed = _read_columns_of_file(contents, allowed, lambda: requests_of(log, where))
    else:
        read, skipped, needed = _read_columns(contents, allowed - spent)
    row = {**_known(found), **_session_row(contents, documents, objects), **_columns(contents, read)}
    if snapshots:
        row["snapshot"] = _snapshot(found.location)
        skipped += [] if row["snapshot"] is not None else ["snapshot"]
    if check and documents.consolidated and not where.is_hdf5:
        row["stale"] = _is_stale(hierarchy)
    return row | {
        "not_read": skipped,
        "requests_for_all": min(spent + needed, _MOST_REQUESTS) if skipped else None,
    }, objects


async def _documents(transport: Transport, found: FoundSession) -> Documents:
    """Return the metadata documents, with one request, since a listing has shown which one has them."""
    if found.document == ".zgroup":
        root = Documents(transport.location, 2, await find_groups(transport, 2, [""]), False, None, 2)
        return root if found.guessed and not root.is_nwb else await list_documents(transport, 2)
    if found.document is not None:
        with suppress(MetadataError):
            fetched = await transport.get(found.document, limit=LARGEST_DOCUMENT)
            zarr_format: Literal[2, 3] = 3 if found.document == "zarr.json" else 2
            parsed = fetched and parse_documents(transport.location, zarr_format, fetched)
            if parsed:
                return parsed
            if fetched and found.guessed:
                # Only sessions are listed: other stores can have any size.
                nodes = {"": {"zarr.json": msgspec.Raw(fetched.data)}}
                root = Documents(transport.location, 3, nodes, False, fetched.etag, 1)
                if not root.is_nwb:
                    return root
    return await load_documents(transport)


# Columns that are stored as arrays, each of which takes a request; the most important first. Most sessions
# have the first nine. Ten requests are enough for six to eight of these, beside the metadata and the listing.
_SUBJECT: Final = "general/subject/"
_ARRAYS: Final[Mapping[str, str]] = {
    "species": f"{_SUBJECT}species",
    "age": f"{_SUBJECT}age",
    "sex": f"{_SUBJECT}sex",
    "subject_id": f"{_SUBJECT}subject_id",
    "session_id": "general/session_id",
    "start_text": "session_start_time",
    "brain_regions": "",
    "session_description": "session_description",
    "identifier": "identifier",
    "genotype": f"{_SUBJECT}genotype",
    "strain": f"{_SUBJECT}strain",
    "keywords": "general/keywords",
    "experimenter": "general/experimenter",
    "lab": "general/lab",
    "institution": "general/institution",
    "date_of_birth": f"{_SUBJECT}date_of_birth",
    "weight": f"{_SUBJECT}weight",
}
# Types with a `location`, which is a dataset or, of a group of electrodes, an attribute.
_PLACED: Final = ("ElectrodeGroup", "ImagingPlane", "IntracellularElectrode", "OptogeneticStimulusSite")


def _region_paths(contents: Contents) -> list[str]:
    placed = [path for path in contents.typed if any(contents.is_a(path, each) for each in _PLACED)]
    paths = [f"{path}/location" for path in (*placed, ELECTRODES)]
    return [path for path in paths if contents.array(path) is not None]


def _read_columns(
    contents: Contents, requests: float
) -> tuple[dict[str, list[NDArray[Any]]], list[str], int]:
    """Return the values of each column that was read, the columns that were not, and the requests for all."""
    wanted: dict[str, list[StoredArray]] = {}
    skipped: list[str] = []
    needed = taken = 0
    for column, nodes in _nodes_of_columns(contents):
        cost = sum(map(chunks_of, nodes))
        needed += cost
        if taken + cost > requests or sum(map(_decoded_bytes, nodes)) > LARGEST_COLUMN:
            skipped.append(column)
            continue
        taken += cost
        wanted[column] = [stored(contents.hierarchy, node) for node in nodes]
    read = _read_arrays(contents, wanted)
    return read, [*skipped, *(column for column in wanted if column not in read)], needed


def _read_columns_of_file(
    contents: Contents, requests: float, spent: Callable[[], int]
) -> tuple[dict[str, list[NDArray[Any]]], list[str], int]:
    """Read the columns of an HDF5 file as `_read_columns` does, one by one.

    Most are within bytes that were received with the metadata, so that only counting tells what they take.
    """
    read: dict[str, list[NDArray[Any]]] = {}
    skipped: list[str] = []
    begun, needed = spent(), 0
    for column, nodes in _nodes_of_columns(contents):
        if spent() >= requests or sum(map(_decoded_bytes, nodes)) > LARGEST_COLUMN:
            needed += sum(map(chunks_of, nodes))
            skipped.append(column)
            continue
        found = _read_arrays(contents, {column: [stored(contents.hierarchy, node) for node in nodes]})
        read |= found
        skipped += [] if found else [column]
    return read, skipped, spent() - begun + needed


def _nodes_of_columns(contents: Contents) -> Iterator[tuple[str, list[ArrayNode]]]:
    for column, path in _ARRAYS.items():
        paths = _region_paths(contents) if column == "brain_regions" else [path]
        nodes = [node for each in paths if (node := contents.array(each)) is not None]
        if nodes:
            yield column, nodes


def _read_arrays(
    contents: Contents, wanted: Mapping[str, list[StoredArray]]
) -> dict[str, list[NDArray[Any]]]:
    """Return the values of columns; one with a damaged chunk is missing."""
    arrays = {array.node.path: array for each in wanted.values() for array in each}
    ((values, _),) = run_mappers([whole_values(arrays)], contents.hierarchy.opener)
    read: dict[str, list[NDArray[Any]]] = {}
    for column, each in wanted.items():
        found = [values[array.node.path] for array in each if array.node.path in values]
        if len(found) == len(each):
            read[column] = found
    return read


def _decoded_bytes(node: ArrayNode) -> int:
    return node.size * (STRING_AT_OPEN if node.dtype.hasobject else max(node.dtype.itemsize, 1))


_LISTS: Final = frozenset({"keywords", "experimenter"})


def _columns(contents: Contents, read: Mapping[str, Sequence[NDArray[Any]]]) -> Row:
    row: Row = {}
    for column, arrays in read.items():
        texts = [text for array in arrays for text in _values(array)]
        if column in _LISTS:
            row[column] = texts
        elif column != "brain_regions":
            row[column] = texts[0] if texts else None
    groups = (contents.nodes[path].attributes for path in contents.typed if contents.is_a(path, _PLACED[0]))
    regions = {as_text(each.get("location")) for each in groups}
    regions |= {text for array in read.get("brain_regions", ()) for text in _values(array)}
    row["brain_regions"] = sorted(region for region in regions if region)[:LONGEST_CELL]
    age = contents.array(_ARRAYS["age"])
    reference = None if age is None else as_text(age.attributes.get("reference"))
    return row | {
        "taxon": taxon(row.get("species")),
        "age_days": age_days(row.get("age"), reference),
        "sex_code": sex_code(row.get("sex")),
        "start": start_time(row.get("start_text")),
    }


def _values(array: NDArray[Any]) -> list[str]:
    """Return the distinct texts in an array, in its order, without empty ones."""
    flat = as_strings(np.atleast_1d(array).reshape(-1)) if array.dtype.names is None else ()
    texts = dict.fromkeys(text for value in flat if (text := as_text(value)))
    return list(texts)[:LONGEST_CELL]


def _session_row(contents: Contents, documents: Documents, objects: Sequence[Row]) -> Row:
    rows = {row["path"]: (row.get("shape") or [None])[0] for row in objects}
    rois = [rows[path] for path in contents.typed if contents.is_a(path, "PlaneSegmentation")]
    arrays = [array for each in contents.arrays.values() for array in each]
    root = contents.nodes[""]
    is_hdf5 = documents.location.is_hdf5
    return {
        "devices": typed_members(contents, "general/devices"),
        "unit_count": rows.get("units"),
        "electrode_count": rows.get(ELECTRODES),
        "roi_count": sum(count or 0 for count in rois) if rois else None,
        "trial_count": rows.get("intervals/trials"),
        "object_count": len(objects),
        "nbytes": as_count(sum(map(nbytes_of, arrays))),
        "format": "hdf5" if is_hdf5 else "zarr",
        "zarr_format": None if is_hdf5 else documents.zarr_format,
        "consolidated": None if is_hdf5 else documents.consolidated,
        "nwb_version": as_text(root.attributes.get("nwb_version")),
        "namespaces": _namespaces(contents.hierarchy),
        "etag": as_cell(documents.etag) if documents.consolidated and documents.etag else None,
    }


# Namespaces in every file.
_OF_CORE: Final = frozenset({"core", "hdmf-common", "hdmf-experimental"})


def _namespaces(hierarchy: Hierarchy) -> list[str] | None:
    folder = hierarchy.specifications
    if folder not in hierarchy:
        return None
    return [
        as_cell(f"{name} {version}")
        for name in hierarchy.children(folder)
        if name not in _OF_CORE
        for version in hierarchy.children(f"{folder}/{name}")
    ][:LONGEST_CELL]


def _snapshot(location: Location) -> bytes | None:
    from intake_nwbzarr.copies.recording import record_session
    from intake_nwbzarr.copies.snapshot import encode

    try:
        document = encode(record_session(location))
    except NWBZarrError:
        # The row is complete without it.
        return None
    return document if len(document) <= LARGEST_SNAPSHOT_CELL else None


def _is_stale(hierarchy: Hierarchy) -> bool | None:
    """Return whether consolidated metadata differ from the stored, apart from schemas cached later."""
    from intake_nwbzarr.hierarchy.consolidate import compare, without_schemas

    try:
        found = compare(hierarchy.location)
    except (AccessError, ListingError):
        # It can be read, but not listed.
        return None
    return not without_schemas(found, hierarchy.specifications).up_to_date
