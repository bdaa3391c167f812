"""Find the session that a Dataset, or each of its variables, was opened from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, Protocol

import pandas as pd
import xarray as xr

from intake_nwbzarr.accessor.ragged import has_clashing_rows
from intake_nwbzarr.errors import AccessorError, NodeNotFoundError, NWBZarrError, SessionMismatchError
from intake_nwbzarr.location.location import Location

if TYPE_CHECKING:
    from intake_nwbzarr.indexes import LazyTimeIndex

if TYPE_CHECKING:
    import pynwb

SOURCE: Final = "source"
"""The key of an encoding under which xarray's engines store the file of a Dataset and its variables."""


class Origin(str):
    """The URL of a session, as a string whose pickle carries the location and registers `ds.nwb`."""

    # It is the ``source`` in the encoding of a Dataset and of its variables. Attributes are plain text, which
    # is data and not trusted; and a Dataset in memory consists of xarray's and NumPy's own classes, so that
    # nothing else in it would make a worker import this package.

    __slots__ = ("_location", "attributes")

    _location: Location | None
    attributes: dict[str, Any]  # those that identify the session, and nwb_location

    def __new__(
        cls, text: str, location: Location | None = None, attributes: Mapping[str, Any] | None = None
    ) -> Origin:
        """Return an origin; a location that is an open zarr Store stays in its process."""
        self = super().__new__(cls, text)
        self._location = location if location is not None and location.store is None else None
        self.attributes = dict(attributes or {})
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin, (str(self), self._location, self.attributes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self


def origin_of(variable: xr.Variable) -> Origin | None:
    """Return the session that a variable was opened from, if operations have kept its encoding."""
    origin = variable.encoding.get(SOURCE)
    return origin if isinstance(origin, Origin) else None


class _OfDataset(Protocol):
    _dataset: xr.Dataset


def with_location[S: _OfDataset, **P, T](
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[S, P], T]:
    """Make a method of an accessor add the location of its Dataset to errors that lack one."""

    @wraps(method)
    def located(self: S, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        try:
            return method(self, *arguments, **keywords)
        except NWBZarrError as error:
            if error.location is None:
                error.location = self._dataset.attrs.get("nwb_location")
            raise

    return located


def location_of(dataset: xr.Dataset) -> Location:
    """Return the location of the session that a Dataset is from, according to its attributes."""
    check_one_session(dataset)
    if "nwb_location" not in dataset.attrs:
        raise AccessorError(
            "The session of this Dataset is unknown: its attribute 'nwb_location' is missing.",
            expected="nwb_location",
            next_step="If operations dropped the attributes, compute within "
            "`xr.set_options(keep_attrs=True)`, or copy them with `ds.attrs.update(opened.attrs)`. Otherwise "
            'open the session with engine="nwbzarr".',
        )
    return Location.from_attributes(dataset.attrs)


def object_path(dataset: xr.Dataset) -> str:
    """Return the path of the one object that a Dataset shows."""
    # nwb_group is the path that was opened, through links; an object's own path may be in another file.
    for name in ("nwb_group", "nwb_path"):
        path = dataset.attrs.get(name)
        if isinstance(path, str) and path.strip("/"):
            return path.strip("/")
    raise AccessorError(
        "This Dataset is a whole session, or several objects of it, and not one object.",
        next_step="Use ds.nwb.nwbfile for the session; for one object, open it with group=, or use its "
        'variable: ds["ElectricalSeries"].nwb.object.',
    )


def object_of(nwbfile: pynwb.NWBFile, location: Location, path: str) -> Any:
    """Return the pynwb object at a path, by the object_id that the file and pynwb share."""
    from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
    from intake_nwbzarr.hierarchy.nodes import ArrayNode

    target = open_hierarchy(location).resolve(path)
    node, hierarchy = target.node, target.hierarchy
    while isinstance(node, ArrayNode) and "object_id" not in node.attributes:
        node = hierarchy[node.path.rpartition("/")[0]]  # an array of an object, such as its timestamps
    found = nwbfile.objects.get(node.attributes.get("object_id"))
    if found is None:
        raise NodeNotFoundError(
            f"{path!r} in {location} is not a pynwb object: it is a group of the file's own structure, or "
            "pynwb does not read it.",
            location=location,
            path=path,
            next_step="Use ds.nwb.nwbfile and its attributes, such as nwbfile.acquisition.",
        )
    return found


# The attributes that a DataArray, which has none of its Dataset's, takes along.
_KEPT: Final = ("identifier", "session_start_time", "timestamps_reference_time")


def with_origin(dataset: xr.Dataset, location: Location, session: Mapping[str, Any]) -> xr.Dataset:
    """Record the session of a Dataset just opened, in place: in encodings and in time indexes."""
    # Strings, also where a damaged file has a list.
    kept = {name: str(session[name]) for name in _KEPT if name in session}
    origin = Origin(str(location), location, kept | location.attributes())
    dataset.encoding[SOURCE] = origin
    for variable in dataset.variables.values():
        variable.encoding[SOURCE] = origin
    for index in _time_indexes(dataset):
        index.sessions = frozenset({(kept.get("identifier"), str(location))})
    return dataset


def frame_of(dataset: xr.Dataset, frame: pd.DataFrame) -> pd.DataFrame:
    """Record in a DataFrame's attributes the session of its Dataset."""
    attributes = dataset.attrs
    frame.attrs |= {name: attributes[name] for name in (*_KEPT, "nwb_location") if name in attributes}
    return frame


@dataclass(frozen=True)
class Session:
    """The identity of the session of an object, as far as it is known."""

    identifier: str | None  # of the file: copies of a session have the same, wherever they are opened from
    location: str | None  # where it was opened from

    def differs(self, other: Session) -> bool:
        """Return whether two sessions certainly differ."""
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
    """Return the session that a Dataset, tree node, DataArray or DataFrame is from, None if unknown."""
    # A Dataset whose attributes were dropped has no session. A DataArray has that of its variable's encoding,
    # or of its coordinates'.
    if isinstance(item, xr.DataTree):
        item = item.to_dataset(inherit=False)
    if isinstance(item, pd.DataFrame):
        return _of_attributes(item.attrs)
    if isinstance(item, xr.Dataset):
        return _of_attributes(item.attrs, item.encoding.get(SOURCE))
    origin = origin_of_array(item) if isinstance(item, xr.DataArray) else None
    return None if origin is None else _of_attributes(origin.attributes)


def origin_of_array(array: xr.DataArray) -> Origin | None:
    """Return the origin of a DataArray's variable, or the one that its coordinates agree on."""
    own = origin_of(array.variable)
    if own is not None:
        return own
    noted = (origin_of(coordinate.variable) for coordinate in array.coords.values())
    found = {(each, each.attributes.get("identifier")): each for each in noted if each is not None}
    return found.popitem()[1] if len(found) == 1 else None


def check_same_session(own: xr.Dataset | Mapping[Any, Any], other: object, what: str) -> None:
    """Raise if the argument `what` is certainly from another session than a Dataset or its attributes."""
    known = session_of(own) if isinstance(own, xr.Dataset) else _of_attributes(own)
    passed = session_of(other)
    if known is None or passed is None or not known.differs(passed):
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
        f"The argument {what} is from the session {passed}, but this Dataset is from the session {known}; "
        "times of different sessions cannot be compared.",
        location=known.location,
        found=str(passed),
        expected=str(known),
        next_step="Open both from one session. If the two files do share one clock, pass "
        f"{what} without its session: {without}.",
    )


def check_one_session(dataset: xr.Dataset) -> None:
    """Raise if a Dataset certainly has parts of several sessions."""
    # Most concatenations along rows or along a new dimension leave no trace of that.
    own = session_of(dataset)
    noted = (Session(*each) for index in _time_indexes(dataset) for each in index.sessions)
    found = [own, *_of_variables(dataset.variables.values()), *noted]
    known = [session for session in found if session is not None]
    other = next((session for session in known if session.differs(known[0])), None)
    if other is None and not has_clashing_rows(dataset):
        return
    named = "" if other is None else f", such as {known[0]} and {other}"
    raise AccessorError(
        f"This Dataset has parts of several sessions{named}, so that it is not of one file.",
        found=tuple(map(str, dict.fromkeys(known))),
        next_step="Use ds.nwb before combining sessions, or open one file with intake_nwbzarr.open_nwb(...).",
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
