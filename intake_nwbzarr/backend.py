"""The xarray engine ``nwbzarr``: ``xarray.open_dataset(location, engine="nwbzarr")``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from intake_nwbzarr.accessor import RegisteringText
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.location import Location
from intake_nwbzarr.neurodata.options import ImageAxes, MappingOptions, Names, Scaled

_ENDINGS = (".nwb.zarr", ".nwb.zarr.zip")


class NWBZarrBackendEntrypoint(BackendEntrypoint):
    """Opens NWB Zarr sessions of any hdmf-zarr release as lazy, labelled Datasets."""

    description: ClassVar[str] = "NWB Zarr sessions (local, https, s3) as lazy, labelled Datasets"
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
        "names",
        "dtype",
        "share_time",
        "image_axes",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: bool = True,
        decode_times: bool | None = None,
        concat_characters: bool = True,  # noqa: ARG002 - these decode what NWB files do not have
        decode_coords: bool | str = True,  # noqa: ARG002
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: bool | None = None,  # noqa: ARG002
        decode_timedelta: Any = None,  # noqa: ARG002
        group: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        names: Names = "short",
        dtype: Scaled | None = None,
        share_time: bool = False,
        image_axes: ImageAxes = "xy",
    ) -> xr.Dataset:
        """Open a session, or one object of it.

        Parameters
        ----------
        filename_or_obj
            A path, a URL (``https``, ``s3``, or any that fsspec knows), or an open Zarr store.
        mask_and_scale
            Values in units (default) or as stored.
        decode_times
            True: time coordinates in UTC ``datetime64[ns]``; columns of tables stay in seconds. Otherwise
            seconds, as stored.
        concat_characters, decode_coords, use_cftime, decode_timedelta
            Accepted, since xarray passes them; they decode conventions that NWB does not use.
        drop_variables
            Names of variables, as they come out, to leave out.
        group
            The path of one object (``"acquisition/ElectricalSeries"``) or of a container
            (``"processing/ophys/Fluorescence"``), to be opened with plain names. None: the whole session,
            flat.
        storage_options
            Credentials and the like, in the vocabulary of s3fs and fsspec.
        names, dtype, share_time, image_axes
            See `intake_nwbzarr.neurodata.options.MappingOptions`.

        Returns
        -------
        xarray.Dataset
            Lazy, and not dask-backed unless ``chunks`` is given; ``ds.nwb`` leads to the raw object.

        Raises
        ------
        NodeNotFoundError
            When there is no such group.
        OptionError
            When a keyword has a value that means nothing.
        NWBZarrError
            As `intake_nwbzarr.open_hierarchy`.
        """
        # Zarr takes longer to import than all else: not before a session is opened, for xarray imports every
        # engine when it guesses which one a file is for.
        from intake_nwbzarr.hierarchy.load import open_hierarchy
        from intake_nwbzarr.neurodata.session import open_object, open_session

        for name, decoder in (("mask_and_scale", mask_and_scale), ("decode_times", decode_times)):
            if not isinstance(decoder, bool | None):
                raise OptionError(f"{name}={decoder!r} means nothing here; it is True, False or None.")
        options = MappingOptions(
            mask_and_scale=mask_and_scale is not False,
            decode_times=bool(decode_times),
            dtype=dtype,
            names=names,
            share_time=share_time,
            drop_variables=frozenset(
                {drop_variables} if isinstance(drop_variables, str) else (drop_variables or ())
            ),
            image_axes=image_axes,
        )
        hierarchy = open_hierarchy(filename_or_obj, storage_options)
        dataset = (
            open_session(hierarchy, options) if group is None else open_object(hierarchy, group, options)
        )
        dataset.attrs["nwb_location"] = RegisteringText(dataset.attrs["nwb_location"], hierarchy.location)
        dataset.encoding |= {"source": str(hierarchy.location), "etag": hierarchy.etag}
        return dataset

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the name says that it is an NWB Zarr file: ``*.nwb.zarr`` or ``*.nwb.zarr.zip``."""
        if isinstance(filename_or_obj, Location):
            name = str(filename_or_obj)
        elif isinstance(filename_or_obj, str | os.PathLike):
            name = os.fspath(filename_or_obj)
        else:
            return False
        # A URL may have a query after its path.
        return isinstance(name, str) and name.partition("?")[0].rstrip("/").endswith(_ENDINGS)
