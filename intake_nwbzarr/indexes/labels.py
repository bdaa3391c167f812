"""What a user gives to ``sel``, checked and turned into positions; what is not there is an error."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from intake_nwbzarr.errors import SelectionError
from intake_nwbzarr.indexes.interface import Floats, Positions
from intake_nwbzarr.indexes.timestamps import TimestampView


def positions_of_label(
    view: TimestampView, label: Any, name: Hashable, method: str | None, tolerance: ArrayLike | None
) -> Any:
    """Find positions, in the form that xarray expects of an index for this form of label.

    Parameters
    ----------
    view
        The timestamps, in seconds.
    label
        A number, a slice, an array of any shape, a `xarray.Variable` or `xarray.DataArray`, or booleans.
    name
        Of the coordinate, for errors.
    method, tolerance
        See `TimestampView.locate`.

    Raises
    ------
    SelectionError
        For a label that is no time, that is not there, or whose time several samples share.
    """
    if isinstance(label, slice):
        if method is not None or tolerance is not None:
            raise SelectionError(
                f"A slice of '{name}' includes both ends and takes neither method nor tolerance; found "
                f"method={method!r}, tolerance={tolerance!r}."
            )
        return _positions_of_slice(view, label, name)
    raw = label.values if isinstance(label, xr.Variable | xr.DataArray) else np.asarray(label)
    if raw.dtype.kind == "b" and raw.ndim == 1:
        return label  # a mask, as for every index of xarray
    positions = _positions(view, as_labels(raw), name, method, tolerance)
    if isinstance(positions, slice) or np.ndim(positions) != raw.ndim:
        return positions  # one label that several samples share
    if isinstance(label, xr.Variable):
        return xr.Variable(label.dims, positions)
    if isinstance(label, xr.DataArray):
        return xr.DataArray(positions, coords=label.coords, dims=label.dims)
    return positions


def as_labels(label: Any) -> Floats:
    """Read labels as float64 seconds, or refuse what is not a number."""
    values = np.asarray(label)
    # An empty list is float64 to numpy; everything that is not a number would be guessed at by a cast.
    if values.dtype.kind not in "iuf":
        raise SelectionError(
            f"{label!r} is not a time: labels along this coordinate are numbers of seconds, found "
            f"{values.dtype}."
        )
    return values.astype(np.float64)


def _positions_of_slice(view: TimestampView, label: slice, name: Hashable) -> slice:
    ends = [None if end is None else as_labels(end) for end in (label.start, label.stop)]
    if any(end is not None and (end.ndim or np.isnan(end)) for end in ends):
        raise SelectionError(
            f"{label!r} is not a slice of '{name}': its ends must be single numbers of seconds."
        )
    step = label.step
    if step is not None and (not isinstance(step, int | np.integer) or step == 0):
        raise SelectionError(
            f"A slice of '{name}' takes every step-th sample: its step must be a whole number other than "
            f"zero, found {step!r}."
        )
    start, stop = (None if end is None else float(end) for end in ends)
    return view.locate_slice(start, stop, None if step is None else int(step))


def _positions(
    view: TimestampView, labels: Floats, name: Hashable, method: str | None, tolerance: ArrayLike | None
) -> int | slice | Positions:
    if labels.ndim == 0 and method is None and tolerance is None:
        position = view.locate_one(float(labels))
        if position is None:
            raise _not_found(view, labels.reshape(1), name, method, tolerance)
        return position
    flat = labels.ravel()
    found = view.locate(flat, method, tolerance)
    if np.any(found < 0):
        raise _not_found(view, flat[found < 0], name, method, tolerance)
    return int(found[0]) if labels.ndim == 0 else found.reshape(labels.shape)


def _not_found(
    view: TimestampView, labels: Floats, name: Hashable, method: str | None, tolerance: ArrayLike | None
) -> SelectionError:
    shown = ", ".join(repr(float(label)) for label in labels[:3]) + (", ..." if len(labels) > 3 else "")
    if not len(view):
        return SelectionError(f"There is no {shown} s along '{name}': it holds no samples.")
    if method is None:
        return SelectionError(
            f"No sample along '{name}' is at exactly {shown} s; add method='nearest', or select a slice."
        )
    limit = "" if tolerance is None else f" within {tolerance} s"
    return SelectionError(f"method={method!r} finds no sample along '{name}' for {shown} s{limit}.")
