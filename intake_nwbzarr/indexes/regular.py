"""The time of a regularly sampled series: a starting time and a rate instead of an array."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, override

import xarray as xr

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.indexes.kinds import TimeIndexKind
from intake_nwbzarr.indexes.lazy import LazyTimeIndex
from intake_nwbzarr.indexes.regular_timestamps import RegularTimestamps
from intake_nwbzarr.indexes.timestamps import TimestampView


class RegularTimeIndex(LazyTimeIndex, metaclass=TimeIndexKind):
    """Time from a starting time and a rate: every timestamp equals ``starting_time + k / rate`` bit for bit.

    Labels are compared with these very numbers, never divided by the rate and rounded, so that every
    timestamp the coordinate shows can be selected again, whatever the rate. Made by `from_rate`, as a
    `LazyTimeIndex`.
    """

    regular: ClassVar[bool] = True

    if TYPE_CHECKING:  # what `isinstance` tells of a `LazyTimeIndex`

        @property
        @override
        def starting_time(self) -> float: ...

        @property
        @override
        def rate(self) -> float: ...

    @classmethod
    def from_rate(
        cls,
        starting_time: float,
        rate: float,
        size: int,
        dim: str = "time",
        name: Hashable | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> LazyTimeIndex:
        """Index the time of a regularly sampled series.

        Parameters
        ----------
        starting_time
            The time of the first sample in seconds.
        rate
            Samples per second.
        size
            The number of samples.
        dim
            The dimension that is indexed.
        name
            The name of the coordinate; that of the dimension unless given.
        attrs
            Attributes of the coordinate.

        Raises
        ------
        MetadataError
            When the rate is not a positive finite number, the starting time not finite, or the size negative.

        Examples
        --------
        >>> import xarray as xr
        >>> index = RegularTimeIndex.from_rate(0.0, 30000.0, 108_000_000)
        >>> dataset = xr.Dataset(coords=index.coordinates())
        >>> dataset.sel(time=slice(10, 20)).sizes["time"]
        300001
        """
        timestamps = RegularTimestamps(float(starting_time), float(rate))
        if size < 0:
            raise MetadataError(f"A series along '{dim}' cannot have {size} samples.")
        return LazyTimeIndex(
            TimestampView(timestamps, range(size)), dim, dim if name is None else name, attrs
        )

    @classmethod
    @override
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> NoReturn:
        """Refuse to guess a rate from timestamps."""
        raise MetadataError(
            f"RegularTimeIndex is not made from the timestamps of {list(variables)}: use "
            "RegularTimeIndex.from_rate(starting_time, rate, size).coordinates()."
        )
