"""The Intake 1 driver ``nwbzarr``."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from intake.source.base import DataSource, NoEntry, Schema

from intake_nwbzarr.arguments import check_keywords
from intake_nwbzarr.catalog.chunking import open_dask, open_dask_tree
from intake_nwbzarr.catalog.entries import entry_location, masked_arguments, open_raw, saved_entry, summary
from intake_nwbzarr.errors import CredentialsError, LocationError, with_advice
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.options import checked_options

if TYPE_CHECKING:
    import pynwb
    import xarray as xr

    from intake_nwbzarr.location.location import Place
    from intake_nwbzarr.mapping.find import Group


class NWBZarrSource(DataSource):  # type: ignore[misc]
    """An NWB Zarr session, or one object of it.

    Parameters
    ----------
    urlpath
        A local path or URL; see `intake_nwbzarr.location.location.locate`.
    storage_options
        Named as in s3fs. Secrets are masked in every representation, and are not pickled unless
        ``ship_credentials`` is true.
    group
        The path of one object, such as ``units``, a pattern (``acquisition/*``), or a list of these; by
        default, the whole session.
    chunks
        As in `xarray.open_dataset`; see `intake_nwbzarr.catalog.chunking.open_dask`. The default ``"auto"``
        gives whole multiples of the stored chunks, None gives lazy variables without dask.
    metadata
        Metadata of the catalog entry.
    **keywords
        Other keywords of ``xarray.open_dataset(engine="nwbzarr")``: ``names``, ``dtype``, ``mask_and_scale``,
        ``decode_times``, ``drop_variables``, ``consolidated``, ``snapshot``, ``verify``, ...

    Examples
    --------
    >>> import intake
    >>> source = intake.open_nwbzarr("s3://bucket/sub-1.nwb.zarr", storage_options={"anon": True})
    >>> dataset = source.read()  # doctest: +SKIP
    """

    name = "nwbzarr"
    version = "1"
    container = "xarray"
    # dask partitions each variable on its own, so a Dataset has no partitions.
    partition_access = False
    # What to pass if the session cannot be accessed, where the catalog that it is from knows.
    advice: str | None = None

    def __init__(
        self,
        urlpath: Place,
        storage_options: Mapping[str, Any] | None = None,
        group: Group | None = None,
        chunks: Any = "auto",
        metadata: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        check_keywords("NWBZarrSource", keywords)
        super().__init__(storage_options=checked_options(storage_options), metadata=metadata)
        self.urlpath = urlpath
        self.group = group
        self.chunks = chunks
        self.keywords = keywords
        self._location: Location | None = None

    @property
    def location(self) -> Location:
        """Return the location of the session.

        Raises
        ------
        CredentialsError
            When a credential comes from an environment variable that is not set.
        LocationError
            When the URL or a storage option is not valid, or the URL comes from an environment variable that
            is not set.
        """
        if self._location is None:
            try:
                self._location = entry_location(self.urlpath, self.storage_options, self._templates())
            except (CredentialsError, LocationError):
                # The entry caches its source, which must be created again once variables are set.
                with suppress(NoEntry, AttributeError):
                    self.entry.clear_cached_default_source()
                raise
        return self._location

    def read(self) -> xr.Dataset:
        """Return a Dataset of dask arrays, or of lazy arrays where ``chunks`` is None.

        Other drivers load all data here. Sessions may be larger than memory, so this one does not: select
        first, then call ``.load()`` or ``.compute()``.
        """
        with with_advice(self.advice):
            return open_dask(self.location, self.group, self.chunks, self.keywords)

    def to_dask(self) -> xr.Dataset:
        """Return a Dataset of dask arrays; where ``chunks`` is None, with multiples of the stored chunks."""
        chunks = "auto" if self.chunks is None else self.chunks
        with with_advice(self.advice):
            return open_dask(self.location, self.group, chunks, self.keywords)

    def to_datatree(self) -> xr.DataTree:
        """Return a DataTree of dask arrays, with a node for each object of the session or of ``group``."""
        with with_advice(self.advice):
            return open_dask_tree(self.location, self.group, self.chunks, self.keywords)

    def to_nwb(self) -> pynwb.NWBFile:
        """Open the whole session with pynwb, with lazy arrays; close the file, or use it in ``with``."""
        with with_advice(self.advice):
            return open_raw(self.location, self.keywords)

    def discover(self) -> dict[str, Any]:
        """Return shapes, dtypes and metadata, without reading data.

        Returns
        -------
        dict
            ``dims`` (name to length); ``shape`` and ``dtype`` (by variable); ``variables`` (dims, shape,
            dtype, nbytes and attrs of each); ``nbytes``; ``attrs`` of the session; and Intake's
            ``npartitions`` and ``metadata``.
        """
        self._load_metadata()
        schema: Any = self._schema
        return {**schema.summary, "npartitions": self.npartitions, "metadata": self.metadata}

    def describe(self) -> dict[str, Any]:
        """Return the catalog's description of this entry, with literal secrets masked."""
        description: dict[str, Any] = super().describe()
        return {**description, "args": masked_arguments(description["args"])}

    def _get_schema(self) -> Schema:
        with with_advice(self.advice):
            found = summary(self.location, self.group, self.keywords)
        return Schema(
            dtype=found["dtype"], shape=found["shape"], npartitions=1, extra_metadata={}, summary=found
        )

    def _get_partition(self, i: int) -> xr.Dataset:  # noqa: ARG002 - there is only one
        return self.read()

    def _close(self) -> None:
        # Connections belong to the process; only the metadata in this source are dropped.
        self._schema = None
        self._location = None

    def _yaml(self) -> dict[str, Any]:
        # Intake uses this for `yaml`, `repr`, notebooks and `Catalog.add`.
        # A location has its options; a snapshot in a table of sessions has no path to be saved.
        options = self.urlpath.public if isinstance(self.urlpath, Location) else self.storage_options
        arguments = {
            "urlpath": self.urlpath,
            "storage_options": options or None,
            "group": self.group,
            **self.keywords,
            "snapshot": _path_of(self.keywords.get("snapshot")),
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        if self.chunks not in ("auto", {}):
            given["chunks"] = self.chunks
        entry = saved_entry(NWBZarrSource.name, self.description, self.metadata, masked_arguments(given))
        return {"sources": {self.name: entry}}

    def _templates(self) -> Mapping[str, Any]:
        try:
            templates: Mapping[str, Any] = self.entry.describe()["args"]
        except NoEntry:
            return {}
        return templates

    def __getstate__(self) -> OrderedDict[str, Any]:
        # Intake pickles the constructor's arguments; a Location replaces those that contain secrets.
        keywords = {"group": self.group, "chunks": self.chunks, "metadata": self.metadata, **self.keywords}
        return OrderedDict(
            cls=self.classname,
            args=[],
            kwargs=OrderedDict(urlpath=self.location, **keywords),
            entry={"name": self.name, "description": self.description, "advice": self.advice},
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        entry = state.pop("entry")
        super().__setstate__(state)
        self.name, self.description, self.advice = entry["name"], entry["description"], entry["advice"]

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return NWBZarrSource.__qualname__, self.location, self.group, self.chunks, self.keywords


def _path_of(snapshot: object) -> str | None:
    """Return the path of a snapshot file, None for one that is not in a file of its own."""
    path = getattr(snapshot, "path", snapshot)
    return os.fspath(path) if isinstance(path, str | os.PathLike) and not hasattr(snapshot, "key") else None
