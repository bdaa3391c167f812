"""The way back from a Dataset to the file: its location, and the raw object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.errors import AccessorError
from intake_nwbzarr.location import Location

if TYPE_CHECKING:
    import pynwb


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


@xr.register_dataset_accessor("nwb")  # type: ignore[no-untyped-call]
class NWBAccessor:
    """What `ds.nwb` gives, for any Dataset opened with ``engine="nwbzarr"``.

    Parameters
    ----------
    dataset
        With the attributes that opening gave it.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset
        self._nwbfile: pynwb.NWBFile | None = None

    @property
    def location(self) -> Location:
        """Where the session is stored.

        Raises
        ------
        AccessorError
            When the Dataset's attributes were dropped.
        """
        return _location(self._dataset.attrs)

    @property
    def nwbfile(self) -> pynwb.NWBFile:
        """The raw object, opened from the Dataset's location when first asked for, and kept with the Dataset.

        Raises
        ------
        AccessorError
            When the Dataset's attributes were dropped.
        NWBZarrError
            As `intake_nwbzarr.open_nwb`.
        """
        location = self.location
        if self._nwbfile is None or self._nwbfile.read_io.closed:
            # pynwb takes most of a second to import, which only the raw object needs.
            from intake_nwbzarr.raw import open_nwb

            self._nwbfile = open_nwb(location)
        return self._nwbfile

    def __reduce__(self) -> tuple[Any, ...]:
        # xarray pickles accessors with their Dataset; an open file stays where it is open.
        return NWBAccessor, (self._dataset,)

    def __repr__(self) -> str:
        where = self._dataset.attrs.get("nwb_location", "a session that its attributes no longer name")
        return f"<ds.nwb of {where}>"


def _location(attributes: Mapping[Any, Any]) -> Location:
    if "nwb_location" not in attributes:
        raise AccessorError(
            "This Dataset does not say which file it came from: its attribute 'nwb_location' is missing. "
            "Where operations drop attributes, compute under `xr.set_options(keep_attrs=True)`; give what is "
            "made of single variables or of a DataFrame its own with `ds.attrs.update(opened.attrs)`. For a "
            'Dataset from elsewhere, open the session with engine="nwbzarr".'
        )
    return Location.from_attributes(attributes)
