"""The calls of `ds.nwb` that give another form: what there is, sweeps, pynapple's objects, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from intake_nwbzarr.accessor.way_back import location_of

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
        from intake_nwbzarr.accessor.tables.describe import describe

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
        from intake_nwbzarr.accessor.sweeps.sweeps import sweeps

        return sweeps(location_of(self._dataset))

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
        from intake_nwbzarr.accessor.to_pynapple.objects import to_pynapple

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
