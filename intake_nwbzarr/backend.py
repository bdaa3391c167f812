"""The xarray engine ``nwbzarr``: ``xarray.open_dataset(location, engine="nwbzarr")``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

import intake_nwbzarr.accessor  # noqa: F401 - registers ds.nwb
from intake_nwbzarr.arguments import (
    check_bool,
    check_choice,
    check_keywords,
    describe_value,
    invalid_argument,
)
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.mapping.options import ImageAxes, MappingOptions, Names, Scaled

if TYPE_CHECKING:
    from intake_nwbzarr.copies.from_snapshot import SnapshotOpener, Verify
    from intake_nwbzarr.copies.snapshot import Snapshots
    from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
    from intake_nwbzarr.mapping.find import Group

# What xarray passes to every engine, for conventions that NWB does not use.
_OF_OTHER_CONVENTIONS = frozenset({"concat_characters", "decode_coords", "use_cftime", "decode_timedelta"})

_ENDINGS = (".nwb", ".nwb.zarr", ".nwb.zarr.zip")


class NWBZarrBackendEntrypoint(BackendEntrypoint):
    """Opens NWB sessions, Zarr of any hdmf-zarr release or HDF5, as lazy, labelled Datasets."""

    description: ClassVar[str] = "NWB sessions in Zarr or HDF5 (local, https, s3) as lazy, labelled Datasets"
    supports_groups: ClassVar[bool] = True
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "mask_and_scale",
        "decode_times",
        "concat_characters",
        "decode_coords",
        "drop_variables",
        "use_cftime",
        "decode_timedelta",
        "group",
        "storage_options",
        "consolidated",
        "names",
        "dtype",
        "share_time",
        "image_axes",
        "snapshot",
        "verify",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        group: Group | None = None,
        storage_options: Mapping[str, Any] | None = None,
        consolidated: bool | None = None,
        snapshot: str | os.PathLike[str] | Snapshots | None = None,
        verify: Verify = "metadata",
        **keywords: Any,
    ) -> xr.Dataset:
        """Open a session, one object of it, or several.

        Parameters
        ----------
        filename_or_obj
            A path, a URL (``https``, ``s3``, or any that fsspec knows), or an open Zarr store.
        group
            The path of one object (``"acquisition/ElectricalSeries"``), to be opened with plain names; of a
            container (``"processing/ophys/Fluorescence"``); a pattern (``"acquisition/*"``,
            ``"**/Position/*"``); or a list of these. None: the whole session, flat.
        storage_options
            Credentials and the like, in the vocabulary of s3fs and fsspec.
        consolidated
            Whether consolidated metadata are used: None, where there are any; True, they are required; False,
            the session is listed, and every document read as it is stored now, also for ``ds.nwb.nwbfile``.
        snapshot
            A file made by `intake_nwbzarr.snapshot`, to open the session without reading its metadata.
        verify
            How a snapshot is compared with what is stored: ``"metadata"``, one conditional GET for each
            metadata document; ``"all"``, one for each object that it contains; False, not at all, which the
            attribute ``nwb_snapshot`` says.
        **keywords
            ``mask_and_scale``, ``decode_times``, ``dtype``, ``names``, ``share_time``, ``image_axes``: see
            `intake_nwbzarr.mapping.options.MappingOptions`. ``drop_variables``: names of variables, as they
            come out, to leave out. ``concat_characters``, ``decode_coords``, ``use_cftime`` and
            ``decode_timedelta`` are accepted, since xarray passes them; they decode conventions that NWB does
            not use.

        Returns
        -------
        xarray.Dataset
            Lazy, and not dask-backed unless ``chunks`` is given; ``ds.nwb`` leads to the raw object.

        Raises
        ------
        NodeNotFoundError
            When the group does not exist.
        OptionError
            When a keyword has a value that is not valid.
        SnapshotError, StaleSnapshotError, NotInSnapshotError
            When the snapshot is damaged, older than the session, or of other sessions.
        NWBZarrError
            As `intake_nwbzarr.open_hierarchy`.
        """
        # Zarr takes longer to import than all else: not before a session is opened, for xarray imports every
        # engine when it guesses which one a file is for.
        from intake_nwbzarr.mapping.views import open_group, open_session

        options = _options(**keywords)
        hierarchy, opener = _open(filename_or_obj, storage_options, consolidated, snapshot, verify, group)
        dataset = open_session(hierarchy, options) if group is None else open_group(hierarchy, group, options)
        return with_way_back(dataset, hierarchy, opener, dataset.attrs)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        group: Group | None = None,
        storage_options: Mapping[str, Any] | None = None,
        consolidated: bool | None = None,
        snapshot: str | os.PathLike[str] | Snapshots | None = None,
        verify: Verify = "metadata",
        **keywords: Any,
    ) -> dict[str, xr.Dataset]:
        """Open every object of a session, or of a part of it, as a Dataset of its own.

        Parameters
        ----------
        filename_or_obj, storage_options, consolidated, snapshot, verify, **keywords
            As in `open_dataset`.
        group
            What is opened: a path, which becomes the root; a pattern, or a list of paths and patterns, which
            choose among the objects. None: everything.

        Returns
        -------
        dict
            Datasets by path, ``/`` first; in one gather, however many they are.
        """
        opened = _open(filename_or_obj, storage_options, consolidated, snapshot, verify, group)
        return self._open_groups(*opened, group, keywords)

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        group: Group | None = None,
        storage_options: Mapping[str, Any] | None = None,
        consolidated: bool | None = None,
        snapshot: str | os.PathLike[str] | Snapshots | None = None,
        verify: Verify = "metadata",
        **keywords: Any,
    ) -> xr.DataTree:
        """Open a session as a tree, the file's own hierarchy; see `open_groups_as_dict`."""
        opened = _open(filename_or_obj, storage_options, consolidated, snapshot, verify, group)
        return xr.DataTree.from_dict(self._open_groups(*opened, group, keywords))

    def _open_groups(
        self,
        hierarchy: Hierarchy,
        opener: SnapshotOpener | None,
        group: Group | None,
        keywords: Mapping[str, Any],
    ) -> dict[str, xr.Dataset]:
        from intake_nwbzarr.mapping.views import open_tree

        datasets = open_tree(hierarchy, _options(**keywords), group)
        session = datasets["/"].attrs
        return {
            path: with_way_back(dataset, hierarchy, opener, session) for path, dataset in datasets.items()
        }

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether the name is that of an NWB file: ``*.nwb``, ``*.nwb.zarr`` or ``*.nwb.zarr.zip``."""
        if isinstance(filename_or_obj, Location):
            name = str(filename_or_obj)
        elif isinstance(filename_or_obj, str | os.PathLike):
            name = os.fspath(filename_or_obj)
        else:
            return False
        # A URL may have a query after its path.
        return isinstance(name, str) and name.partition("?")[0].rstrip("/").endswith(_ENDINGS)


def _open(
    place: Any,
    storage_options: Mapping[str, Any] | None,
    consolidated: bool | None,
    snapshot: str | os.PathLike[str] | Snapshots | None,
    verify: Verify,
    group: Group | None,
) -> tuple[Hierarchy, SnapshotOpener | None]:
    """Open the hierarchy of a session, from a snapshot if one is given, to open a group of it or all."""
    location = locate(place, storage_options).read_consolidated(consolidated)
    if snapshot is not None:
        from intake_nwbzarr.copies.from_snapshot import open_from_snapshot

        return open_from_snapshot(snapshot, location, verify)
    if not isinstance(verify, str) or verify != "metadata":
        raise OptionError(
            "verify is valid only with snapshot=.",
            found=describe_value(verify),
            next_step="Pass snapshot= as well.",
        )
    from intake_nwbzarr.hierarchy.hierarchy import load_hierarchy
    from intake_nwbzarr.transport.memory_cache import keeping_in_memory

    one = group.strip("/") if isinstance(group, str) and not {*group} & {*"*?["} else None
    return load_hierarchy(location, keeping_in_memory(), one), None


def _options(
    *,
    mask_and_scale: bool | None = True,
    decode_times: bool | None = None,
    drop_variables: str | Iterable[str] | None = None,
    names: Names = "short",
    dtype: Scaled | None = None,
    share_time: bool = False,
    image_axes: ImageAxes = "xy",
    **ignored: Any,
) -> MappingOptions:
    """Return the choices among a call's keywords; see `NWBZarrBackendEntrypoint.open_dataset`."""
    unknown = ignored.keys() - _OF_OTHER_CONVENTIONS
    if unknown:
        known = NWBZarrBackendEntrypoint.open_dataset_parameters
        check_keywords('engine="nwbzarr"', sorted(unknown), known[1:])
    for name, decoder in (("mask_and_scale", mask_and_scale), ("decode_times", decode_times)):
        check_choice(name, decoder, (True, False, None))
    check_bool("share_time", share_time)
    dropped: list[Any] = []
    if isinstance(drop_variables, str):
        dropped = [drop_variables]
    elif drop_variables is not None:
        dropped = list(drop_variables) if isinstance(drop_variables, Iterable) else [drop_variables]
    if not all(isinstance(name, str) for name in dropped):
        raise invalid_argument("drop_variables", drop_variables, "a name or a list of names")
    return MappingOptions(
        mask_and_scale=mask_and_scale is not False,
        decode_times=bool(decode_times),
        dtype=dtype,
        names=names,
        share_time=share_time,
        drop_variables=frozenset(dropped),
        image_axes=image_axes,
    )


def with_way_back(
    dataset: xr.Dataset, hierarchy: Hierarchy, opener: SnapshotOpener | None, session: Mapping[str, Any]
) -> xr.Dataset:
    """Return a Dataset that leads back to its session, however it is treated and wherever it is sent."""
    from intake_nwbzarr.accessor.sessions import with_origin

    if opener is not None and "nwb_location" in dataset.attrs:
        dataset.attrs |= opener.attributes
    dataset.encoding |= {"etag": hierarchy.etag}
    return with_origin(dataset, hierarchy.location, session)
