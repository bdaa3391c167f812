"""The accessors `ds.nwb` and `array.nwb`: tables, conversions, plots and the raw session of a Dataset."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.accessor.sessions import location_of, object_of, object_path, with_location, with_origin
from intake_nwbzarr.accessor.time_methods import TimeMethods
from intake_nwbzarr.errors import AccessorError
from intake_nwbzarr.location.location import Location

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from intake_nwbzarr.accessor.ragged import RaggedColumn


class TableMethods:
    """Methods of `NWBAccessor` for tables."""

    _dataset: xr.Dataset

    @with_location
    def ragged(self, name: str) -> RaggedColumn:
        """Return a ragged column, whose rows are read on demand.

        Parameters
        ----------
        name
            The name of the variable that holds the values, or of the column in the file if that is one
            variable.

        Returns
        -------
        RaggedColumn
            ``len(column)`` rows, in the order of the Dataset. ``column[i]`` is a NumPy array of the values of
            row `i` or, in a doubly ragged column, a RaggedColumn of its rows.

        Raises
        ------
        NodeNotFoundError
            When there is no such column, or its ``_start`` and ``_count`` are not in the Dataset.
        OptionError
            When the name is not a string.
        SelectionError
            When the values were selected along their own dimension, or the rows of a compact Dataset were
            selected: in both cases the values of a row are no longer known.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> units = xr.open_dataset(file, engine="nwbzarr", group="units").isel(unit=[5, 1])
        >>> [len(spikes) for spikes in units.nwb.ragged("spike_times")]
        [9, 20]
        """
        from intake_nwbzarr.accessor.ragged import ragged

        return ragged(self._dataset, name)

    @with_location
    def spike_times(self, unit: int) -> NDArray[np.float64]:
        """Return the spike times of a unit, reading only the chunks that hold them.

        Parameters
        ----------
        unit
            The id of the unit, which is its label along the units' dimension, not its position.

        Returns
        -------
        numpy.ndarray
            In seconds, (spike,), also if times are decoded.

        Raises
        ------
        OptionError
            When `unit` is not an id.
        NodeNotFoundError
            When there is no such unit, or there are no spike times.
        SelectionError
            When several units have that id, and as for `ragged`.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> xr.open_dataset(file, engine="nwbzarr").nwb.spike_times(5)[:2]
        array([3.60398692, 5.60027897])
        """
        from intake_nwbzarr.accessor.spikes import spike_times

        return spike_times(self._dataset, unit)

    @with_location
    def compact(self) -> xr.Dataset:
        """Return the same rows with only their own values, as CF's contiguous ragged arrays.

        After rows were selected, this keeps the values of the selected rows, one row after the other in their
        order, and of ``<column>_start`` and ``<column>_count`` only the latter, whose attribute
        ``sample_dimension`` names the dimension of the values (CF conventions 9.3.3). Doubly ragged columns
        become two such levels. Call it last: after a later selection of rows, the values of a row are no
        longer known, and `ragged` raises.

        Returns
        -------
        xarray.Dataset
            Starts and counts are read; the values stay lazy. `ragged`, `align` and `bin` work on it, also
            after it was written to netCDF or Zarr and read again.

        Raises
        ------
        NodeNotFoundError, SelectionError
            As for `ragged`.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> units = xr.open_dataset(file, engine="nwbzarr", group="units")
        >>> units.sizes["spike"], units.isel(unit=[5, 1]).nwb.compact().sizes["spike"]
        (97, 29)
        """
        from intake_nwbzarr.accessor.ragged import compact

        return compact(self._dataset)

    @with_location
    def intervals(self, name: str | None = None) -> pd.DataFrame:
        """Return the intervals of an IntervalSeries, or of a table with ``start_time`` and ``stop_time``.

        In an IntervalSeries, a positive value starts an interval and its negative ends it; different absolute
        values are different kinds of intervals, which may overlap (NWB schema, IntervalSeries).

        Parameters
        ----------
        name
            The series or table, by its name in the Dataset or its path in the file; may be omitted if there
            is only one.

        Returns
        -------
        pandas.DataFrame
            ``start_time`` and ``stop_time`` first, in seconds, or as datetimes if the Dataset has those. For
            an IntervalSeries, ``code`` follows, the kind of each interval, and rows are in the order in which
            intervals first appear; an interval that does not end before the next of its kind starts has the
            stop time NaN, and an end without a start has the start time NaN. For a table, its other columns
            follow, except ragged ones, and rows are labelled by ``id``.

        Raises
        ------
        NodeNotFoundError
            When there is none of that name, or none at all.
        OptionError
            When `name` is omitted and there are several.
        SelectionError
            When an IntervalSeries has changes without a time, or values that are not codes.

        Warns
        -----
        MappingWarning
            When an IntervalSeries holds 0, which neither starts nor ends an interval.

        Examples
        --------
        >>> ds.nwb.intervals("trials").query("stop_time - start_time > 1")  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.dataframe import intervals
        from intake_nwbzarr.accessor.sessions import frame_of

        return frame_of(self._dataset, intervals(self._dataset, name))

    @with_location
    def to_dataframe(self, name: str | None = None) -> pd.DataFrame:
        """Return a table, a series or events as a pandas DataFrame, with the rows of this Dataset.

        Parameters
        ----------
        name
            The table, series or events, by their name in the Dataset or their path in the file; may be
            omitted if there is only one.

        Returns
        -------
        pandas.DataFrame
            For a table, nearly the result of pynwb's `DynamicTable.to_dataframe`: one line per row, labelled
            by ``id``. A ragged column has an array in each row, a doubly ragged one a list of arrays, and
            columns of several dimensions likewise. Where pynwb has objects there are values: for a region the
            ids of its rows, for a reference a path and ``<column>_name``, for a reference to samples
            ``<column>_sample_start``, ``<column>_sample_count`` and ``<column>_path``, for a compound
            ``<column>_<field>``. The categories of an aligned table are ``<category>_<column>``.

            For a series, one line per sample, labelled by time, with a column for each channel. For events
            without a table (times, and values beside them), one line per event, with a column ``timestamp``.

        Raises
        ------
        NodeNotFoundError
            When there is none of that name, or none at all.
        OptionError
            When `name` is omitted and there are several.
        SelectionError
            When a series has more than two dimensions, one row of a table was selected as a scalar, or the
            values of a ragged column were selected along their own dimension.

        Warns
        -----
        MappingWarning
            When a column without the dimension of the rows is omitted.

        Examples
        --------
        >>> ds.nwb.to_dataframe("units").spike_times.map(len)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.dataframe import to_dataframe
        from intake_nwbzarr.accessor.sessions import frame_of

        return frame_of(self._dataset, to_dataframe(self._dataset, name))


if TYPE_CHECKING:
    import pandas as pd

    from intake_nwbzarr.accessor.plot.plots import Plots


class ConversionMethods:
    """Methods of `NWBAccessor` that describe, convert or plot the Dataset."""

    _dataset: xr.Dataset

    @with_location
    def describe(self) -> pd.DataFrame:
        """List the neurodata objects of this Dataset without reading data.

        Returns
        -------
        pandas.DataFrame
            One row per object, labelled by its ``path`` in the file: ``type``; ``name`` in this Dataset;
            ``variables``, a tuple of names; ``dims``, ``shape``, ``dtype`` and ``units`` of a series' data
            (for a table the ``dims`` and ``shape`` of its rows; for an object with several arrays and no main
            one, those of all arrays); ``rate`` in Hz; ``timestamps``, their number; ``start`` and
            ``duration`` from the first sample to the last, in seconds (``start`` is a datetime if times are
            decoded), missing if they would have to be read; ``description``.

        Examples
        --------
        >>> ds.nwb.describe().query("rate > 1000")  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.describe import describe

        return describe(self._dataset)

    @with_location
    def sweeps(self) -> xr.DataTree:
        """Return the patch-clamp sweeps of the whole session as ``(recording, time)``.

        Recordings are those of ``general/intracellular_ephys/intracellular_recordings``; in older files,
        those of the SweepTable, or else of the ``sweep_number`` of the patch-clamp series in ``acquisition``
        and ``stimulus/presentation``, where series of one sweep number and electrode form a recording.

        The tables and the starting times of the sweeps are read; samples and amplifier settings are lazy.
        Reading a selection of recordings fetches only their chunks, concurrently.

        Returns
        -------
        xarray.DataTree
            One child for each rate and length, ``rate_10000_length_7168``, also if there is only one. The
            units are added to the names where recordings of one rate and length differ in them, and
            ``irregular_length_<n>`` has stored ``timestamps``, ``(recording, time)``, instead of a rate. Each
            child has:

            ``response``, ``stimulus``
                ``(recording, time)``, float64, ``data * conversion + offset`` in ``units``; only the samples
                that the tables refer to. NaN where nothing was recorded, and beyond the end of the shorter of
                the two. A stimulus of another rate is on ``stimulus_time``.
            ``time``
                Seconds from the first sample of each sweep, whose time in the session is ``starting_time``.
                Response and stimulus are paired sample by sample, as in the tables; where they did not start
                together, ``stimulus_starting_time`` is the start of the stimulus.
            ``recording``
                The ids of the table; in older files, numbers by ``sweep_number`` and ``electrode``.
            coordinates of ``recording``
                The columns of one value per row of the table and of its categories (``electrodes_<column>``);
                the ids of the ``simultaneous_recording``, ``sequential_recording``, ``repetition`` and
                ``experimental_condition`` it belongs to, and the columns of one value per row of those tables
                (``stimulus_type``), prefixed with the table's name where two have the same name, and missing
                where a recording belongs to none; ``response_path``, ``response_neurodata_type``,
                ``response_sample_start``, ``response_sample_count``, and the same for the stimulus.
            ``response_<setting>``, ``stimulus_<setting>``
                ``(recording,)``: ``gain``, ``bias_current``, and whatever else is stored with the series.

        Raises
        ------
        NodeNotFoundError
            When the session has no recordings in any of these forms.
        AccessorError
            When the attributes of the Dataset were dropped.
        ChunkError
            When the rows of a table do not match the values that they divide.

        Warns
        -----
        MappingWarning
            When a reference cannot be resolved or exceeds its series, a recording has neither response nor
            stimulus or belongs to several rows of a table, or a series has no sweep number.

        Examples
        --------
        >>> tree = ds.nwb.sweeps()  # doctest: +SKIP
        >>> sweeps = tree["rate_10000_length_7168"].to_dataset()  # doctest: +SKIP
        >>> steps = sweeps.isel(recording=sweeps.stimulus_type == "Step")  # doctest: +SKIP
        >>> steps.response.plot.line(x="time")  # doctest: +SKIP
        """
        from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
        from intake_nwbzarr.mapping.sweeps import open_sweeps

        hierarchy = open_hierarchy(location_of(self._dataset))
        datasets = open_sweeps(hierarchy)
        session = datasets["/"].attrs
        return xr.DataTree.from_dict(
            {name: with_origin(each, hierarchy.location, session) for name, each in datasets.items()}
        )

    @with_location
    def to_pynapple(self, name: str | None = None) -> Any:
        """Convert objects to pynapple.

        ==================  ======================================================================
        series              ``Tsd``, ``TsdFrame`` (columns are the ids of channels, metadata their
                            coordinates) or ``TsdTensor``; values are lazy, times in memory because
                            pynapple needs them
        units               ``TsGroup`` by id, with the columns of one value per unit. ``obs_intervals``
                            are the time support, otherwise from the first to the last of all spikes
        intervals           ``IntervalSet``, sorted by start, with the columns of one value and ``id``
        events              ``Ts``, sorted: a table's ``timestamp``, or an object's times if it has no data
        ==================  ======================================================================

        Values are in SI units, as in this Dataset, whereas pynapple's own NWB reader returns the stored
        numbers. Times are in seconds, also if they are decoded in this Dataset (to the nanosecond then), and
        so are columns of times. Samples that all have one time have a time support of a microsecond.

        Ragged columns, and other columns without one value per row, are omitted. In the names of columns,
        ``_`` replaces what is not a letter or digit, and is appended to names that pynapple uses itself.
        pynapple reads the first sample of a series to check that it can be indexed.

        Parameters
        ----------
        name
            The object: its name in the Dataset, or its path.

        Returns
        -------
        pynapple object or Mapping
            The object of that name, or the only one of a Dataset of one object. Without a name, a mapping
            from names to all objects that can be converted; each is converted on demand.

        Raises
        ------
        MissingPackageError
            When pynapple is not installed.
        NodeNotFoundError
            When there is no such object, or it cannot be converted, such as text.
        SelectionError
            When timestamps do not ascend, ids of units repeat, or values of a ragged column were selected
            along their own dimension.
        OptionError
            When several objects have that name.

        Warns
        -----
        MappingWarning
            When intervals without start or stop, or without duration, are dropped; when overlapping ones are
            joined (without columns) or touching ones shortened by a microsecond, as pynapple requires; when
            spikes outside of their unit's ``obs_intervals``, or events without a time, are dropped.

        Examples
        --------
        >>> units = ds.nwb.to_pynapple("units")  # doctest: +SKIP
        >>> units.restrict(ds.nwb.to_pynapple("trials")).count(0.1)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.pynapple import to_pynapple

        return to_pynapple(self._dataset, name)

    @property
    def plot(self) -> Plots:
        """Quick-look plots: ``plot.raster()``, ``plot.traces()`` and ``plot.image()``; see `Plots`.

        Each draws with matplotlib, reads only what it draws, and returns the axes.

        Examples
        --------
        >>> ds.nwb.plot.traces("ElectricalSeriesAP", start=10, stop=10.5)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.plot.plots import Plots

        return Plots(self._dataset)


if TYPE_CHECKING:
    import pynwb


@xr.register_datatree_accessor("nwb")  # type: ignore[no-untyped-call, untyped-decorator]
def of_node(node: xr.DataTree) -> NWBAccessor:
    """Return the accessor of a tree's node, for the node's own Dataset."""
    return NWBAccessor(node.to_dataset(inherit=False))


@xr.register_dataset_accessor("nwb")  # type: ignore[no-untyped-call]
class NWBAccessor(TimeMethods, TableMethods, ConversionMethods):
    """The accessor `ds.nwb` of any Dataset opened with ``engine="nwbzarr"``.

    Parameters
    ----------
    dataset
        A Dataset with the attributes that it was opened with.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset
        self._nwbfile: pynwb.NWBFile | None = None

    @property
    def location(self) -> Location:
        """The location of the session.

        Raises
        ------
        AccessorError
            When the attributes of the Dataset were dropped, or it has parts of several sessions.
        """
        return location_of(self._dataset)

    @property
    def nwbfile(self) -> pynwb.NWBFile:
        """The session as a pynwb object, opened on first use and kept with the Dataset.

        Raises
        ------
        AccessorError
            When the attributes of the Dataset were dropped.
        NWBZarrError
            As for `intake_nwbzarr.open_nwb`.
        """
        location = self.location
        if self._nwbfile is None or self._nwbfile.read_io.closed:
            # Importing pynwb takes most of a second.
            from intake_nwbzarr.raw import open_nwb

            self._nwbfile = open_nwb(location)
        return self._nwbfile

    @property
    def object(self) -> Any:
        """The pynwb object that this Dataset shows: with ``group="units"``, ``nwbfile.units``.

        Raises
        ------
        AccessorError
            When the Dataset shows several objects or a whole session, and as for `nwbfile`.
        NodeNotFoundError
            When pynwb has no object there, as for the file's own groups.
        """
        path = object_path(self._dataset)
        return object_of(self.nwbfile, self.location, path)

    @with_location
    def page(self, output: str | os.PathLike[str] | None = None) -> Any:
        """Show the whole session as an HTML page with pictures; see `intake_nwbzarr.page`.

        In a notebook, ``ds.nwb`` alone shows the same without pictures, and reads nothing.

        Parameters
        ----------
        output
            The file to write; by default, none.

        Returns
        -------
        Page
            Which a notebook shows, with its pictures.

        Raises
        ------
        AccessorError
            When the attributes of the Dataset were dropped.
        NWBZarrError
            As for `intake_nwbzarr.page`.

        Examples
        --------
        >>> ds.nwb.page("session.html")  # doctest: +SKIP
        """
        import intake_nwbzarr

        return intake_nwbzarr.page(self.location, output)

    def __reduce__(self) -> tuple[Any, ...]:
        # xarray pickles accessors with their Dataset; an open file is not sent along.
        return NWBAccessor, (self._dataset,)

    def __repr__(self) -> str:
        from intake_nwbzarr.accessor.describe import as_text

        return as_text(self._dataset)

    def _repr_html_(self) -> str:
        from intake_nwbzarr.accessor.html import dataset_html

        return dataset_html(self._dataset)


if TYPE_CHECKING:
    import pandas as pd
    import pynwb

    from intake_nwbzarr.accessor.epochs import Epochs
    from intake_nwbzarr.accessor.events import Events
    from intake_nwbzarr.accessor.plot.plots import Plots
    from intake_nwbzarr.accessor.resample import ResampleMethod
    from intake_nwbzarr.accessor.times import Time

_UNNAMED = "data"


@xr.register_dataarray_accessor("nwb")  # type: ignore[no-untyped-call]
class NWBArrayAccessor:
    """The accessor of a variable of a session's Dataset, such as ``ds["ElectricalSeries"].nwb``.

    Its methods are those of `NWBAccessor`, applied to the Dataset of this one variable and its coordinates;
    those that return a Dataset there return a DataArray here. A DataArray has none of its Dataset's
    attributes: its session is known as long as its encoding, or that of its coordinates, is kept. Ragged
    columns need the variables of their bounds: use the methods of the Dataset.

    Parameters
    ----------
    array
        A series, an image or a column.
    """

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @property
    def location(self) -> Location:
        """The location of the session; see `NWBAccessor.location`."""
        return self._raw.location

    @property
    def nwbfile(self) -> pynwb.NWBFile:
        """The session as a pynwb object; see `NWBAccessor.nwbfile`."""
        return self._raw.nwbfile

    @property
    def object(self) -> Any:
        """The pynwb object that the variable shows: a series, or a column of a table.

        Raises
        ------
        AccessorError, NodeNotFoundError
            As for `NWBAccessor.object`.
        """
        return self._raw.object

    @property
    def plot(self) -> Plots:
        """Quick-look plots: ``plot.traces()`` of a series, ``plot.image()`` of an image."""
        return self._dataset_accessor.plot

    def align(self, events: Events, window: tuple[float, float], **keywords: Any) -> xr.DataArray:
        """Align this series to events, (event, ``lag``, ...); see `NWBAccessor.align`.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> session = xr.open_dataset(file, engine="nwbzarr")
        >>> session["ElectricalSeriesAP"].nwb.align([1.51, 1.52], (0, 0.001)).shape
        (2, 30, 8)
        """
        return self._own_variable(self._dataset_accessor.align(events, window, **keywords))

    def restrict(self, start: Time | Epochs, stop: Time | None = None) -> xr.DataArray:
        """Select the samples in ``[start, stop)``, or within epochs; see `NWBAccessor.restrict`."""
        return self._own_variable(self._dataset_accessor.restrict(start, stop))

    def label(self, epochs: Epochs, column: str | None = None) -> xr.DataArray:
        """Label each sample with the epoch that contains it; see `NWBAccessor.label`."""
        return self._own_variable(self._dataset_accessor.label(epochs, column))

    def resample_like(
        self, other: xr.Dataset | xr.DataArray, method: ResampleMethod, *, tolerance: float | None = None
    ) -> xr.DataArray:
        """Resample this series at the times of another one; see `NWBAccessor.resample_like`."""
        return self._own_variable(self._dataset_accessor.resample_like(other, method, tolerance=tolerance))

    def to_dataframe(self) -> pd.DataFrame:
        """Return a DataFrame of samples by channels; see `NWBAccessor.to_dataframe`."""
        return self._dataset_accessor.to_dataframe(self._shown)

    def to_pynapple(self) -> Any:
        """Return a ``Tsd``, ``TsdFrame`` or ``TsdTensor``; see `NWBAccessor.to_pynapple`."""
        return self._dataset_accessor.to_pynapple(self._shown)

    @property
    def _name(self) -> str:
        named = self._array.name is not None and self._array.name not in self._array.coords
        return str(self._array.name) if named else _UNNAMED

    @property
    def _shown(self) -> str:
        return str(self._array.attrs.get("nwb_path", self._name))

    @cached_property
    def _raw(self) -> NWBAccessor:
        return self._dataset_accessor  # cached, so that the file stays open

    @property
    def _dataset_accessor(self) -> NWBAccessor:
        from intake_nwbzarr.accessor.sessions import origin_of_array

        dataset = self._array.to_dataset(name=self._name)
        origin = origin_of_array(self._array)
        if origin is not None:
            dataset.attrs = dict(origin.attributes)
        if "nwb_path" in self._array.attrs:
            dataset.attrs["nwb_path"] = self._array.attrs["nwb_path"]
        return NWBAccessor(dataset)

    def _own_variable(self, dataset: xr.Dataset) -> xr.DataArray:
        if self._name not in dataset.variables:
            raise AccessorError(
                f"{self._name!r} needs other variables of its Dataset.",
                path=self._array.attrs.get("nwb_path"),
                found=self._name,
                next_step="Call the method of ds.nwb, the accessor of the Dataset.",
            )
        return dataset[self._name].rename(self._array.name)

    def __reduce__(self) -> tuple[Any, ...]:
        # xarray pickles accessors with their array; an open file is not sent along.
        return NWBArrayAccessor, (self._array,)

    def __repr__(self) -> str:
        return f"<array.nwb of {self._array.name!r}>"
