"""The options of `open_dataset` and `open_datatree` other than location and group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from intake_nwbzarr.arguments import check_choice

type Names = Literal["short", "path", "safe"]
type Scaled = Literal["float32", "float64"]
type ImageAxes = Literal["xy", "yx"]


@dataclass(frozen=True)
class MappingOptions:
    """Options of `open_dataset` other than location and group; an invalid one raises OptionError."""

    # True: data * conversion * channel_conversion + offset; False: stored values with attributes
    mask_and_scale: bool = True
    decode_times: bool | None = None  # True: UTC datetime64[ns]; None and False: seconds, as stored
    dtype: Scaled | None = None  # of scaled values: None for float64, as in pynwb
    # short: only names that occur twice are qualified; path: the whole path; safe: names valid in netCDF
    names: Names = "short"
    # compare timestamps of equal length on opening (reads them), so that equal ones share a dimension
    share_time: bool = False
    drop_variables: frozenset[str] = frozenset()  # final names of variables to omit
    # xy: the schema's order, (time, width, height); yx: for files that store rows first
    image_axes: ImageAxes = "xy"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("dtype", (None, *get_args(Scaled.__value__))),
            ("names", get_args(Names.__value__)),
            ("image_axes", get_args(ImageAxes.__value__)),
        ):
            check_choice(name, getattr(self, name), allowed)
