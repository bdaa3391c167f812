"""The times of a Dataset's series: which coordinates they are, and where they lie along them."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr
from xarray.indexes import Index, PandasIndex

from intake_nwbzarr.accessor.contents.shown import ShownObject, is_time
from intake_nwbzarr.indexes.lazy import LazyTimeIndex
from intake_nwbzarr.neurodata.series_time import TEMPLATES


@dataclass(frozen=True)
class SessionTime:
    """A time coordinate that counts from the session's zero of time.

    Parameters
    ----------
    name
        Of the coordinate.
    dim
        Its dimension, which for events has another name.
    index
        Lazy as opened; of pandas after single samples were selected, or where times are datetimes.
    """

    name: str
    dim: str
    index: LazyTimeIndex | PandasIndex


def session_times(data: xr.Dataset | xr.DataArray) -> list[SessionTime]:
    """Find the times of series among the indexed coordinates, reading nothing.

    The times of stimulus templates are not among them: by the schema these count from the beginning of the
    stimulus.

    Parameters
    ----------
    data
        As opened, or selected from that.
    """
    return [time for time in indexed_times(data) if not is_template(_path(data, time.name))]


def indexed_times(data: xr.Dataset | xr.DataArray) -> list[SessionTime]:
    """Find the times of series, those of stimulus templates included.

    Parameters
    ----------
    data
        As opened, or selected from that.
    """
    found = []
    for name, index in data.xindexes.items():
        if isinstance(index, LazyTimeIndex):
            found.append(SessionTime(str(name), index.dim, index))
        elif isinstance(index, PandasIndex) and _is_time(str(name), data.coords.variables[name]):
            found.append(SessionTime(str(name), str(index.dim), index))
    return found


def event_time(dataset: xr.Dataset, events: ShownObject) -> SessionTime | None:
    """The time that an object itself has; None where another's, or none, is along its dimensions."""
    return next((time for time in indexed_times(dataset) if time.name in events.variables), None)


def _is_time(name: str, variable: xr.Variable) -> bool:
    if "nwb_path" in variable.attrs:
        return is_time(variable.attrs)
    # Times that were computed from a coordinate's bare values say nothing any more, but for their name.
    return (name == "time" or name.endswith("_time")) and variable.dtype.kind in "fM"


def _path(data: xr.Dataset | xr.DataArray, name: str) -> str:
    return str(data.coords.variables[name].attrs.get("nwb_path", ""))


def is_template(path: str) -> bool:
    """Whether an object is a stimulus template, whose time is not the session's."""
    return path.startswith(TEMPLATES)


def is_decoded(index: Index) -> bool:
    """Whether an index holds datetimes, as `decode_times=True` gives, rather than seconds."""
    return isinstance(index, PandasIndex) and index.index.dtype.kind == "M"


def is_irregular(data: xr.Dataset | xr.DataArray, time: SessionTime) -> bool:
    """Whether a time is of samples that have timestamps each, as events have, and no rate."""
    stored = _path(data, time.name)
    regular = isinstance(time.index, LazyTimeIndex) and time.index.rate is not None
    return not regular and not stored.endswith("/starting_time")
