"""The Intake 2 data type and reader of NWB Zarr sessions.

Intake imports this module whenever it is imported, so heavy imports are inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from intake.readers.datatypes import FileData
from intake.readers.readers import BaseReader

from intake_nwbzarr.catalog.entries import masked_options, masked_url

if TYPE_CHECKING:
    import pynwb
    import xarray as xr

    from intake_nwbzarr.location.location import Location, Place
    from intake_nwbzarr.mapping.find import Group


class NWBZarr(FileData):  # type: ignore[misc]
    """An NWB Zarr session.

    Parameters
    ----------
    url
        A local path or URL; see `intake_nwbzarr.location.location.locate`.
    storage_options
        Named as in s3fs. Secrets are masked in the attribute of that name, in catalogs and in tokens, and
        are not pickled unless ``ship_credentials`` is true.
    metadata
        Metadata of the catalog entry.
    """

    # Matches from the start of the URL, since Intake recommends the type with the earliest match.
    filepattern = r"^.*\.nwb(\.zarr(\.zip)?)?/*$"
    # Intake recognizes a local folder by the paths of its files.
    contains: ClassVar = {r"(?i)\.nwb\.zarr/"}
    structure: ClassVar = {"timeseries", "table", "hierarchy"}

    def __init__(
        self,
        url: Place,
        storage_options: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if storage_options is not None:
            from intake_nwbzarr.location.options import checked_options

            storage_options = checked_options(storage_options)
        super().__init__(
            url=masked_url(url), storage_options=masked_options(storage_options), metadata=metadata
        )
        # Intake shows, saves and hashes every attribute whose name has no leading underscore.
        self._unmasked: tuple[Place, Mapping[str, Any] | None] = (url, storage_options)

    @property
    def location(self) -> Location:
        """Return the location of the session.

        Raises
        ------
        CredentialsError
            When a credential comes from an environment variable that is not set.
        LocationError
            When the URL or a storage option is not valid.
        """
        from intake_nwbzarr.catalog.entries import entry_location

        return entry_location(*self._unmasked)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unmasked": (self.location, None)}


class NWBZarrReader(BaseReader):  # type: ignore[misc]
    """Reader of an NWB Zarr session, or one object of it, as a Dataset of dask arrays.

    Parameters
    ----------
    data
        An `NWBZarr`, or its URL.
    group
        The path of one object, such as ``units``, a pattern (``acquisition/*``), or a list of these; by
        default, the whole session.
    chunks
        As in `xarray.open_dataset`; see `intake_nwbzarr.catalog.chunking.open_dask`. The default ``"auto"``
        gives whole multiples of the stored chunks, None gives lazy variables without dask.
    **keywords
        Other keywords of ``xarray.open_dataset(engine="nwbzarr")``: ``names``, ``dtype``, ``mask_and_scale``,
        ``consolidated``, ``snapshot``, ``verify``, ...

    Examples
    --------
    Add the session to a catalog. (Intake 2.0.9 does not list entries added by ``catalog["session"] =
    reader``.)

    >>> from intake.readers.entry import Catalog
    >>> reader = NWBZarrReader("s3://bucket/sub-1.nwb.zarr", storage_options={"anon": True})
    >>> catalog = Catalog()
    >>> catalog.give_name(catalog.add_entry(reader), "session")
    >>> list(catalog)
    ['session']
    """

    implements: ClassVar = {NWBZarr}
    imports: ClassVar = {"xarray", "dask"}
    # Intake's `reader_from_call` finds readers by their function. `xarray.open_dataset` opens other files,
    # too, so this is a function of this package.
    func = "intake_nwbzarr.catalog.chunking:open_dask"
    output_instance = "xarray:Dataset"

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        from intake_nwbzarr.arguments import check_keywords

        # Intake shows, saves and hashes the keywords, so none of them may be a secret.
        check_keywords("NWBZarrReader", keywords)
        super().__init__(*arguments, **keywords)

    def _read(
        self, data: NWBZarr, *, group: Group | None = None, chunks: Any = "auto", **keywords: Any
    ) -> xr.Dataset:
        from intake_nwbzarr.catalog.chunking import open_dask

        return open_dask(data.location, group, chunks, keywords)

    def to_dask(self) -> xr.Dataset:
        """Return a Dataset of dask arrays; where ``chunks`` is None, with multiples of the stored chunks."""
        chunks = self.kwargs.get("chunks", "auto")
        dataset: xr.Dataset = self.read(chunks="auto" if chunks is None else chunks)
        return dataset

    def to_datatree(self) -> xr.DataTree:
        """Return a DataTree of dask arrays, with a node for each object of the session or of ``group``."""
        from intake_nwbzarr.catalog.chunking import open_dask_tree

        own = {name: value for name, value in self.kwargs.items() if name not in {"data", "args"}}
        return open_dask_tree(self.data.location, own.pop("group", None), own.pop("chunks", "auto"), own)

    def to_nwb(self) -> pynwb.NWBFile:
        """Open the whole session with pynwb, with lazy arrays; close the file, or use it in ``with``."""
        from intake_nwbzarr.catalog.entries import open_raw

        return open_raw(self.data.location, self.kwargs)

    def discover(self, **keywords: Any) -> dict[str, Any]:
        """Return shapes, dtypes and metadata, without reading data.

        Parameters
        ----------
        **keywords
            Override the keywords of the reader.

        Returns
        -------
        dict
            ``dims`` (name to length); ``shape`` and ``dtype`` (by variable); ``variables`` (dims, shape,
            dtype, nbytes and attrs of each); ``nbytes``; ``attrs`` of the session; and Intake's
            ``metadata``.
        """
        from intake_nwbzarr.catalog.entries import summary

        own = {name: value for name, value in self.kwargs.items() if name not in {"data", "args", "chunks"}}
        options = own | keywords
        found = summary(self.data.location, options.pop("group", None), options)
        return {**found, "metadata": self.metadata}
