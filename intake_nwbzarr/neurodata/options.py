"""How a session is shown: the choices a caller makes, passed to every mapper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MappingOptions:
    """Choices of `open_dataset`, beside location and group.

    Parameters
    ----------
    mask_and_scale
        True gives values in units: ``data * conversion * channel_conversion + offset``. False gives the
        stored values with attributes ``conversion``, ``offset`` and ``target_unit``.
    decode_times
        True gives UTC ``datetime64[ns]``; None and False give seconds, as stored.
    dtype
        Of scaled values: ``float64`` (None), as pynwb computes them, or ``float32``.
    names
        ``short`` qualifies only names that occur twice, ``path`` gives every variable its whole path,
        ``safe`` replaces characters that netCDF refuses.
    share_time
        Compare timestamps of equal length at open (reading them), so that equal ones share a dimension.
    drop_variables
        Names of variables, as they come out, that are left out.
    image_axes
        ``xy`` is the schema's order, (time, width, height); ``yx`` relabels files that hold rows first.
    """

    mask_and_scale: bool = True
    decode_times: bool | None = None
    dtype: Literal["float32", "float64"] | None = None
    names: Literal["short", "path", "safe"] = "short"
    share_time: bool = False
    drop_variables: frozenset[str] = frozenset()
    image_axes: Literal["xy", "yx"] = "xy"
