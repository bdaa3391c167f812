"""The accessors `ds.nwb` and `array.nwb`: contents, rows, other forms and pictures of a session."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.accessor.along_time import AlongTime
from intake_nwbzarr.accessor.sessions import location_of, object_of, object_path, with_origin
from intake_nwbzarr.errors import AccessorError
from intake_nwbzarr.location.location import Location

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from intake_nwbzarr.accessor.ragged import RaggedColumn


class OfTables:
    """Calls on tables, for `NWBAccessor`."""

    _dataset: xr.Dataset

    def ragged(self, name: str) -> RaggedColumn:
        """The rows of a ragged column, each read when it is asked for.

        Parameters
        ----------
        name
            Of the variable that holds the values, or of the column in the file where that is one variable.

        Returns
        -------
        RaggedColumn
            ``len(column)`` rows, in the order that the Dataset has them. ``column[i]`` is a numpy array of
            row `i`'s values, or, where the column is doubly ragged, a RaggedColumn of its rows.

        Raises
        ------
        NodeNotFoundError
            When there is no such column, or its ``_start`` and ``_count`` were left out.
        OptionError
            When the name is no text.
        SelectionError
            When the values were selected along their own dimension, or the rows of a compact Dataset were
            selected: in both cases rows cannot be told apart any more.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> units = xr.open_dataset(file, engine="nwbzarr", group="units").isel(unit=[5, 1])
        >>> [len(spikes) for spikes in units.nwb.ragged("spike_times")]
        [9, 20]
        """
        from intake_nwbzarr.accessor.ragged import ragged

        return ragged(self._dataset, name)

    def spike_times(self, unit: int) -> NDArray[np.float64]:
        """The spike times of a unit, of which nothing but the chunks they lie in is read.

        Parameters
        ----------
        unit
            Its id, which is the label along the units' dimension, not the position.

        Returns
        -------
        numpy.ndarray
            In seconds, (spike,), also where times are decoded.

        Raises
        ------
        OptionError
            When `unit` is no id.
        NodeNotFoundError
            When there is no such unit, or there are no spike times.
        SelectionError
            When several units have that id; and as `ragged`.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> xr.open_dataset(file, engine="nwbzarr").nwb.spike_times(5)[:2]
        array([3.60398692, 5.60027897])
        """
        from intake_nwbzarr.accessor.spikes import spike_times

        return spike_times(self._dataset, unit)

    def compact(self) -> xr.Dataset:
        """The same rows with no other values than theirs: CF's contiguous ragged arrays.

        Of a Dataset whose rows were selected, this leaves the selected rows' values, one row after the other
        in their order, and of ``<column>_start`` and ``<column>_count`` the latter, whose attribute
        ``sample_dimension`` names the values' dimension (CF conventions 9.3.3). Doubly ragged columns become
        two such levels. Do so last: selecting rows afterwards loses what belongs to which, and `ragged` then
        says so.

        Returns
        -------
        xarray.Dataset
            Starts and counts are read; the values stay lazy. `ragged`, `align` and `bin` work on it, also
            after it was written to netCDF or Zarr and read again.

        Raises
        ------
        NodeNotFoundError, SelectionError
            As `ragged`.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> units = xr.open_dataset(file, engine="nwbzarr", group="units")
        >>> units.sizes["spike"], units.isel(unit=[5, 1]).nwb.compact().sizes["spike"]
        (97, 29)
        """
        from intake_nwbzarr.accessor.ragged import compact

        return compact(self._dataset)

    def intervals(self, name: str | None = None) -> pd.DataFrame:
        """Give the intervals of an IntervalSeries, or of a table with ``start_time`` and ``stop_time``.

        In an IntervalSeries, a positive value starts an interval and the negative one ends it; different
        absolute values are different kinds of intervals, which may overlap (NWB schema, IntervalSeries).

        Parameters
        ----------
        name
            What the Dataset calls the series or table, or its path in the file. None for the only one here.

        Returns
        -------
        pandas.DataFrame
            ``start_time`` and ``stop_time`` first, in seconds, or as the datetimes that this Dataset has. Of
            an IntervalSeries, ``code`` follows, the kind of each interval, and rows are in the order in which
            intervals are first seen; a start that another of its kind follows, or nothing, has the stop time
            NaN, and an end without a start has the start time NaN. Of a table, its other columns follow,
            those that are not ragged, and rows are labelled by ``id``.

        Raises
        ------
        NodeNotFoundError
            When there is none of that name, or none at all; the closest are named.
        OptionError
            When `name` is None and there are several.
        SelectionError
            When an IntervalSeries has changes without a time, or values that are no codes.

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

    def to_dataframe(self, name: str | None = None) -> pd.DataFrame:
        """Give a table, a series or events as a pandas DataFrame, from the rows that this Dataset has.

        Parameters
        ----------
        name
            What the Dataset calls the table, series or events, or their path in the file. None for the only
            one here.

        Returns
        -------
        pandas.DataFrame
            Of a table, nearly what pynwb's `DynamicTable.to_dataframe` gives: one row for each, labelled by
            ``id``; in a ragged column an array for each row, in a doubly ragged one a list of them, and so
            in columns of several dimensions. Where pynwb has objects there are values: of a region the ids
            of its rows, of a reference a path and ``<column>_name``, of a reference to samples
            ``<column>_sample_start``, ``<column>_sample_count`` and ``<column>_path``, of a compound
            ``<column>_<field>``; the categories of an aligned table come as ``<category>_<column>``.

            Of a series, a row for each sample, labelled by time, and a column for each channel. Of events
            without a table (times, and values beside them), a row for each, with a column ``timestamp``.

        Raises
        ------
        NodeNotFoundError
            When there is none of that name, or none at all; the closest are named.
        OptionError
            When `name` is None and there are several.
        SelectionError
            When a series has more than two dimensions, one row of a table was selected as a scalar, or the
            values of a ragged column were selected along their own dimension.

        Warns
        -----
        MappingWarning
            When a column does not lie along the rows: it is left out.

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


class OtherForms:
    """Calls that give another form, for `NWBAccessor`."""

    _dataset: xr.Dataset

    def describe(self) -> pd.DataFrame:
        """List the neurodata objects of this Dataset, reading nothing.

        Returns
        -------
        pandas.DataFrame
            One row for each object, labelled by its ``path`` in the file. ``type``; ``name``, as this
            Dataset has it; ``variables``, a tuple of names; ``dims``, ``shape``, ``dtype`` and ``units`` of
            a series' data, of a table the ``dims`` and ``shape`` of its rows, of what has several arrays and
            none that is its data those of all of them; ``rate`` in Hz;
            ``timestamps``, how many there are; ``start`` and ``duration``, from the first sample to the
            last, in seconds (``start`` is a datetime where times are decoded), missing where only reading
            would tell; ``description``.

        Examples
        --------
        >>> ds.nwb.describe().query("rate > 1000")  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.describe import describe

        return describe(self._dataset)

    def sweeps(self) -> xr.DataTree:
        """Patch-clamp sweeps of the whole session as ``(recording, time)``.

        Recordings are taken from ``general/intracellular_ephys/intracellular_recordings``; in older files
        from the SweepTable, or else from the ``sweep_number`` of the patch-clamp series in ``acquisition``
        and ``stimulus/presentation``, of which those of one electrode belong together.

        The tables and the sweeps' starting times are read; samples and amplifier settings are lazy. A
        selection of recordings reads the chunks of those only, in one gather.

        Returns
        -------
        xarray.DataTree
            One child for each rate and length, ``rate_10000_length_7168``, also where there is only one: the
            units are added to the names where recordings of one rate and length differ in them, and
            ``irregular_length_<n>`` has stored ``timestamps``, ``(recording, time)``, in place of a rate.
            Each child has:

            ``response``, ``stimulus``
                ``(recording, time)``, float64, ``data * conversion + offset`` in ``units``; only the samples
                that the tables refer to. NaN where nothing was recorded, and beyond the end of the shorter of
                the two. A stimulus of another rate is on ``stimulus_time``.
            ``time``
                Seconds from the first sample of each sweep; ``starting_time`` is when that was, in the
                session. Response and stimulus are paired sample by sample, as the tables pair them; where
                they did not start together, ``stimulus_starting_time`` tells when the stimulus did.
            ``recording``
                The ids of the table; of older files, numbers by ``sweep_number`` and ``electrode``.
            coordinates of ``recording``
                The plain columns of the table and of its categories (``electrodes_<column>``); the ids of the
                ``simultaneous_recording``, ``sequential_recording``, ``repetition`` and
                ``experimental_condition`` it belongs to, and the plain columns of those tables
                (``stimulus_type``), which are prefixed with the table where two have one name, and missing
                where a recording belongs to none; ``response_path``, ``response_neurodata_type``,
                ``response_sample_start``, ``response_sample_count``, and the same of the stimulus.
            ``response_<setting>``, ``stimulus_<setting>``
                ``(recording,)``: ``gain``, ``bias_current``, and what else is stored with the series.

        Raises
        ------
        NodeNotFoundError
            When the session has no recordings in any of these forms.
        AccessorError
            When the Dataset's attributes were dropped.
        ChunkError
            When a table's rows do not fit what they divide.

        Warns
        -----
        MappingWarning
            When a reference leads nowhere or beyond the end of its series, a recording has neither response
            nor stimulus, belongs to several rows of a table, or a series has no sweep number.

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

    def to_pynapple(self, name: str | None = None) -> Any:
        """Objects as pynapple's, for analysis there.

        ==================  ======================================================================
        series              ``Tsd``, ``TsdFrame`` (columns are the channels' ids, metadata what is joined to
                            them) or ``TsdTensor``; values lazy, times in memory, where pynapple needs them
        units               ``TsGroup`` by id, with the plain columns. ``obs_intervals`` are the time support,
                            else from the first to the last of all spikes
        intervals           ``IntervalSet``, sorted by start, with the plain columns and ``id``
        events              ``Ts``, sorted: a table's ``timestamp``, or an object's times where it has no data
        ==================  ======================================================================

        Values are in SI units, as this Dataset has them, where pynapple's own NWB reader gives the numbers
        that are stored. Times are in seconds, also where this Dataset has them decoded, to the nanosecond
        then, and so are columns of times. Samples that all have one time have a time support of a
        microsecond.

        Ragged columns, and columns that are not of one value a row, stay in the Dataset. Names of columns
        that pynapple cannot take have ``_`` for what is no letter or digit; those that it uses itself end in
        one. pynapple reads the first sample of a series to see that it is indexable.

        Parameters
        ----------
        name
            The object: its name in the Dataset, or its path.

        Returns
        -------
        pynapple object or Mapping
            The object of that name, or the only one of a Dataset of one object. Without a name, a mapping
            from names to all that pynapple has something for; each is made when it is asked for.

        Raises
        ------
        MissingPackageError
            When pynapple is not installed.
        NodeNotFoundError
            When there is no such object, or pynapple has nothing for it, such as text.
        SelectionError
            When timestamps do not ascend, ids of units repeat, or values of a ragged column were selected
            along their own dimension.
        OptionError
            When several objects have that name.

        Warns
        -----
        MappingWarning
            When intervals without start or stop, or of no duration, are left out; when overlapping ones are
            joined (without columns) or touching ones shortened by a microsecond, as pynapple demands; when
            spikes outside of their unit's ``obs_intervals``, or events without a time, are left out.

        Examples
        --------
        >>> units = ds.nwb.to_pynapple("units")  # doctest: +SKIP
        >>> units.restrict(ds.nwb.to_pynapple("trials")).count(0.1)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.pynapple import to_pynapple

        return to_pynapple(self._dataset, name)

    @property
    def plot(self) -> Plots:
        """First looks: ``plot.raster()``, ``plot.traces()`` and ``plot.image()``; see `Plots`.

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
        from intake_nwbzarr.accessor.describe import as_text

        return as_text(self._dataset)

    def _repr_html_(self) -> str:
        from intake_nwbzarr.accessor.describe import as_html

        return as_html(self._dataset)


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
