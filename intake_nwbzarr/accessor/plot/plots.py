"""The plot accessor `ds.nwb.plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from intake_nwbzarr.accessor.events import Events
    from intake_nwbzarr.accessor.times import Time


class Plots:
    """Pictures of what a Dataset holds; reads only what is drawn.

    Each method draws into ``ax``, or into the current axes of a new pyplot figure, and returns the axes.

    Parameters
    ----------
    dataset
        Flat, of a container, or of one object.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

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
            Their ids; None for all.
        start, stop
            Between which spikes are drawn, in seconds or as datetimes; None: from the first to the last.
        events
            What one unit's spikes are drawn around: as of `NWBAccessor.align`, also the name of a table or
            of a column of times in this Dataset. Events without a time are left out, with a warning.
        window
            Seconds around each event, half-open: ``(-0.5, 1.0)`` is ``-0.5 <= lag < 1.0``.
        on
            The column with the times, of a table of events.
        name
            The table of units, where there are several.
        color
            Of the lines, as matplotlib has it.
        ax
            Where to draw; None: new axes.

        Returns
        -------
        matplotlib.axes.Axes
            The first unit or event at the top; lines are at ``0, 1, ...``, labelled by their ids.

        Raises
        ------
        NodeNotFoundError
            When there are no units with spike times, or no such events.
        SelectionError
            When there is no such unit, one was selected as a scalar, or spikes were selected along their own
            dimension.
        OptionError
            When `events` and `window` are not given together, or for several units; when the window is none,
            or `start` or `stop` is no time, or after the other; when `units` are no ids.

        Examples
        --------
        >>> ds.nwb.plot.raster()  # doctest: +SKIP
        >>> ds.nwb.plot.raster(191, events=ds.trials_start_time, window=(-1, 2))  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.plot.raster import draw_raster, draw_raster_around

        if events is None and window is None:
            return draw_raster(self._dataset, units, start, stop, name, color, ax)
        return draw_raster_around(self._dataset, units, events, window, on, name, color, ax)

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
        """Draw a series over time, its channels stacked.

        Where there are more samples than pixels, each pixel's smallest and largest are drawn, at their own
        times. They are read piece by piece, so that memory does not grow with what is drawn.

        Parameters
        ----------
        name
            The series; None for the only one.
        start, stop
            Between which it is drawn, in seconds or as datetimes. By default from its start, for at most 4
            million values.
        channels
            The label of a channel, or a list or an array of labels, as in the Dataset; None: all, or 32
            evenly spaced of more than that.
        spacing
            Between two channels, in the units of the data; None: what the drawn traces need.
        ax
            Where to draw; None: new axes.

        Returns
        -------
        matplotlib.axes.Axes
            One line for each channel, all of it within the axes. Stacked channels are drawn around their own
            medians, the first at the top, with a scale bar; a single one keeps its values on the axis.

        Raises
        ------
        NodeNotFoundError
            When there is no such series with a time and at most one axis beside it.
        SelectionError
            When nothing lies between `start` and `stop`, or there is no such channel, or none at all.
        OptionError
            When `spacing` is not positive, or no `name` is given among several series; when `start` or
            `stop` is no time, or after the other; when `channels` are no labels.

        Examples
        --------
        >>> ds.nwb.plot.traces("ElectricalSeriesAP", start=10, stop=10.5)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.plot.traces import draw_traces

        return draw_traces(self._dataset, name, start, stop, channels, spacing, ax)

    def image(
        self,
        name: str | None = None,
        *,
        time: Time | None = None,
        plane: int = 0,
        roi: int | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw an image, a frame of a movie, or the masks of ROIs; x to the right, y downwards.

        NWB stores images (x, y); here, as on a screen, rows are y.

        Parameters
        ----------
        name
            The variable: an image, a movie, an image mask; or the table whose masks are drawn. None for the
            only one.
        time
            Of the frame, in seconds or as a datetime: the nearest is drawn. None: the first.
        plane
            Position along z, of a volume.
        roi
            The id of one ROI; None: the largest value of all ROIs' masks at each pixel.
        ax
            Where to draw; None: new axes.

        Returns
        -------
        matplotlib.axes.Axes
            With one image on it, of equal aspect, in the units of the coordinates of x and y where these are
            evenly spaced, otherwise in pixels. A movie's title is the frame's time.

        Raises
        ------
        NodeNotFoundError
            When there is no such image.
        SelectionError
            When there is no such ROI or plane, or a movie has no frames.
        OptionError
            When no `name` is given among several images; when `time` is no time, `plane` no position or
            `roi` no id.

        Examples
        --------
        >>> ds.nwb.plot.image("TwoPhotonSeries", time=12.5)  # doctest: +SKIP
        """
        from intake_nwbzarr.accessor.plot.images import draw_image

        return draw_image(self._dataset, name, time, plane, roi, ax)
