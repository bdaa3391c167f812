"""The options of `open_dataset` and `open_datatree` beside location and group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from intake_nwbzarr.arguments import check_choice

type Names = Literal["short", "path", "safe"]
type Scaled = Literal["float32", "float64"]
type ImageAxes = Literal["xy", "yx"]


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

    Raises
    ------
    OptionError
        When a choice is none of these.
    """

    mask_and_scale: bool = True
    decode_times: bool | None = None
    dtype: Scaled | None = None
    names: Names = "short"
    share_time: bool = False
    drop_variables: frozenset[str] = frozenset()
    image_axes: ImageAxes = "xy"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("dtype", (None, *get_args(Scaled.__value__))),
            ("names", get_args(Names.__value__)),
            ("image_axes", get_args(ImageAxes.__value__)),
        ):
            check_choice(name, getattr(self, name), allowed)
