"""A session: opened twice, as pynwb's raw object and as xarray's DataTree, and compared object by object."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import xarray as xr
from hdmf.common import AlignedDynamicTable, DynamicTable
from hdmf.container import AbstractContainer, Container, Data
from pynwb import NWBFile, TimeSeries
from pynwb.base import Images
from zarr.abc.store import Store

from intake_nwbzarr.arguments import takes_storage_options
from intake_nwbzarr.check.chunks import count_chunks
from intake_nwbzarr.errors import NWBZarrWarning
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.hierarchy.nodes import GroupNode
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.raw import open_nwb
from tests.check.old_verify.findings import Finding, Unshown, Verification
from tests.check.old_verify.identity import compare_identity
from tests.check.old_verify.images import compare_array, compare_images, compare_members
from tests.check.old_verify.objects import compare_object
from tests.check.old_verify.root import compare_root, compare_subject
from tests.check.old_verify.series import compare_series
from tests.check.old_verify.sides import Sides
from tests.check.old_verify.tables import compare_bands, compare_table


@takes_storage_options
def verify(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Compare all that pynwb reads from a file with what xarray shows of it.

    Every object that is reachable from the `pynwb.NWBFile` is looked up in the DataTree by its path in the
    file, and every field of it is compared: data of series as stored and in units, times bit for bit, tables
    row by row, images, masks, metadata, links. Arrays are compared in blocks: memory stays small, but all of
    the file is read, twice.

    Parameters
    ----------
    location
        A path, a URL (``https``, ``s3``, or any that fsspec knows), or an open Zarr store.
    storage_options
        Credentials and the like, in the vocabulary of s3fs and fsspec.

    Returns
    -------
    Verification
        What is equal, what differs, and what is not shown.

    Raises
    ------
    NWBZarrError
        As `intake_nwbzarr.open_nwb`, when the file cannot be opened or read.
    MetadataError
        When pynwb cannot make an object of what is in the file.
    """
    hierarchy = open_hierarchy(location, storage_options)
    in_units = _open_tree(location, storage_options, mask_and_scale=True)
    with warnings.catch_warnings():
        # The same as of the first time.
        warnings.simplefilter("ignore", NWBZarrWarning)
        as_stored = _open_tree(location, storage_options, mask_and_scale=False)
    with open_nwb(location, storage_options) as nwbfile:
        compared = compare(nwbfile, in_units, hierarchy, as_stored=as_stored)
    return replace(compared, chunks=count_chunks(hierarchy))


def _open_tree(
    location: Any, storage_options: Mapping[str, Any] | None, *, mask_and_scale: bool
) -> xr.DataTree:
    return xr.open_datatree(
        location, engine="nwbzarr", storage_options=storage_options, mask_and_scale=mask_and_scale
    )


def compare(
    nwbfile: NWBFile, tree: xr.DataTree, hierarchy: Hierarchy, *, as_stored: xr.DataTree | None = None
) -> Verification:
    """Compare a raw object with a DataTree of the same file.

    Parameters
    ----------
    nwbfile
        What pynwb read.
    tree
        What xarray shows, values in units.
    hierarchy
        The file's groups and arrays, which say where each object is.
    as_stored
        What xarray shows with ``mask_and_scale=False``; None: only values in units are compared.

    Returns
    -------
    Verification
        What is equal, what differs, and what is not shown.
    """
    sides = Sides(nwbfile, tree, hierarchy, as_stored)
    return Verification.of(str(hierarchy.location), _findings(sides))


def _findings(sides: Sides) -> Iterator[Finding]:
    for container in sides.nwbfile.objects.values():
        yield from compare_container(container, sides)
    yield from _unread(sides)


def compare_container(container: AbstractContainer, sides: Sides) -> Iterator[Finding]:
    """Compare one object; one that is compared with what holds it, such as a column, gives nothing.

    Parameters
    ----------
    container
        Any of ``nwbfile.objects``.
    sides
        Both sides.
    """
    if _is_part(container):
        return
    path = sides.path(container)
    if path is None:
        yield Unshown(container.name, "", container.data_type, "an object that is not in this file")
    else:
        yield from _compare_at(container, path, sides)


def _compare_at(container: AbstractContainer, path: str, sides: Sides) -> Iterator[Finding]:
    shown = sides.node(path)
    if shown is not None:
        yield from compare_identity(path, shown, sides)
        yield from _compare(container, path, shown, sides)
        return
    owner = sides.node(path.rpartition("/")[0])
    if owner is not None and isinstance(container, DynamicTable) and isinstance(container.parent, TimeSeries):
        yield from compare_bands(container, path, owner, sides)
    else:
        yield Unshown(path, "", sides.kind(path), "the whole object")


def _unread(sides: Sides) -> Iterator[Finding]:
    """Groups of a type that pynwb does not read, since its schema has no place for them there."""
    read = {sides.path(container) for container in sides.nwbfile.objects.values()}
    for node in sides.hierarchy.understood():
        path = node.path
        kind = node.neurodata_type if isinstance(node, GroupNode) else None
        if kind and path not in read and sides.node(path) is None:
            yield Unshown(path, "", kind, "an object that pynwb does not read")


def _is_part(container: AbstractContainer) -> bool:
    """Whether an object is compared with the one that holds it: columns, regions, images, categories."""
    if isinstance(container, Data):
        return not isinstance(container.parent, NWBFile)
    return isinstance(container.parent, AlignedDynamicTable) and isinstance(container, DynamicTable)


def _compare(container: AbstractContainer, path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    if isinstance(container, NWBFile):
        yield from compare_root(container, shown, sides)
    elif isinstance(container, TimeSeries):
        yield from compare_series(container, path, shown, sides)
    elif isinstance(container, DynamicTable):
        yield from compare_table(container, path, shown, sides)
    elif isinstance(container, Images):
        yield from compare_images(container, path, shown, sides)
    elif isinstance(container, Data):
        yield from compare_array(container, path, shown, sides)
    else:
        if container is sides.nwbfile.subject:
            yield from compare_subject(container, sides)
        if isinstance(container, Container):
            yield from compare_members(container, path, shown, sides)
        yield from compare_object(container, path, shown, sides)
