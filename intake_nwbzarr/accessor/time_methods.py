"""Methods of `ds.nwb` along time: align, bin, restrict, resample, label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from intake_nwbzarr.accessor.sessions import with_location

if TYPE_CHECKING:
    from intake_nwbzarr.accessor.align import AlignMethod, Events, OnMissing
    from intake_nwbzarr.accessor.epochs import Epochs
    from intake_nwbzarr.accessor.resample import ResampleMethod, Times
    from intake_nwbzarr.accessor.times import Time


class TimeMethods:
    """Methods of `NWBAccessor` that work along time."""

    _dataset: xr.Dataset

    @with_location
    def align(
        self,
        events: Events | str,
        window: tuple[float, float],
        *,
        on: str | None = None,
        bin: float | None = None,  # noqa: A002 - the usual word
        rate: float | None = None,
        method: AlignMethod | None = None,
        gap: float | None = None,
        on_missing: OnMissing = "nan",
        name: str | None = None,
        by: str | None = None,
    ) -> xr.Dataset:
        """Align a series, or counts of spikes or of other events, to events.

        Parameters
        ----------
        events
            A table, whose columns of one value per row become coordinates of the result: as a Dataset (of the
            table alone, or of a whole session), a node of a tree, a DataFrame, pynapple's ``IntervalSet``
            (its starts), or by its name in this Dataset. Or an irregular series in one of these forms, or
            pynapple's ``Ts``, ``Tsd`` or ``TsGroup``: its timestamps. Or a DataArray of times with one
            dimension, or anything that NumPy makes a one-dimensional array of. Times are seconds in the
            session's time, or datetimes, in UTC if they have no time zone.
        window
            The start and end of the window around each event, in seconds: half-open, ``[a, b)``.
        on
            The column of the table with the times, by its name in the file or in the Dataset; by default
            ``start_time``, or ``timestamp`` if there is none.
        bin
            The width of a bin in seconds, to count the spikes of units, or the events that `bin` counts. An
            incomplete last bin is omitted. Without it, the values of a series are aligned.
        rate
            For series: lags per second; by default the rate of the series, required if it is irregular. Times
            in memory that are evenly spaced except for rounding, as after ``coarsen`` or ``resample``, are
            regular; stored timestamps are not examined for that.
        method
            For series: ``nearest`` takes the nearest sample, of two equally near ones the later; ``ffill``
            the last at or before; ``linear`` interpolates between both sides. By default a regular series is
            aligned by its nearest samples; an irregular one requires a method.
        gap
            For irregular series: the longest time between two neighbouring samples that is bridged, in
            seconds; by default ``2 / rate``. Beyond it, ``linear`` and ``ffill`` give no values, and
            ``nearest`` none that is further than half of it from a sample.
        on_missing
            What to do with events without a time, or whose windows exceed the recording, overlap a gap or,
            for units, exceed their ``obs_intervals``. ``nan``: what is missing is NaN. ``drop``: the whole
            event is dropped. ``raise``: an error names the first.
        name
            The table or series of this Dataset that is aligned, by its name or path; may be omitted if there
            is only one or, with `bin`, if there are units.
        by
            As for `bin`, only with `bin`.

        Returns
        -------
        xarray.Dataset
            Lazy, with dask arrays where the values have them. Every variable along time is along (event,
            ``lag``, ...) instead; for units it is ``spike_counts``, (unit, event, ``lag``), with the units'
            columns as coordinates, for other events ``event_counts``, (event, ``lag``). Variables without a
            time are dropped. The events' dimension is that of the table's rows, or ``event``.

            `lag` is in seconds from the event. For a regular series at its own rate, lags are whole numbers
            of samples, ``k / rate`` from the sample nearest to the event, and the coordinate ``lag_offset``
            of the events is how much later that sample is. Otherwise values are looked up at event + lag. For
            counts, `lag` is the left edge of each bin, ``[lag, lag + bin)``.

            Values that can be missing are floats: integers and booleans become float64, which holds integers
            up to 2**53, and counts are float64. With ``drop`` or ``raise`` both stay integers. A partly
            observed bin is missing. Without ``obs_intervals``, units count as observed at all times.

        Raises
        ------
        OptionError
            When a keyword is missing or not valid for a series or for counts, or the name of a dimension
            clashes; when `name` is omitted and several tables or series are possible.
        NodeNotFoundError
            When the events have no such column, or there is no object of that name.
        SelectionError
            When the Dataset has no time; when several columns are possible; when values were selected along a
            ragged dimension; when the timestamps cannot be searched; with ``raise``, when something is
            missing.
        LimitError
            For more than 100 million lags.

        Notes
        -----
        Nothing of a lazy series is read before the result is computed, except the events' times and, for
        units, the bounds of each unit's spikes. With dask, or with ``drop`` or ``raise``, timestamps of an
        irregular series are read around the events. Load (`load`) a result that is used more than once.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> units = xr.open_dataset(file, engine="nwbzarr", group="units")
        >>> trials = xr.open_dataset(file, engine="nwbzarr", group="intervals/trials")
        >>> around = units.nwb.align(trials, (-0.5, 1.0), bin=0.1)
        >>> around.spike_counts.groupby("stim").mean().sizes["lag"]
        15
        """
        from intake_nwbzarr.accessor.align import align

        return align(
            self._dataset,
            events,
            window,
            on=on,
            bin=bin,
            rate=rate,
            method=method,
            gap=gap,
            on_missing=on_missing,
            name=name,
            by=by,
        )

    @with_location
    def bin(
        self,
        width: float,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        name: str | None = None,
        by: str | None = None,
    ) -> xr.Dataset:
        """Count spikes, or other events, in bins of equal width.

        Parameters
        ----------
        width
            The width of a bin in seconds.
        start
            The start of the first bin, in seconds or as a datetime; by default 0.
        stop
            The end of the last bin at the latest, in seconds or as a datetime; by default the time of the
            last of these spikes or events. An incomplete last bin is omitted.
        name
            What is counted, by its name or path in this Dataset: units, by their spike times; an events
            table, by its ``timestamp``; a table of intervals, by its ``start_time``; another column of times
            of a table, by the name of its variable; an irregular series, by its timestamps. By default the
            units if there are any, otherwise the only one of these.
        by
            For events: a column of the table with one value per row, or a variable of the series, such as the
            type of each event. Events are counted separately for each of its values, along a dimension of its
            name. Events without a value are not counted. It is read, to find its values.

        Returns
        -------
        xarray.Dataset
            ``spike_counts``, (unit, time), or ``event_counts``, (time,), int64, counted when they are
            computed; with dask arrays if the spike times have them. `time` is the left edge of each bin,
            ``[time, time + width)``, ``start + k / (1 / width)``, with a lazy index. The units' columns are
            coordinates. Spikes outside of all bins are not counted, and ``obs_intervals`` are not considered:
            `align` distinguishes what was not observed from what did not fire.

        Raises
        ------
        NodeNotFoundError
            When there is nothing to count, or nothing of that name.
        OptionError
            When a number is not valid, or `by` is not such a column; when `name` is omitted and several
            things could be counted; when `name` is a series at a regular rate.
        SelectionError
            When spike times were selected along their own dimension. On computing: when `stop` was not passed
            and the spikes of a unit do not ascend.

        Notes
        -----
        Before counts are computed, only the bounds of each unit's spikes are read and, without `stop`, each
        unit's last spike (for an events table all of its times). Pass `stop` to avoid that:
        ``units.nwb.bin(0.1, stop=speed.nwb.stop)``.

        Examples
        --------
        >>> file = "tests/data/corpus/ecephys_hdmf-zarr-0.14.0.nwb.zarr.zip"
        >>> units = xr.open_dataset(file, engine="nwbzarr", group="units")
        >>> units.nwb.bin(0.5).spike_counts.sel(unit=3).values
        array([0, 0, 1, 1, 1, 1, 2, 1, 0, 2, 1, 2, 0, 2, 0, 1, 1, 0, 0])
        """
        from intake_nwbzarr.accessor.counts import bin_events

        return bin_events(self._dataset, width, start=start, stop=stop, name=name, by=by)

    @with_location
    def restrict(
        self, start: Time | Epochs, stop: Time | None = None, *, name: str | None = None
    ) -> xr.Dataset:
        """Select the data between two times, or within epochs: half-open, ``[start, stop)``.

        Series are sliced along their time, lazily: of stored timestamps, only the blocks in which a window
        begins or ends are read. After a selection of several epochs, a regular series has an irregular time.
        Of an interval table (any with ``start_time`` and ``stop_time``, which are read), the rows that
        overlap the window are kept, with their own times, not clipped to it; an interval that has no stop
        time, or one that is not after its start, counts as the instant at which it starts, and one without a
        start is dropped. Of an events table, the rows whose ``timestamp`` is within the window are kept.

        All units are kept. Their ``spike_times_start`` and ``spike_times_count`` are reduced to the spikes
        within the window, for which the units' spike times are read. So are the bounds of ``obs_intervals``,
        to those that overlap, and of every other ragged column with one value for each spike of each unit
        (amplitudes, waveforms); regions and references never count as such columns, and columns of other
        counts stay whole.

        Objects without a time are kept unchanged: other tables, images, and stimulus templates, whose times
        count from the start of the stimulus. Sample numbers, as in references to parts of a series, still
        count from the series' own start.

        Parameters
        ----------
        start, stop
            Seconds from the session's zero of time, also if times are decoded, or datetimes; infinite for an
            open end. A time may be a 0-d DataArray, such as ``trials.start_time[3]``. Or, instead of both,
            epochs as `start`: a table with ``start_time`` and ``stop_time`` as a Dataset, a node of a tree, a
            DataFrame, pynapple's ``IntervalSet`` or its name in this Dataset; or pairs of times, (epoch, 2).
            Epochs may overlap; data in several of them are kept once.
        name
            One table or series of this Dataset, by its name or path: only that is kept, and restricted. By
            default all.

        Returns
        -------
        xarray.Dataset
            With the same attributes.

        Raises
        ------
        OptionError
            When a time is invalid, `start` is not before `stop`, or a Dataset of epochs has several tables of
            intervals.
        NodeNotFoundError
            When the epochs have no ``start_time`` or ``stop_time``, or there is no object of that name.
        SelectionError
            When the timestamps of the only series, or the spike times of a unit, contain NaN or do not ascend
            where they are searched; when a table is in this Dataset without the columns of its times, or
            these hold no times; when the times of a series are not in this Dataset; when nothing has a time.

        Warns
        -----
        MappingWarning
            When a series has no time in the file, and is returned unchanged. When epochs have no start, no
            stop, or do not stop after they start, and are ignored.

        Notes
        -----
        Within one window, the values of a ragged column are not copied; for several, values in the gaps are
        dropped.

        Examples
        --------
        >>> ds.nwb.restrict(ds.trials_start_time[3], ds.trials_stop_time[3])  # doctest: +SKIP
        >>> ds.nwb.restrict("epochs", name="speed")  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.restrict import restrict

        return restrict(self._dataset, start, stop, name=name)

    @with_location
    def label(self, epochs: Epochs, column: str | None = None, *, name: str | None = None) -> xr.Dataset:
        """Label every sample, spike and event with the epoch that contains it.

        Parameters
        ----------
        epochs
            As for `restrict`, but they must not overlap. An epoch is half-open: ``[start_time, stop_time)``.
        column
            The column of the epochs to label with, such as ``"stim"``; by default their ids.
        name
            One table or series of this Dataset, by its name or path: only that is returned. By default all.

        Returns
        -------
        xarray.Dataset
            This Dataset, with a coordinate along every time, along the spikes, and along events and
            intervals, which are labelled by their start. It has the name of the column (``stim``) or of the
            epochs' rows (``trial``); if several are needed, each is prefixed with its dimension's name
            (``speed_stim``). Computed when it is read, from the times of what is read. Outside of all epochs
            it is missing (NaN), so that integers and booleans become float64, and text objects.

        Raises
        ------
        SelectionError
            When epochs overlap; when nothing has a time.
        NodeNotFoundError
            When the epochs have no such column, and as for `restrict`.
        OptionError
            As for `restrict`.

        Warns
        -----
        MappingWarning
            When epochs have no start, no stop, or do not stop after they start, and are ignored.

        Examples
        --------
        >>> speed.nwb.label(trials, "stim").data.groupby("stim").mean()  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.epochs import label

        return label(self._dataset, epochs, column, name=name)

    @property
    @with_location
    def start(self) -> float:
        """The time in seconds at which this Dataset starts: that of the first sample of its series.

        Without a series, that of the first of its spikes, events and intervals; see `stop`.
        """
        from intake_nwbzarr.accessor.restrict import span

        return span(self._dataset)[0]

    @property
    @with_location
    def stop(self) -> float:
        """The time in seconds at which this Dataset ends: the end of its series.

        A regular series ends one sampling interval after its last sample, an irregular one at its last
        timestamp. Only the first and last timestamps of a series are read. Without a series, the ends of
        spikes, events and intervals are read: for a unit its first and last spike.

        Raises
        ------
        SelectionError
            When nothing has a time.

        Examples
        --------
        >>> counts = units.nwb.bin(0.1, stop=speed.nwb.stop)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.restrict import span

        return span(self._dataset)[1]

    @with_location
    def resample_like(
        self,
        other: Times,
        method: ResampleMethod,
        *,
        tolerance: float | None = None,
    ) -> xr.Dataset:
        """Resample every series of this Dataset at the times of another series.

        Nothing is read before the result is computed; a selection from it reads only the samples that it
        uses. Variables without a time, or along this very time, stay unchanged, and so do stimulus templates.

        Parameters
        ----------
        other
            The object with the time: a series of a flat Dataset (``ds["lick"]``), the Dataset of one object,
            or a node of a tree. Or times: pynapple's ``Ts``, ``Tsd`` or ``TsdFrame``, a DataFrame as returned
            by `to_dataframe`, or an array of seconds or of datetimes, whose dimension becomes ``time``.
        method
            ``nearest``: the nearest sample, of two the later. ``ffill``: the last sample at or before the
            time. ``linear``: linear interpolation between the samples before and after it. ``mean``: the mean
            of the samples from each time up to, but not including, the next; NaN if one of them is. The last
            interval is as long as the sampling interval of a regular time; that of an irregular time is
            unknown, so its mean is NaN.
        tolerance
            Seconds. Samples further away from a time are not used; ``linear`` needs both near enough.

        Returns
        -------
        xarray.Dataset
            Along the time of `other`, with its index. There is no extrapolation: before the first sample and
            after the last, values are NaN with every method; so is an interval of ``mean`` without samples.
            Integers and booleans therefore become float64; other floats keep their type.

        Raises
        ------
        OptionError
            When the method is none of these, or not valid for a series of text or of booleans; when `other`
            has no time or several; when times are decoded, because samples are compared in seconds.
        SelectionError
            When no series has a time. On reading values: when timestamps contain NaN or do not ascend, or
            when several samples have exactly the requested time.

        Examples
        --------
        >>> behavior = ds[["lick", "speed"]].nwb.resample_like(ds["ophys_series"], "linear")  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.resample import resample_like

        return resample_like(self._dataset, other, method, tolerance=tolerance)
