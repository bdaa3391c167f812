"""Read a session as pynwb's NWBFile, by NWBZarrIO from the hierarchy's store."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import product
from math import prod
from types import TracebackType
from typing import Any, Final, Self

import zarr
from hdmf.build import BuildManager, TypeMap
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBFile, get_type_map
from zarr.abc.store import Store

from intake_nwbzarr.arguments import takes_storage_options
from intake_nwbzarr.arrays.layout import layout
from intake_nwbzarr.arrays.zarr_store import HierarchyStore
from intake_nwbzarr.errors import (
    LimitError,
    LinkError,
    LocationNotFoundError,
    MetadataError,
    NodeNotFoundError,
    NWBZarrError,
    OptionError,
)
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy, parse_reference
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.limits import limits
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import Part
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.hdf5 import FILE
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.ranged_file import RangedFile


@takes_storage_options
def open_nwb(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    consolidated: bool | None = None,
) -> NWBFile:
    """Read an NWB file as a pynwb object: HDF5, or Zarr of whichever hdmf-zarr release.

    Array data are lazy: indexing one (``nwbfile.acquisition["x"].data[:10]``) fetches its chunks. Namespaces
    and extensions cached in the file are honoured, and pickled object arrays of older files are read without
    unpickling.

    Parameters
    ----------
    location
        A path, a URL (``https``, ``s3``, or any that fsspec knows), or an open Zarr store.
    storage_options
        Credentials and other options, named as in s3fs and fsspec.
    consolidated
        Whether consolidated metadata are used; see `intake_nwbzarr.open_hierarchy`.

    Returns
    -------
    pynwb.NWBFile
        It is also a context manager: after the ``with`` block, its lazy data can no longer be read.

    Raises
    ------
    NWBZarrError
        When the metadata cannot be read, as `open_hierarchy`.
    MetadataError
        When pynwb cannot read the file, because it departs from the schema.

    Examples
    --------
    >>> with open_nwb("s3://bucket/sub-1.nwb.zarr") as nwbfile:  # doctest: +SKIP
    ...     nwbfile.subject.species
    'Mus musculus'
    """
    return nwb_of(open_hierarchy(location, storage_options, consolidated=consolidated))


def nwb_of(hierarchy: Hierarchy) -> NWBFile:
    """Return the pynwb object of a file whose hierarchy is open."""
    try:
        nwbfile = _read(HierarchyStore(hierarchy))
    except Exception as error:
        # hdmf's ConstructError prints the whole file; the innermost cause says what is wrong.
        cause: BaseException = error
        while not isinstance(cause, NWBZarrError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is error and isinstance(error, NWBZarrError):
            raise
        if isinstance(cause, NWBZarrError):
            raise cause from cause.__cause__
        found = str(cause).partition("\n")[0]
        raise MetadataError(
            f"pynwb cannot read {hierarchy.location}, which departs from the schema: {type(cause).__name__}: "
            f"{found:.300}.",
            location=hierarchy.location,
            found=found,
            next_step=_OPEN_DATASET,
        ) from error
    kind: Any = type(nwbfile)
    nwbfile.__class__ = closing(kind)
    return nwbfile


_OPEN_DATASET: Final = 'xarray.open_dataset(..., engine="nwbzarr") can open the file.'


def _read(store: HierarchyStore) -> NWBFile:
    _check_size(store.hierarchy)
    try:
        return _HierarchyIO(store).read()
    except Exception:
        # The cause may be an array that zarr cannot open, which makes the whole file fail.
        if not store.replace_refused():
            raise
    return _HierarchyIO(store).read()


_NAMES = ("__doc__", "__module__", "__qualname__")


class ClosesItself:
    """Mixin for an NWBFile that closes its file at the end of a ``with`` block."""

    read_io: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.read_io.close()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the location again, with its own credentials.
        return open_nwb, (self.read_io.location,)


@cache
def closing(kind: Any) -> Any:
    """Return the class of an NWBFile, or of an extension's subclass, as a context manager."""
    return type(kind)(kind.__name__, (ClosesItself, kind), {name: getattr(kind, name) for name in _NAMES})


class _HierarchyIO(NWBZarrIO):  # type: ignore[misc]
    """NWBZarrIO over a hierarchy's store, which also follows links into other files, local or remote."""

    def __init__(self, store: HierarchyStore) -> None:
        self._store = store
        self._hierarchy = hierarchy = store.hierarchy
        self._other_files: dict[tuple[int, int], zarr.Group] = {}
        # The file of the group or dataset that is being read: links are relative to it.
        self._current = hierarchy
        super().__init__(path=self._store, mode="r", manager=BuildManager(_type_map(hierarchy, self._store)))
        self._store.prefetch([key for node in _read_at_once(hierarchy) for key in _chunk_keys(node)])

    @property
    def location(self) -> Location:
        """Return the location of the file."""
        return self._hierarchy.location

    @property
    def closed(self) -> bool:
        """Return whether `close` was called."""
        return self._store.closed

    def close(self) -> None:
        """Close the file; lazy data can no longer be read."""
        self._store.close()
        super().close()

    # hdmf-zarr 0.14 resolves all links as those of the file that was opened, also links of linked files.
    def _ZarrIO__read_group(self, zarr_obj: Any, *arguments: Any, **keywords: Any) -> Any:  # noqa: N802
        with self._within(zarr_obj):
            return super()._ZarrIO__read_group(zarr_obj, *arguments, **keywords)

    def _ZarrIO__read_dataset(self, zarr_obj: Any, *arguments: Any, **keywords: Any) -> Any:  # noqa: N802
        with self._within(zarr_obj):
            return super()._ZarrIO__read_dataset(zarr_obj, *arguments, **keywords)

    @contextmanager
    def _within(self, zarr_obj: Any) -> Iterator[None]:
        before, self._current = self._current, getattr(zarr_obj.store, "hierarchy", self._current)
        try:
            yield
        finally:
            self._current = before

    def resolve_ref(self, zarr_ref: Any) -> tuple[str | None, Any]:
        """Return the name of a reference's target, and the target."""
        # NWBZarrIO appends the source of an external link to a remote file's own URL, which is wrong.
        value = zarr_ref.item() if hasattr(zarr_ref, "item") else zarr_ref
        reference = parse_reference(value, where=f"A reference in {self._hierarchy.location}")
        try:
            target = self._current.reference(reference)
        except NodeNotFoundError as error:
            raise LinkError(
                f"pynwb cannot read {self._hierarchy.location}, which is incomplete: it refers to "
                f"{reference.path!r}, which is not stored.",
                location=self._hierarchy.location,
                path=reference.path,
                next_step=_OPEN_DATASET,
            ) from error
        if target.hierarchy is self._hierarchy and target.path in self._store:
            name, found = super().resolve_ref({"source": ".", "path": f"/{target.path}"})
            return name, found
        # An object that the consolidated metadata do not list may have been found by a request just now.
        number = id(target.hierarchy), len(target.hierarchy)
        if number not in self._other_files:
            self._other_files[number] = zarr.open_consolidated(HierarchyStore(target.hierarchy), mode="r")
        try:
            return target.path.rpartition("/")[2], self._other_files[number][target.path]
        except KeyError as error:
            raise LinkError(
                f"The target {target.path!r} of a reference does not exist in {target.hierarchy.location}.",
                location=target.hierarchy.location,
                path=target.path,
            ) from error


def _check_size(hierarchy: Hierarchy) -> None:
    """Check the bytes that opening reads: pynwb reads every row of regions."""
    regions = [
        node
        for node in hierarchy.valid_nodes()
        if isinstance(node, ArrayNode) and (node.neurodata_type == "DynamicTableRegion" or node.ndim == 0)
    ]
    taken, allowed = sum(node.size * node.dtype.itemsize for node in regions), limits().bytes_at_open
    if taken > allowed:
        largest = max(regions, key=lambda node: node.size)
        raise LimitError(
            f"pynwb would read {taken:,} bytes to open {hierarchy.location}; {allowed:,} are allowed. "
            f"{largest.path!r} declares {largest.size:,} elements.",
            location=hierarchy.location,
            path=largest.path,
            found=taken,
            expected=allowed,
            next_step="Unless the file is damaged, allow more: intake_nwbzarr.set_limits(bytes_at_open=...).",
        )


# Elements; of a larger array pynwb may read only a part.
_SMALL = 10**5


def _read_at_once(hierarchy: Hierarchy) -> Iterator[ArrayNode]:
    """Yield the arrays that pynwb reads one by one to create its objects: scalars, ids, regions, lists."""
    # Without cached schemas: those that are needed have been read.
    schemas = f"{hierarchy.specifications}/"
    for node in hierarchy.valid_nodes():
        if not isinstance(node, ArrayNode) or node.path.startswith(schemas) or node.size > _SMALL:
            continue
        of_session = node.path.rpartition("/")[0] in _OF_SESSION
        listed = node.neurodata_type is None and node.ndim == 1 and of_session
        if node.ndim == 0 or listed or node.neurodata_type in {"ElementIdentifiers", "DynamicTableRegion"}:
            yield node


def _chunk_keys(node: ArrayNode) -> Iterator[str]:
    """Yield the keys of an array's chunks, if they are few and not in shards."""
    counts = [-(-length // max(width, 1)) for length, width in zip(node.shape, node.chunks, strict=True)]
    with suppress(MetadataError, LimitError):
        found = layout(node)
        if found.sharding is None and prod(counts) <= _FEW:
            yield from (found.key(place) for place in product(*(range(count) for count in counts)))


# Groups whose lists are the session's own metadata.
_OF_SESSION = frozenset({"", "general"})

_FEW = 8


def _type_map(hierarchy: Hierarchy, store: HierarchyStore) -> TypeMap:
    """Return the types of pynwb, and those of extensions whose schemas only the file has."""
    # Cached schemas of namespaces that are imported are not read: hdmf would ignore them.
    types = get_type_map()
    used = {
        str(node.attributes["namespace"])
        for node in hierarchy.valid_nodes()
        if "namespace" in node.attributes
    }
    missing = used - set(types.namespace_catalog.namespaces)
    if missing and hierarchy.load_specifications():
        unknown = set(hierarchy.children(hierarchy.specifications)) - set(types.namespace_catalog.namespaces)
        NWBZarrIO.load_namespaces(namespace_catalog=types, path=store, namespaces=sorted(unknown))
    still_missing = sorted(used - set(types.namespace_catalog.namespaces))
    if still_missing:
        raise MetadataError(
            f"{hierarchy.location} has objects of the namespaces {', '.join(still_missing)}, whose schemas "
            "are neither cached in the file nor imported.",
            location=hierarchy.location,
            found=still_missing,
            next_step=f"Import the Python package of that NWB extension first. {_OPEN_DATASET}",
        )
    return types


_HDF5_BLOCK: Final = 4 * 2**20


@contextmanager
def read_by_pynwb(hierarchy: Hierarchy) -> Iterator[NWBFile]:
    """Yield the raw object of an HDF5 file as the HDF5 library and NWBHDF5IO read it, wherever it is."""
    if hierarchy.location.option("isolate") is not None:
        raise OptionError(
            f"pynwb reads {hierarchy.location} with the HDF5 library in this process, from which the option "
            "isolate keeps the file.",
            location=hierarchy.location,
            found="isolate",
            next_step="Pass it without isolate, if you trust the file.",
        )
    import h5py
    from pynwb import NWBHDF5IO

    with suppress(ImportError):
        import hdf5plugin  # noqa: F401 - registers its filters
    with ExitStack() as opened:
        try:
            # Only from a path does the library follow external links.
            path = hierarchy.location.path
            source: Any = path if path is not None and h5py.is_hdf5(path) else _ranged_file(hierarchy)
            file = opened.enter_context(h5py.File(source, "r"))
            nwbfile = opened.enter_context(NWBHDF5IO(file=file, mode="r", load_namespaces=True)).read()
        except NWBZarrError:
            raise
        except Exception as error:
            found = str(error).partition("\n")[0]
            raise MetadataError(
                f"pynwb cannot read {hierarchy.location}: {type(error).__name__}: {found:.300}.",
                location=hierarchy.location,
                found=found,
            ) from error
        yield nwbfile


def _ranged_file(hierarchy: Hierarchy) -> io.BufferedReader:
    transport = hierarchy.transport
    return io.BufferedReader(RangedFile(transport, FILE, _file_size(transport), hierarchy.etag), _HDF5_BLOCK)


def _file_size(transport: Transport) -> int:
    first = run(transport.fetch(FILE, Part(0, 1, lenient=True), 1))
    if first is None or first.size is None:
        raise LocationNotFoundError(f"{transport.location} no longer exists.", location=transport.location)
    return first.size
