"""`ds.nwb.plot`: methods for quick-look plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from intake_nwbzarr.accessor.sessions import with_location

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from intake_nwbzarr.accessor.events import Events
    from intake_nwbzarr.accessor.times import Time


class Plots:
    """Quick-look plots of a Dataset; only what is drawn is read.

    Each method draws into ``ax``, or into the axes of a new pyplot figure, and returns the axes.

    Parameters
    ----------
    dataset
        A flat Dataset, or that of a container or of one object.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    @with_location
    def raster(
        self,
        units: int | Sequence[int] | None = None,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        events: Events | str | None = None,
        window: tuple[float, float] | None = None,
        on: str | None = None,
        name: str | None = None,
        color: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw spikes: a line for each unit, or, around events, a line for each event of one unit.

        Parameters
        ----------
        units
            The ids of units; by default all.
        start, stop
            The first and last time drawn, in seconds or as datetimes; by default all spikes.
        events
            Draw the spikes of one unit around these events: as for `NWBAccessor.align`, or the name of a
            table or of a column of times in this Dataset. Events without a time are skipped with a warning.
        window
            Seconds around each event, half-open: ``(-0.5, 1.0)`` is ``-0.5 <= lag < 1.0``.
        on
            The column of times, for a table of events.
        name
            The table of units, if there are several.
        color
            A matplotlib color for the lines.
        ax
            The axes to draw into; by default new ones.

        Returns
        -------
        matplotlib.axes.Axes
            Lines at ``0, 1, ...`` from the top, one per unit or event, labelled by id.

        Raises
        ------
        NodeNotFoundError
            When there are no units with spike times, or `events` names nothing.
        SelectionError
            When there is no such unit, one was selected as a scalar, or spikes were selected along their own
            dimension.
        OptionError
            When only one of `events` and `window` is passed, or both for several units; when the window or a
            time is invalid, or `start` is after `stop`; when `units` are not ids.

        Examples
        --------
        >>> ds.nwb.plot.raster()  # doctest: +SKIP
        >>> ds.nwb.plot.raster(191, events=ds.trials_start_time, window=(-1, 2))  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.plot.raster import draw_raster, draw_raster_around

        if events is None and window is None:
            return draw_raster(self._dataset, units, start, stop, name, color, ax)
        return draw_raster_around(self._dataset, units, events, window, on, name, color, ax)

    @with_location
    def traces(
        self,
        name: str | None = None,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        channels: object = None,
        spacing: float | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw a series over time, with its channels stacked.

        Where there are more samples than pixels, the minimum and maximum of each pixel are drawn, at their
        own times. They are read blockwise, so that memory use does not grow with the size of the series.

        Parameters
        ----------
        name
            The series; may be omitted if there is only one.
        start, stop
            The first and last time drawn, in seconds or as datetimes. By default from the start of the
            series, at most 4 million values.
        channels
            The label of a channel, or a list or an array of labels, as in the Dataset. By default all, or 32
            evenly spaced ones if there are more.
        spacing
            The distance of two channels, in the units of the data; by default from the spread of the traces.
        ax
            The axes to draw into; by default new ones.

        Returns
        -------
        matplotlib.axes.Axes
            With one line per channel. Stacked channels are centred on their medians, the first at the top,
            with a scale bar; a single channel is drawn with its values on the axis.

        Raises
        ------
        NodeNotFoundError
            When there is no such series with a time and at most one other dimension.
        SelectionError
            When there are no samples between `start` and `stop`, no such channel, or no channels at all.
        OptionError
            When `spacing` is not positive; when `name` is missing and there are several series; when a time
            is invalid, or `start` is after `stop`; when `channels` are not labels.

        Examples
        --------
        >>> ds.nwb.plot.traces("ElectricalSeriesAP", start=10, stop=10.5)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.plot.traces import draw_traces

        return draw_traces(self._dataset, name, start, stop, channels, spacing, ax)

    @with_location
    def image(
        self,
        name: str | None = None,
        *,
        time: Time | None = None,
        plane: int = 0,
        roi: int | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw an image, a frame of a movie, or the masks of ROIs, with x to the right and y downwards.

        NWB stores images as (x, y); as on a screen, rows are drawn as y.

        Parameters
        ----------
        name
            The variable (an image, a movie or an image mask), or the table whose masks are drawn; may be
            omitted if there is only one.
        time
            Draw the frame nearest to this time, in seconds or as a datetime; by default the first frame.
        plane
            The position along z of a volume.
        roi
            The id of one ROI; by default the maximum of all ROIs' masks at each pixel.
        ax
            The axes to draw into; by default new ones.

        Returns
        -------
        matplotlib.axes.Axes
            With one image of equal aspect, in the units of the coordinates of x and y if these are evenly
            spaced, otherwise in pixels. The title of a movie includes the time of the frame.

        Raises
        ------
        NodeNotFoundError
            When there is no such image.
        SelectionError
            When there is no such ROI or plane, or the movie has no frames.
        OptionError
            When `name` is missing and there are several images; when `time`, `plane` or `roi` is invalid.

        Examples
        --------
        >>> ds.nwb.plot.image("TwoPhotonSeries", time=12.5)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.plot.images import draw_image

        return draw_image(self._dataset, name, time, plane, roi, ax)
