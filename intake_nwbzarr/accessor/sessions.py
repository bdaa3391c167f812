"""Which session an object is from: two sessions are not combined without a word, nor taken for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
import xarray as xr

from intake_nwbzarr.accessor.ragged.bounds import has_clashing_rows
from intake_nwbzarr.accessor.way_back import SOURCE, Origin, origin_of
from intake_nwbzarr.errors import AccessorError, SessionMismatchError
from intake_nwbzarr.indexes import LazyTimeIndex
from intake_nwbzarr.location import Location

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
    for index in dataset.xindexes.values():
        if isinstance(index, LazyTimeIndex):
            yield index
