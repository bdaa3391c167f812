"""`array.nwb`: what a variable of a session can do alone, by the calls of its Dataset."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.accessor.core import NWBAccessor
from intake_nwbzarr.errors import AccessorError
from intake_nwbzarr.location import Location

if TYPE_CHECKING:
    import pandas as pd
    import pynwb

    from intake_nwbzarr.accessor.contents.seconds import Time
    from intake_nwbzarr.accessor.peri_event.event_times import Events
    from intake_nwbzarr.accessor.plot.plots import Plots
    from intake_nwbzarr.accessor.time.epochs import Epochs
    from intake_nwbzarr.accessor.time.resampled_array import ResampleMethod

_UNNAMED = "data"


@xr.register_dataarray_accessor("nwb")  # type: ignore[no-untyped-call]
class NWBArrayAccessor:
    """What ``ds["ElectricalSeries"].nwb`` gives, for a variable of a session's Dataset.

    Its calls are those of `NWBAccessor`, on the Dataset of this one variable and its coordinates; what gives
    a Dataset there gives a DataArray here. A DataArray has none of its Dataset's attributes: which session it
    is from is known while its encoding, or that of its coordinates, is kept. Ragged columns need their bounds
    beside them: use the Dataset's calls.

    Parameters
    ----------
    array
        A series, an image, a column.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @property
    def location(self) -> Location:
        """Where the session is stored; see `NWBAccessor.location`."""
        return self._raw.location

    @property
    def nwbfile(self) -> pynwb.NWBFile:
        """The raw object of the session; see `NWBAccessor.nwbfile`."""
        return self._raw.nwbfile

    @property
    def object(self) -> Any:
        """The pynwb object that the variable shows: of a series itself, of a table's column the column.

        Raises
        ------
        AccessorError, NodeNotFoundError
            As `NWBAccessor.object`.
        """
        return self._raw.object

    @property
    def plot(self) -> Plots:
        """First looks: ``plot.traces()`` of a series, ``plot.image()`` of an image."""
        return self._of_dataset.plot

    def align(self, events: Events, window: tuple[float, float], **keywords: Any) -> xr.DataArray:
        """Give this series around events, (event, ``lag``, ...); see `NWBAccessor.align`.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> session = xr.open_dataset(file, engine="nwbzarr")
        >>> session["ElectricalSeriesAP"].nwb.align([1.51, 1.52], (0, 0.001)).shape
        (2, 30, 8)
        """
        return self._taken(self._of_dataset.align(events, window, **keywords))

    def restrict(self, start: Time | Epochs, stop: Time | None = None) -> xr.DataArray:
        """Keep what lies in ``[start, stop)``, or within epochs; see `NWBAccessor.restrict`."""
        return self._taken(self._of_dataset.restrict(start, stop))

    def label(self, epochs: Epochs, column: str | None = None) -> xr.DataArray:
        """Label each sample with the epoch it lies in; see `NWBAccessor.label`."""
        return self._taken(self._of_dataset.label(epochs, column))

    def resample_like(
        self, other: xr.Dataset | xr.DataArray, method: ResampleMethod, *, tolerance: float | None = None
    ) -> xr.DataArray:
        """Put this series on another one's time; see `NWBAccessor.resample_like`."""
        return self._taken(self._of_dataset.resample_like(other, method, tolerance=tolerance))

    def to_dataframe(self) -> pd.DataFrame:
        """Give a row for each sample, a column for each channel; see `NWBAccessor.to_dataframe`."""
        return self._of_dataset.to_dataframe(self._shown)

    def to_pynapple(self) -> Any:
        """Give a ``Tsd``, ``TsdFrame`` or ``TsdTensor``; see `NWBAccessor.to_pynapple`."""
        return self._of_dataset.to_pynapple(self._shown)

    @property
    def _name(self) -> str:
        named = self._array.name is not None and self._array.name not in self._array.coords
        return str(self._array.name) if named else _UNNAMED

    @property
    def _shown(self) -> str:
        return str(self._array.attrs.get("nwb_path", self._name))

    @cached_property
    def _raw(self) -> NWBAccessor:
        return self._of_dataset  # which keeps the file open

    @property
    def _of_dataset(self) -> NWBAccessor:
        from intake_nwbzarr.accessor.sessions import origin_of_array

        dataset = self._array.to_dataset(name=self._name)
        origin = origin_of_array(self._array)
        if origin is not None:
            dataset.attrs = dict(origin.attributes)
        if "nwb_path" in self._array.attrs:
            dataset.attrs["nwb_path"] = self._array.attrs["nwb_path"]
        return NWBAccessor(dataset)

    def _taken(self, dataset: xr.Dataset) -> xr.DataArray:
        if self._name not in dataset.variables:
            raise AccessorError(
                f"{self._name!r} cannot be treated alone: call ds.nwb of its Dataset, which has what belongs "
                "to it."
            )
        return dataset[self._name].rename(self._array.name)

    def __reduce__(self) -> tuple[Any, ...]:
        # xarray pickles accessors with their array; an open file stays where it is open.
        return NWBArrayAccessor, (self._array,)

    def __repr__(self) -> str:
        return f"<array.nwb of {self._array.name!r}>"
