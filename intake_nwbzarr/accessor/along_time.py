"""Methods of `ds.nwb` along time: align, bin, restrict, resample, label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    from intake_nwbzarr.accessor.align import AlignMethod, Events, OnMissing
    from intake_nwbzarr.accessor.epochs import Epochs
    from intake_nwbzarr.accessor.resample import ResampleMethod, Times
    from intake_nwbzarr.accessor.times import Time


class AlongTime:
    """Calls along time, for `NWBAccessor`."""

    _dataset: xr.Dataset

    def align(
        self,
        events: Events | str,
        window: tuple[float, float],
        *,
        on: str | None = None,
        bin: float | None = None,  # noqa: A002 - the word that everybody uses
        rate: float | None = None,
        method: AlignMethod | None = None,
        gap: float | None = None,
        on_missing: OnMissing = "nan",
        name: str | None = None,
        by: str | None = None,
    ) -> xr.Dataset:
        """Align a series, or counts of spikes or of any other events, to events.

        Parameters
        ----------
        events
            A table, whose columns of one value a row become coordinates of the result: as a Dataset (of the
            table alone, or of a whole session), a node of a tree, a DataFrame, pynapple's ``IntervalSet``
            (whose starts are meant), or by its name in this Dataset. An irregular series in one of these
            forms, or pynapple's ``Ts``, ``Tsd`` or ``TsGroup``: its timestamps. A DataArray of times on one
            dimension, or whatever NumPy makes a one-dimensional array of. Seconds in the session's time, or
            datetimes, in UTC where they name no zone.
        window
            From when to when around each event, in seconds: half-open, ``[a, b)``.
        on
            Which column of the table has the times: ``start_time`` unless given, or ``timestamp`` where there
            is none. The column's name in the file or in the Dataset.
        bin
            The width of a bin in seconds, to count in: the spikes of units, or the events that `bin` counts.
            Of the window's end, a bin that is not whole is left out. Without it, a series' values are
            aligned.
        rate
            Of series: lags per second. Required where samples are irregular; the series' own unless given.
            Times in memory that are evenly spaced but for rounding, as after ``coarsen`` or ``resample``,
            are regular; stored timestamps are not looked at for that.
        method
            Of series: ``nearest`` takes the nearest sample, of two equally near ones the later; ``ffill`` the
            last at or before; ``linear`` interpolates between both sides. A regular series is aligned by its
            nearest samples unless given, an irregular one requires it.
        gap
            Of irregular series: the longest time between two neighbouring samples that is bridged, in
            seconds; ``2 / rate`` unless given. Beyond, ``linear`` and ``ffill`` have no values, and
            ``nearest`` none that is further than half of it from a sample.
        on_missing
            What becomes of events without a time, or whose windows reach over the recording's ends, into a
            gap or, for units, out of their ``obs_intervals``. ``nan``: what is missing is NaN. ``drop``: the
            whole event is left out. ``raise``: an error names the first.
        name
            Which table or series of this Dataset is aligned, by its name or path. None for the only one; with
            `bin`, for the units if there are any.
        by
            As of `bin`, with `bin` only.

        Returns
        -------
        xarray.Dataset
            Lazy, and of dask where the values are. Every variable along time is along (event, ``lag``, ...)
            instead; of units it is ``spike_counts``, (unit, event, ``lag``), with the units' columns as
            coordinates, of other events ``event_counts``, (event, ``lag``). What has no time is left out. The
            events' dimension is the table's rows, or ``event``.

            `lag` is in seconds from the event. For a regular series at its own rate, these are whole numbers
            of samples, ``k / rate`` from the sample that stands for the event, and the coordinate
            ``lag_offset`` of the events is how much later that sample is. Otherwise values are looked up at
            event + lag. For units, `lag` is the left edge of each bin, ``[lag, lag + bin)``.

            Values that can be missing are floats: integers and booleans become float64, which holds integers
            up to 2**53, and counts are float64. With ``drop`` or ``raise`` both stay integers. A bin that is
            observed in part is missing. Without ``obs_intervals`` nothing says when units were not observed,
            and all time counts as observed.

        Raises
        ------
        OptionError
            When a keyword is not valid for a series or for counts, is missing, or a dimension's name clashes;
            when several tables or series could be meant, and `name` is None.
        NodeNotFoundError
            When the events have no such column, or there is no object of that name.
        SelectionError
            When the Dataset has no time; several columns could be meant; values were selected along a ragged
            dimension; the timestamps cannot be searched; or, for ``raise``, something is missing.
        LimitError
            For more than 100 million lags.

        Notes
        -----
        Nothing of a lazy series is read before the result is: only the event's times, and of units where each
        one's spikes are. With dask, or with ``drop`` or ``raise``, timestamps of an irregular series are read
        around the events. A result that is used more than once is better loaded (`load`) first.

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

    def bin(
        self,
        width: float,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        name: str | None = None,
        by: str | None = None,
    ) -> xr.Dataset:
        """Count spikes, or any other events, in bins of equal width.

        Parameters
        ----------
        width
            Of a bin in seconds.
        start
            Where the first begins, in seconds or as a datetime; 0 unless given.
        stop
            Where the last ends at the latest, in seconds or as a datetime; the time of the last of these
            spikes or events unless given. A last bin that is not whole is left out.
        name
            What is counted, by its name or path in this Dataset: units, by their spike times; an events
            table, by its ``timestamp``; a table of intervals, by its ``start_time``; another column of times
            of a table, by the variable's name; an irregular series, by its timestamps. None for the units if
            there are any, else for the only one of these.
        by
            Of events: a column of the table with one value each, or a variable of the series, such as the
            type of each event. Events are then counted apart by it, and it is a dimension of the result.
            Events for which it is missing are not counted. It is read, to find the values that there are.

        Returns
        -------
        xarray.Dataset
            ``spike_counts``, (unit, time), or ``event_counts``, (time,), int64, counted when they are
            computed; of dask where the spike times are. A Dataset, as `align` gives and as what was opened
            is, so that it has `nwb` and can be combined with what it was counted from. `time` is the left
            edge of each bin, ``[time, time + width)``, ``start + k / (1 / width)``, with a lazy index. The
            units' columns are coordinates. Spikes outside of all bins are not counted, and ``obs_intervals``
            are not considered: `align` distinguishes what was not observed from what did not fire.

        Raises
        ------
        NodeNotFoundError
            When there is nothing to count, or nothing of that name.
        OptionError
            When a number is not valid, or `by` no such column; when several things could be counted and
            `name` is None; when `name` is a series at a regular rate.
        SelectionError
            When spike times were selected along their own dimension. When counts are computed: when
            no `stop` was given, and the spikes of a unit do not ascend.

        Notes
        -----
        Nothing is read before counts are, but where each unit's spikes are, and, without `stop`, each unit's
        last spike (of an events table all of its times). Give a `stop` to spare that:
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

    def restrict(
        self, start: Time | Epochs, stop: Time | None = None, *, name: str | None = None
    ) -> xr.Dataset:
        """Keep what the session holds between two times, or within epochs: half-open, ``[start, stop)``.

        Series are sliced along their time, lazily: of stored timestamps, only the blocks in which a window
        begins or ends are read. Between several epochs they have gaps: a regular series then has an irregular
        time. Of an interval table (any with ``start_time`` and ``stop_time``, which are
        read), the rows that overlap the window are kept, with their own times, not clipped to it; an
        interval that has no stop time, or one that is not after its start, counts as the instant at which it
        starts, and one without a start is left out. Of an events table, the rows whose ``timestamp`` lies
        within are kept.

        All units are kept. Their ``spike_times_start`` and ``spike_times_count`` are drawn in to the spikes
        within the window, for which the units' spike times are read. So are the bounds of
        ``obs_intervals``, to those that overlap, and of every other ragged column with one value for each
        spike of each unit (amplitudes, waveforms): regions and references are never taken for such columns,
        and columns of other counts stay whole.

        Whatever has no time stays: other tables, images, and stimulus templates, whose times count from the
        beginning of the stimulus. Numbers of samples, as in references to parts of a series, still count
        from the series' own beginning.

        Parameters
        ----------
        start, stop
            Seconds from the session's zero of time, also where times are decoded, or datetimes; infinite for
            an open end. A time may be a DataArray without dimensions, as ``trials.start_time[3]`` is. Or, in
            place of both, epochs as `start`: a table with ``start_time`` and ``stop_time`` as a Dataset, a
            node of a tree, a DataFrame, pynapple's ``IntervalSet`` or by its name in this Dataset; or pairs
            of times, (epoch, 2). What lies in any of them is kept, once: they may overlap.
        name
            One table or series of this Dataset, by its name or path: only that is kept, and restricted. None
            for all.

        Returns
        -------
        xarray.Dataset
            With the same attributes.

        Raises
        ------
        OptionError
            When these are no times, `start` is not before `stop`, or a Dataset has several tables of
            intervals.
        NodeNotFoundError
            When the epochs have no ``start_time`` or ``stop_time``, or there is no object of that name.
        SelectionError
            When the timestamps of the only series here hold NaN or do not ascend where they are searched, or
            the spike times of a unit; when a table is here without the columns that say when its rows are,
            or these hold no times; when the times of a series were left out; when nothing here has a time.

        Warns
        -----
        MappingWarning
            When the file gives a series no time: it stays whole. When epochs have no start, no stop, or do
            not stop after they start: they hold nothing.

        Notes
        -----
        Within one window, no value of a ragged column moves; of several, values in the gaps are left out.

        Examples
        --------
        >>> ds.nwb.restrict(ds.trials_start_time[3], ds.trials_stop_time[3])  # doctest: +SKIP
        >>> ds.nwb.restrict("epochs", name="speed")  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.restrict import restrict

        return restrict(self._dataset, start, stop, name=name)

    def label(self, epochs: Epochs, column: str | None = None, *, name: str | None = None) -> xr.Dataset:
        """Label every sample, spike and event with the epoch that it lies in.

        Parameters
        ----------
        epochs
            As of `restrict`; they must not overlap. An epoch is half-open: ``[start_time, stop_time)``.
        column
            Of the epochs, what to label with, such as ``"stim"``; their ids unless given.
        name
            One table or series of this Dataset, by its name or path: only that is returned. None for all.

        Returns
        -------
        xarray.Dataset
            This one, with a coordinate along every time, along the spikes, and along events and intervals,
            which count as their start. It is named for the column (``stim``) or for the epochs' rows
            (``trial``); where several are needed, each begins with its dimension's name (``speed_stim``).
            Computed when it is read, from the times of what is read. Outside of all epochs it is missing:
            NaN; hence integers and booleans become float64, and text objects.

        Raises
        ------
        SelectionError
            When epochs overlap, for what lies in two has no one label; when nothing here has a time.
        NodeNotFoundError
            When the epochs have no such column, and as `restrict`.
        OptionError
            As `restrict`.

        Warns
        -----
        MappingWarning
            When epochs have no start, no stop, or do not stop after they start: they hold nothing.

        Examples
        --------
        >>> speed.nwb.label(trials, "stim").data.groupby("stim").mean()  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.epochs import label

        return label(self._dataset, epochs, column, name=name)

    @property
    def start(self) -> float:
        """When this Dataset begins, in seconds: with the first sample of its series.

        Without a series, with the first of its spikes, events and intervals; see `stop`.
        """
        from intake_nwbzarr.accessor.restrict import span

        return span(self._dataset)[0]

    @property
    def stop(self) -> float:
        """When this Dataset ends, in seconds: with its series.

        A regular series ends one sampling interval after its last sample, an irregular one at its last
        timestamp. Of a series, no more than its first and last timestamps are read. Where there is no series,
        the ends of spikes, events and intervals count, and are read: of a unit its first and last spike.

        Raises
        ------
        SelectionError
            When nothing here has a time.

        Examples
        --------
        >>> counts = units.nwb.bin(0.1, stop=speed.nwb.stop)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.restrict import span

        return span(self._dataset)[1]

    def resample_like(
        self,
        other: Times,
        method: ResampleMethod,
        *,
        tolerance: float | None = None,
    ) -> xr.Dataset:
        """Put every series here on another series' time.

        Nothing is read before the result is: a selection from it finds and reads the samples that it takes.
        What lies along no time, or along this very one, stays as it is, and so do stimulus templates.

        Parameters
        ----------
        other
            What has the time: a series of a flat Dataset (``ds["lick"]``), the Dataset of one object, a node
            of a tree; or times: pynapple's ``Ts``, ``Tsd`` or ``TsdFrame``, a DataFrame as `to_dataframe`
            gives, an array of seconds or of datetimes, which become ``time``.
        method
            ``nearest``: the nearest sample, of two the later. ``ffill``: the last sample at or before the
            time. ``linear``: on the straight line between the samples before and after it. ``mean``: the
            mean of the samples from each time on and before the next one, as recorded: one NaN makes it NaN.
            The last interval is as long as the sampling interval of a regular time, and unknown, hence NaN,
            of an irregular one.
        tolerance
            Seconds. A sample farther away from a time is not used: ``linear`` needs both near enough.

        Returns
        -------
        xarray.Dataset
            Along `other`'s time, with its index. There is no extrapolation: before the first sample and
            after the last, values are NaN, with every method; an interval of ``mean`` without samples is NaN
            too. Hence integers and booleans become float64; other floats keep their type.

        Raises
        ------
        OptionError
            When the method is none of these, or means nothing for a series of text or of booleans; when
            `other` has no time or several; when times are decoded, for samples are compared in seconds.
        SelectionError
            When no series here has a time. Also, once values are read: when timestamps hold NaN or do not
            ascend, or when several samples have the very time that is asked for, so that none is the one.

        Examples
        --------
        >>> behavior = ds[["lick", "speed"]].nwb.resample_like(ds["ophys_series"], "linear")  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.resample import resample_like

        return resample_like(self._dataset, other, method, tolerance=tolerance)
