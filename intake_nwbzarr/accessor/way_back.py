"""The way back from a Dataset to its file, through what pickles take along beside its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import xarray as xr

from intake_nwbzarr.errors import AccessorError, NodeNotFoundError
from intake_nwbzarr.location import Location

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
    from intake_nwbzarr.accessor.sessions import check_one_session  # not before there is a Dataset

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
    from intake_nwbzarr.hierarchy.load import open_hierarchy
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
