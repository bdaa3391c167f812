"""The calls of `ds.nwb` on tables: ragged columns, intervals, DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from intake_nwbzarr.accessor.ragged.column import RaggedColumn


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
        from intake_nwbzarr.accessor.ragged.column import ragged

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
        from intake_nwbzarr.accessor.ragged.column import spike_times

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
        from intake_nwbzarr.accessor.ragged.compact import compact

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
        from intake_nwbzarr.accessor.sessions import frame_of
        from intake_nwbzarr.accessor.tables.intervals import intervals

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
        from intake_nwbzarr.accessor.sessions import frame_of
        from intake_nwbzarr.accessor.tables.dataframe import to_dataframe

        return frame_of(self._dataset, to_dataframe(self._dataset, name))
