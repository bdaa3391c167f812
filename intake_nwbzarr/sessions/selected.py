"""A session that a search has found, with its location and the paths of its objects; opening it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xarray.backends import BackendEntrypoint

from intake_nwbzarr.errors import (
    NodeNotFoundError,
    NWBZarrError,
    OptionError,
    StaleSnapshotError,
    StaleTableError,
    with_advice,
)
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.base import same_etag

if TYPE_CHECKING:
    import xarray as xr

    from intake_nwbzarr.hierarchy.hierarchy import Hierarchy

type Multiple = Literal["error", "first", "all"]

type Give = Literal["objects", "dataset", "datatree", "nwb"]


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
    # What to pass if the session cannot be accessed.
    advice: str | None = None


def open_selected(selected: Selected, give: Give = "objects", timeout: float | None = None) -> Any:
    """Open a found session, lazily and without dask, with one gather for all found objects.

    Parameters
    ----------
    selected
        The session.
    give
        ``"objects"``: the Datasets of the found objects by the names of their conditions, each as
        ``xr.open_dataset(group=path)`` gives it, and where a condition has ``multiple="all"``, a dict of
        them by path. ``"dataset"``: the whole session, flat. ``"datatree"``: as a tree. ``"nwb"``: the
        `pynwb.NWBFile`, which the caller closes.
    timeout
        Seconds for all requests to the session together, from now.

    Raises
    ------
    StaleTableError
        When the session's metadata have changed since it was scanned.
    OptionError
        When a condition has found several objects, and does not say which of them is meant.
    NWBZarrError
        As `intake_nwbzarr.open_hierarchy`.
    """
    if selected.refused is not None:
        raise selected.refused
    chosen = chosen_paths(selected) if give == "objects" else {}
    hierarchy = open_hierarchy(selected, timeout)
    if give == "nwb":
        from intake_nwbzarr.raw import nwb_of

        return nwb_of(hierarchy)
    from intake_nwbzarr.mapping.options import MappingOptions
    from intake_nwbzarr.mapping.views import open_each, open_session, open_tree

    match give:
        case "dataset":
            return _as_opened(open_session(hierarchy, MappingOptions()), hierarchy)
        case "datatree":
            import xarray as xr

            nodes = open_tree(hierarchy, MappingOptions())
            session = nodes["/"].attrs
            return xr.DataTree.from_dict(
                {path: _as_opened(node, hierarchy, session) for path, node in nodes.items()}
            )
    everything = list(dict.fromkeys(path for paths in chosen.values() for path in paths))
    try:
        datasets = open_each(hierarchy, everything, MappingOptions())
    except NodeNotFoundError as error:
        if selected.etag is not None:
            raise
        # Without an ETag, this is how a change shows itself.
        raise _changed(selected, None) from error
    opened = {path: _as_opened(dataset, hierarchy) for path, dataset in datasets.items()}
    return {
        name: {path: opened[path] for path in paths}
        if selected.multiple.get(name) == "all"
        else opened[paths[0]]
        for name, paths in chosen.items()
    }


def open_hierarchy(selected: Selected, timeout: float | None = None) -> Hierarchy:
    """Open the hierarchy of a found session, in the state that was scanned; see `open_selected`."""
    if selected.refused is not None:
        raise selected.refused
    location = selected.location if timeout is None else selected.location.finished_within(timeout)
    with with_advice(selected.advice):
        hierarchy = _loaded(selected, location)
    if selected.etag is not None and (hierarchy.etag is None or not same_etag(hierarchy.etag, selected.etag)):
        raise _changed(selected, hierarchy.etag)
    return hierarchy


def forget(selected: Selected, timeout: float | None = None) -> None:
    """Drop what this process has cached of a session that will not be opened again."""
    from intake_nwbzarr.hierarchy import documents
    from intake_nwbzarr.transport import memory_cache
    from intake_nwbzarr.transport.base import begin_session

    location = selected.location if timeout is None else selected.location.finished_within(timeout)
    # It may have turned out to be an HDF5 file.
    for each in (location, location.as_hdf5):
        key = each.uncached.cache_key
        documents.memory.forget(key)
        memory_cache.forget_session(key)
        begin_session(each)


def chosen_paths(selected: Selected) -> dict[str, tuple[str, ...]]:
    """Return the paths of the objects that are opened, by the names of their conditions."""
    chosen = {}
    for name, paths in selected.paths.items():
        multiple = selected.multiple.get(name, "error")
        if not paths:
            raise NodeNotFoundError(
                f"The search found no object for {name!r} in {selected.key}.", location=selected.key
            )
        if len(paths) > 1 and multiple == "error":
            raise OptionError(
                f"The condition {name!r} matches {len(paths)} objects in {selected.key}: {_listed(paths)}.",
                location=selected.key,
                found=list(paths),
                expected="one object",
                next_step="Make it narrower, or pass multiple='first' or multiple='all' to its Find.",
            )
        chosen[name] = tuple(sorted(paths)[:1]) if multiple == "first" else tuple(paths)
    return chosen


def _listed(paths: Iterable[str]) -> str:
    first = sorted(paths)
    return ", ".join(map(repr, first[:3])) + (" and more" if len(first) > 3 else "")


def _loaded(selected: Selected, location: Location) -> Hierarchy:
    if selected.snapshot is None:
        from intake_nwbzarr.hierarchy.hierarchy import load_hierarchy
        from intake_nwbzarr.transport.memory_cache import keeping_in_memory

        return load_hierarchy(location, keeping_in_memory())
    from intake_nwbzarr.copies.from_snapshot import open_from_snapshot
    from intake_nwbzarr.copies.snapshot import SnapshotInTable
    from intake_nwbzarr.transport.base import begin_session

    begin_session(location)
    # Without revalidation, what the table has is taken as current.
    verify: Literal["metadata", False] = False if location.option("revalidate") is False else "metadata"
    try:
        return open_from_snapshot(SnapshotInTable(selected.snapshot, selected.key), location, verify)[0]
    except StaleSnapshotError as error:
        raise _changed(selected, None) from error


def _changed(selected: Selected, found: str | None) -> StaleTableError:
    return StaleTableError(
        f"{selected.key} has changed since it was scanned.",
        location=selected.key,
        found=found,
        expected=selected.etag,
        next_step="Scan it again with: nwbzarr catalog scan.",
    )


@dataclass(frozen=True)
class _Opened:
    """A Dataset that is already there, for xarray to open."""

    dataset: xr.Dataset


class _Opening(BackendEntrypoint):
    """Lets xarray treat a Dataset as one that an engine opened: a variable is read once, then kept."""

    open_dataset_parameters: ClassVar[tuple[str, ...]] = ("filename_or_obj", "drop_variables")

    def open_dataset(self, filename_or_obj: Any, *, drop_variables: Any = None) -> xr.Dataset:  # noqa: ARG002
        """Return the Dataset."""
        dataset: xr.Dataset = filename_or_obj.dataset
        return dataset


def _as_opened(
    dataset: xr.Dataset, hierarchy: Hierarchy, session: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """Return a Dataset as `xr.open_dataset` returns it, which leads back to its session."""
    import xarray as xr

    from intake_nwbzarr.backend import with_way_back

    with_way_back(dataset, hierarchy, None, dataset.attrs if session is None else session)
    return xr.open_dataset(_Opened(dataset), engine=_Opening)  # type: ignore[arg-type]
