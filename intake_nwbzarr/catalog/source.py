"""Intake 1: ``driver: nwbzarr``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from intake.source.base import DataSource, NoEntry, Schema

from intake_nwbzarr.arguments import check_keywords
from intake_nwbzarr.catalog.chunking import open_dask, open_dask_tree
from intake_nwbzarr.catalog.entries import entry_location, masked_options, masked_url, open_raw, summary
from intake_nwbzarr.errors import CredentialsError, LocationError
from intake_nwbzarr.location.options import checked_options

if TYPE_CHECKING:
    import pynwb
    import xarray as xr

    from intake_nwbzarr.location.location import Location, Place
    from intake_nwbzarr.mapping.find import Group


class NWBZarrSource(DataSource):  # type: ignore[misc]
    """An NWB Zarr session, or one object of it.

    Parameters
    ----------
    urlpath
        A local path or URL; see `intake_nwbzarr.location.location.locate`.
    storage_options
        In s3fs' vocabulary. Secrets are shown by no representation, and travel in no pickle unless
        ``ship_credentials`` is true.
    group
        The path of one object, such as ``units``, a pattern (``acquisition/*``), or a list of these; without
        it, the whole session.
    chunks
        As in `xarray.open_dataset`; see `intake_nwbzarr.catalog.chunking.open_dask`. ``"auto"``, whole
        multiples of the stored chunks, unless given; None gives lazy variables without dask.
    metadata
        The catalog's.
    **keywords
        The others of ``xarray.open_dataset(engine="nwbzarr")``: ``names``, ``dtype``, ``mask_and_scale``,
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
    # A Dataset has no first and second part: its variables are partitioned each in its own way, by dask.
    partition_access = False

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
        """Where the session is, once the entry's options are understood.

        Raises
        ------
        CredentialsError
            When a credential comes from an environment variable that is not set.
        LocationError
            When the path or an option makes no sense, or comes from an environment variable that is not set.
        """
        if self._location is None:
            try:
                self._location = entry_location(self.urlpath, self.storage_options, self._templates())
            except (CredentialsError, LocationError):
                # The entry keeps its source: once variables are set, it has to make another.
                with suppress(NoEntry, AttributeError):
                    self.entry.clear_cached_default_source()
                raise
        return self._location

    def read(self) -> xr.Dataset:
        """The session as a Dataset of dask arrays, the same as `to_dask`.

        Other drivers load everything here. Sessions are larger than memory (the catalog of DANDI holds one of
        35 GB), and what is wanted is known only after a selection: reading starts with ``.load()`` or
        ``.compute()`` on that.
        """
        return open_dask(self.location, self.group, self.chunks, self.keywords)

    def to_dask(self) -> xr.Dataset:
        """The session as a Dataset of dask arrays, of whole stored chunks where ``chunks`` is None."""
        chunks = "auto" if self.chunks is None else self.chunks
        return open_dask(self.location, self.group, chunks, self.keywords)

    def to_datatree(self) -> xr.DataTree:
        """The session as a tree of dask arrays, a node for each object; of ``group``, where one is given."""
        return open_dask_tree(self.location, self.group, self.chunks, self.keywords)

    def to_nwb(self) -> pynwb.NWBFile:
        """The whole session as pynwb reads it, its arrays lazy; to be closed, or used in ``with``."""
        return open_raw(self.location, self.keywords)

    def discover(self) -> dict[str, Any]:
        """Shapes, dtypes and metadata, without reading data.

        Returns
        -------
        dict
            As `intake_nwbzarr.catalog.entries.summary` says, and Intake's ``npartitions`` and ``metadata``.
        """
        self._load_metadata()
        schema: Any = self._schema
        return {**schema.summary, "npartitions": self.npartitions, "metadata": self.metadata}

    def describe(self) -> dict[str, Any]:
        """The catalog's words on this entry, with literal secrets masked."""
        description: dict[str, Any] = super().describe()
        return {**description, "args": _masked_arguments(description["args"])}

    def _get_schema(self) -> Schema:
        found = summary(self.location, self.group, self.keywords)
        return Schema(
            dtype=found["dtype"], shape=found["shape"], npartitions=1, extra_metadata={}, summary=found
        )

    def _get_partition(self, i: int) -> xr.Dataset:  # noqa: ARG002 - there is only one
        return self.read()

    def _close(self) -> None:
        # Connections belong to the process; what this source knows of the session is all there is to forget.
        self._schema = None
        self._location = None

    def _yaml(self) -> dict[str, Any]:
        # What `yaml`, `repr`, notebooks and `Catalog.add` are made of.
        arguments = {
            "urlpath": self.urlpath,
            "storage_options": self.storage_options or None,
            "group": self.group,
            **self.keywords,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        if self.chunks not in ("auto", {}):
            given["chunks"] = self.chunks
        return {
            "sources": {
                self.name: {
                    "driver": NWBZarrSource.name,
                    "description": self.description or "",
                    "metadata": dict(self.metadata),
                    "args": _masked_arguments(given),
                }
            }
        }

    def _templates(self) -> Mapping[str, Any]:
        try:
            templates: Mapping[str, Any] = self.entry.describe()["args"]
        except NoEntry:
            return {}
        return templates

    def __getstate__(self) -> OrderedDict[str, Any]:
        # Intake pickles the constructor's arguments; a Location takes the place of those that hold secrets.
        keywords = {"group": self.group, "chunks": self.chunks, "metadata": self.metadata, **self.keywords}
        return OrderedDict(
            cls=self.classname,
            args=[],
            kwargs=OrderedDict(urlpath=self.location, **keywords),
            shown={"name": self.name, "description": self.description},
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        shown = state.pop("shown")
        super().__setstate__(state)
        self.name, self.description = shown["name"], shown["description"]

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return NWBZarrSource.__qualname__, self.location, self.group, self.chunks, self.keywords


def _masked_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    masked = {**arguments, "urlpath": masked_url(arguments["urlpath"])}
    options = arguments.get("storage_options")
    if isinstance(options, Mapping):
        masked["storage_options"] = masked_options(options)
    return masked
