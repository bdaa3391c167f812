"""The way back from a Dataset to its file, through an attribute that pickles take along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from intake_nwbzarr.errors import AccessorError
from intake_nwbzarr.location import Location


class RegisteringText(str):
    """Text that, unpickled in another process, registers `ds.nwb` there.

    A Dataset that was read into memory is made of xarray's and NumPy's own classes: nothing in it would make
    a worker import this package. Its ``nwb_location`` does, and takes the location along: a text alone is
    data, which is not followed.

    Parameters
    ----------
    text
        The location's URL.
    location
        What a pickle takes along; an open zarr Store stays in its process.
    """

    __slots__ = ("_location",)

    _location: Location | None

    def __new__(cls, text: str, location: Location | None = None) -> RegisteringText:
        """Make one."""
        self = super().__new__(cls, text)
        self._location = location if location is not None and location.store is None else None
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return RegisteringText, (str(self), self._location)


def location_of(attributes: Mapping[Any, Any]) -> Location:
    """Where the session is that a Dataset with these attributes is from.

    Raises
    ------
    AccessorError
        When the attributes do not say it.
    """
    if "nwb_location" not in attributes:
        raise AccessorError(
            "This Dataset does not say which file it came from: its attribute 'nwb_location' is missing. "
            "Where operations drop attributes, compute under `xr.set_options(keep_attrs=True)`; give what is "
            "made of single variables or of a DataFrame its own with `ds.attrs.update(opened.attrs)`. For a "
            'Dataset from elsewhere, open the session with engine="nwbzarr".'
        )
    return Location.from_attributes(attributes)
