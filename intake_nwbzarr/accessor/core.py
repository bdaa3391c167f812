"""`ds.nwb`: the file that a Dataset is from, its raw object, and every call in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.accessor.along_time import AlongTime
from intake_nwbzarr.accessor.of_tables import OfTables
from intake_nwbzarr.accessor.other_forms import OtherForms
from intake_nwbzarr.accessor.way_back import location_of, object_of, object_path
from intake_nwbzarr.location import Location

if TYPE_CHECKING:
    import pynwb


@xr.register_datatree_accessor("nwb")  # type: ignore[no-untyped-call, untyped-decorator]
def of_node(node: xr.DataTree) -> NWBAccessor:
    """What `tree["units"].nwb` gives: the accessor of the node's own Dataset."""
    return NWBAccessor(node.to_dataset(inherit=False))


@xr.register_dataset_accessor("nwb")  # type: ignore[no-untyped-call]
class NWBAccessor(AlongTime, OfTables, OtherForms):
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
            When the Dataset's attributes were dropped, or it has parts of several sessions.
        """
        return location_of(self._dataset)

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

    @property
    def object(self) -> Any:
        """The pynwb object that this Dataset shows: of ``group="units"``, what ``nwbfile.units`` is.

        Raises
        ------
        AccessorError
            When the Dataset shows several objects or a whole session; or as `nwbfile`.
        NodeNotFoundError
            When pynwb has no object there, as for the file's own groups.
        """
        path = object_path(self._dataset)
        return object_of(self.nwbfile, self.location, path)

    def __reduce__(self) -> tuple[Any, ...]:
        # xarray pickles accessors with their Dataset; an open file stays where it is open.
        return NWBAccessor, (self._dataset,)

    def __repr__(self) -> str:
        from intake_nwbzarr.accessor.tables.overview import as_text

        return as_text(self._dataset)

    def _repr_html_(self) -> str:
        from intake_nwbzarr.accessor.tables.overview import as_html

        return as_html(self._dataset)
