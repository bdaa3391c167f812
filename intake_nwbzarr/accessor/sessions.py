"""Find the session that a Dataset, or each of its variables, was opened from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import xarray as xr

from intake_nwbzarr.accessor.ragged import has_clashing_rows
from intake_nwbzarr.errors import AccessorError, NodeNotFoundError, SessionMismatchError
from intake_nwbzarr.location.location import Location

if TYPE_CHECKING:
    from intake_nwbzarr.indexes import LazyTimeIndex

if TYPE_CHECKING:
    import pynwb

SOURCE: Final = "source"
"""The key of an encoding under which xarray's engines keep where a Dataset and its variables are from."""


class Origin(str):
    """The URL of a session, which takes its location along and registers `ds.nwb` where it is unpickled.

    It is the ``source`` in the encoding of a Dataset and of its variables. Attributes are plain text, which
    is data and not followed; and a Dataset that was read into memory is made of xarray's and NumPy's own
    classes, so that nothing else in it would make a worker import this package.

    Parameters
    ----------
    text
        The location's URL.
    location
        What a pickle takes along; an open zarr Store stays in its process.
    attributes
        Those that tell sessions apart, and the way back.
    """

    __slots__ = ("_location", "attributes")

    _location: Location | None
    attributes: dict[str, Any]

    def __new__(
        cls, text: str, location: Location | None = None, attributes: Mapping[str, Any] | None = None
    ) -> Origin:
        """Make one."""
        self = super().__new__(cls, text)
        self._location = location if location is not None and location.store is None else None
        self.attributes = dict(attributes or {})
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin, (str(self), self._location, self.attributes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self


def origin_of(variable: xr.Variable) -> Origin | None:
    """Where a variable was opened from, as far as operations have kept its encoding."""
    origin = variable.encoding.get(SOURCE)
    return origin if isinstance(origin, Origin) else None


def location_of(dataset: xr.Dataset) -> Location:
    """Where the session is that a Dataset is from, as its attributes say.

    Raises
    ------
    AccessorError
        When the attributes do not say it, or parts of it are from other sessions.
    LocationError
        When this process has not opened it, and no pickle has named it.
    """
    check_one_session(dataset)
    if "nwb_location" not in dataset.attrs:
        raise AccessorError(
            "This Dataset does not say which file it came from: its attribute 'nwb_location' is missing. "
            "Where operations drop attributes, compute under `xr.set_options(keep_attrs=True)`; give what is "
            "made of single variables or of a DataFrame its own with `ds.attrs.update(opened.attrs)`. For a "
            'Dataset from elsewhere, open the session with engine="nwbzarr".'
        )
    return Location.from_attributes(dataset.attrs)


def object_path(dataset: xr.Dataset) -> str:
    """The path of the one object that a Dataset shows.

    Raises
    ------
    AccessorError
        When it shows several, or a whole session.
    """
    # The path that was asked for leads through links; an object's own may be one in another file.
    for name in ("nwb_group", "nwb_path"):
        path = dataset.attrs.get(name)
        if isinstance(path, str) and path.strip("/"):
            return path.strip("/")
    raise AccessorError(
        "This Dataset does not show one object: it is a whole session, or several objects of it. For the "
        "session use ds.nwb.nwbfile; for one object open it with group=, or take its variable, as "
        'ds["ElectricalSeries"].nwb.object.'
    )


def object_of(nwbfile: pynwb.NWBFile, location: Location, path: str) -> Any:
    """The pynwb object at a path, which the file and pynwb know by one id.

    Raises
    ------
    NodeNotFoundError
        When nothing is there any more, or nothing that pynwb makes an object of.
    """
    from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
    from intake_nwbzarr.hierarchy.nodes import ArrayNode

    target = open_hierarchy(location).resolve(path)
    node, hierarchy = target.node, target.hierarchy
    while isinstance(node, ArrayNode) and "object_id" not in node.attributes:
        node = hierarchy[node.path.rpartition("/")[0]]  # an array of an object, such as its timestamps
    found = nwbfile.objects.get(node.attributes.get("object_id"))
    if found is None:
        raise NodeNotFoundError(
            f"{path!r} in {location} is no object of pynwb's: it is one of the file's own groups, or pynwb "
            "does not read it. Use ds.nwb.nwbfile, and its attributes such as nwbfile.acquisition."
        )
    return found


# What a DataArray, which has none of its Dataset's attributes, needs of them.
_KEPT: Final = ("identifier", "session_start_time", "timestamps_reference_time")


def with_origin(dataset: xr.Dataset, location: Location, session: Mapping[str, Any]) -> xr.Dataset:
    """Note where a Dataset is from, in its encoding and its variables', and in its time indexes.

    Parameters
    ----------
    dataset
        Just opened; changed in place.
    location
        Of the session.
    session
        Attributes of the session, or of an object's Dataset, which has those that tell sessions apart.
    """
    # Texts, also where a damaged file has a list.
    kept = {name: str(session[name]) for name in _KEPT if name in session}
    origin = Origin(str(location), location, kept | location.attributes())
    dataset.encoding[SOURCE] = origin
    for variable in dataset.variables.values():
        variable.encoding[SOURCE] = origin
    for index in _time_indexes(dataset):
        index.sessions = frozenset({(kept.get("identifier"), str(location))})
    return dataset


def frame_of(dataset: xr.Dataset, frame: pd.DataFrame) -> pd.DataFrame:
    """Note in a DataFrame's attributes which session it is from, as its Dataset says it."""
    attributes = dataset.attrs
    frame.attrs |= {name: attributes[name] for name in (*_KEPT, "nwb_location") if name in attributes}
    return frame


@dataclass(frozen=True)
class Session:
    """What is known of the session that an object is from.

    Parameters
    ----------
    identifier
        The file's own: copies of a session, wherever they are opened from, have the same.
    location
        Where it was opened from.
    """

    identifier: str | None
    location: str | None

    def differs(self, other: Session) -> bool:
        """Whether these are surely two sessions."""
        if self.identifier is not None and other.identifier is not None:
            return self.identifier != other.identifier
        if self.identifier is other.identifier is None:
            return self.location != other.location and None not in (self.location, other.location)
        return False

    def __str__(self) -> str:
        return " in ".join(
            part for part in (self.identifier and repr(self.identifier), self.location) if part is not None
        )


def session_of(item: object) -> Session | None:
    """The session that a Dataset, tree node, DataArray or DataFrame is from; None where nothing says it.

    A Dataset's attributes say it: one whose attributes were dropped is of no session. DataArrays have none of
    their Dataset's, but what was noted when their variables, or their coordinates, were opened.
    """
    if isinstance(item, xr.DataTree):
        item = item.to_dataset(inherit=False)
    if isinstance(item, pd.DataFrame):
        return _of_attributes(item.attrs)
    if isinstance(item, xr.Dataset):
        return _of_attributes(item.attrs, item.encoding.get(SOURCE))
    origin = origin_of_array(item) if isinstance(item, xr.DataArray) else None
    return None if origin is None else _of_attributes(origin.attributes)


def origin_of_array(array: xr.DataArray) -> Origin | None:
    """Where a DataArray was opened from, or else, where operations made it, what its coordinates agree on."""
    own = origin_of(array.variable)
    if own is not None:
        return own
    noted = (origin_of(coordinate.variable) for coordinate in array.coords.values())
    found = {(each, each.attributes.get("identifier")): each for each in noted if each is not None}
    return found.popitem()[1] if len(found) == 1 else None


def check_same_session(own: xr.Dataset | Mapping[Any, Any], other: object, what: str) -> None:
    """Refuse what is given from another session than a Dataset's own.

    Parameters
    ----------
    own
        The Dataset, or its attributes.
    other
        What a caller gives: of numbers, nothing is known.
    what
        Names it in the error.

    Raises
    ------
    SessionMismatchError
        When both say what session they are from, and it is not the same.
    """
    known = session_of(own) if isinstance(own, xr.Dataset) else _of_attributes(own)
    given = session_of(other)
    if known is None or given is None or not known.differs(given):
        return
    match other:
        case xr.Dataset():
            without = f"{what}.drop_attrs(deep=False)"
        case xr.DataTree():
            without = f"{what}.to_dataset().drop_attrs(deep=False)"
        case xr.DataArray():
            without = f"{what}.drop_encoding()"
        case _:
            without = f"call {what}.attrs.clear() before"
    raise SessionMismatchError(
        f"What is given as {what} is of the session {given}, but this is of the session {known}, and times "
        "of different sessions cannot be compared. Open both from one session. If the two files do share one "
        f"clock, give {what} without what says its session: {without}."
    )


def check_one_session(dataset: xr.Dataset) -> None:
    """Refuse a Dataset that surely has parts of several sessions where one file is asked for.

    Raises
    ------
    AccessorError
        When its attributes, its variables, its time indexes or the rows of its tables are of different
        sessions. Most concatenations along rows or along a new dimension leave no trace of that.
    """
    own = session_of(dataset)
    noted = (Session(*each) for index in _time_indexes(dataset) for each in index.sessions)
    found = [own, *_of_variables(dataset.variables.values()), *noted]
    known = [session for session in found if session is not None]
    other = next((session for session in known if session.differs(known[0])), None)
    if other is None and not has_clashing_rows(dataset):
        return
    named = "" if other is None else f", such as {known[0]} and {other}"
    raise AccessorError(
        f"This Dataset has parts of several sessions{named}, so that no one file is behind it. Use ds.nwb "
        "before combining them, or open the file that is meant with intake_nwbzarr.open_nwb(...)."
    )


def _of_attributes(attributes: Mapping[Any, Any], origin: Any = None) -> Session | None:
    identifier, location = (attributes.get(name) for name in ("identifier", "nwb_location"))
    if identifier is None and isinstance(origin, Origin) and origin == location:
        identifier = origin.attributes.get("identifier")
    if identifier is None and location is None:
        return None
    return Session(*(None if each is None else str(each) for each in (identifier, location)))


def _of_variables(variables: Iterable[xr.Variable]) -> Iterator[Session]:
    origins = {id(origin): origin for each in variables if (origin := origin_of(each)) is not None}
    for origin in origins.values():
        session = _of_attributes(origin.attributes)
        if session is not None:
            yield session


def _time_indexes(dataset: xr.Dataset) -> Iterator[LazyTimeIndex]:
    from intake_nwbzarr.indexes import LazyTimeIndex  # imports dask

    for index in dataset.xindexes.values():
        if isinstance(index, LazyTimeIndex):
            yield index
