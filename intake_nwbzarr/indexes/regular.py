"""The time of a regularly sampled series: a starting time and a rate instead of an array."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast, override

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.indexes import CoordinateTransform, CoordinateTransformIndex

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.indexes.lazy import LazyTimeIndex
from intake_nwbzarr.indexes.timestamps import Floats, Positions, Timestamps, TimestampView


class RegularTimeIndex(LazyTimeIndex, CoordinateTransformIndex):
    """Time from a starting time and a rate: every timestamp equals ``starting_time + k / rate`` bit for bit.

    Labels are compared with these very numbers, never divided by the rate and rounded, so that every
    timestamp the coordinate shows can be selected again, whatever the rate. Made by `from_rate`.
    """

    def __init__(
        self, view: TimestampView, dim: str, name: Hashable, attributes: Mapping[str, Any] | None = None
    ) -> None:
        LazyTimeIndex.__init__(self, view, dim, name, attributes)
        CoordinateTransformIndex.__init__(self, _ViewTransform(view, dim, name))

    @classmethod
    def from_rate(
        cls,
        starting_time: float,
        rate: float,
        size: int,
        dim: str = "time",
        name: Hashable | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> Self:
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
        >>> index = RegularTimeIndex.from_rate(0.0, 30000.0, 108_000_000)
        >>> dataset = xr.Dataset(coords=index.coordinates())
        >>> dataset.sel(time=slice(10, 20)).sizes["time"]
        300001
        """
        timestamps = RegularTimestamps(float(starting_time), float(rate))
        if size < 0:
            raise MetadataError(f"A series along '{dim}' cannot have {size} samples.")
        return cls(TimestampView(timestamps, range(size)), dim, dim if name is None else name, attrs)

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """Refuse to guess a rate from timestamps."""
        raise MetadataError(
            f"RegularTimeIndex is not made from the timestamps of {list(variables)}: use "
            "RegularTimeIndex.from_rate(starting_time, rate, size).coordinates()."
        )

    @property
    def starting_time(self) -> float:
        """The time in seconds that sample numbers count from."""
        return self._timestamps.starting_time

    @property
    def rate(self) -> float:
        """Samples per second of the recording, whatever stride of it this index holds."""
        return self._timestamps.rate

    @property
    def samples(self) -> range:
        """The sample numbers of the recording that this index holds."""
        return self.view.samples

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Hashable, xr.Variable]:
        """Give the time coordinate; its values are computed when asked for."""
        (created,) = CoordinateTransformIndex.create_variables(self, variables).values()
        known = None if variables is None else variables.get(self.name)
        created.attrs = self.attributes if known is None else dict(known.attrs)
        created.encoding = {} if known is None else dict(known.encoding)
        return {self.name: created}

    @property
    def _timestamps(self) -> "RegularTimestamps":
        return cast("RegularTimestamps", self.view.timestamps)

    def __repr__(self) -> str:
        stride = "" if self.samples.step == 1 else f", stride={self.samples.step}"
        first = f", first={self.samples.start}" if self.samples.start else ""
        return (
            f"RegularTimeIndex(starting_time={self.starting_time!r}, rate={self.rate!r}{first}{stride}, "
            f"size={self.size}, dim={self.dim!r})"
        )

    def _repr_inline_(self, max_width: int) -> str:
        return f"RegularTimeIndex ({self.rate:g} Hz)"[:max_width]


@dataclass(frozen=True)
class RegularTimestamps(Timestamps):
    """The times of samples taken at a rate, without end: sample k is at ``starting_time + k / rate`` seconds.

    Division and addition round monotonically, so these numbers never decrease, though neighbours can be equal
    where the starting time is too large to tell them apart.
    """

    starting_time: float
    rate: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.rate) and self.rate > 0 and np.isfinite(self.starting_time)):
            raise MetadataError(
                f"Regular time needs a finite starting time and a positive finite rate, found starting_time="
                f"{self.starting_time!r} s and rate={self.rate!r} Hz."
            )

    @override
    def at(self, positions: Positions) -> Floats:
        times: Floats = self.starting_time + positions / self.rate
        return times

    @override
    def read(self, positions: range) -> Floats:
        return self.at(np.arange(positions.start, positions.stop, positions.step, dtype=np.int64))

    @override
    def insertion_points(self, labels: Floats, after: NDArray[np.bool_], within: range) -> Positions:
        # Bisection, all labels at once. It starts around the sample that division gives, where the timestamps
        # there confirm that the rounded quotient is near enough, and from the whole range elsewhere.
        first, end = within.start, within[-1] + 1
        with np.errstate(all="ignore"):
            guess = np.nan_to_num(np.clip((labels - self.starting_time) * self.rate, first, end), nan=first)
        low = np.clip(guess.astype(np.int64) - 2, first, end)
        high = np.clip(low + 4, first, end)
        low = np.where(self.at(low) < labels, low, first)
        high = np.where(self.at(high) > labels, high, end)
        while np.any(low < high):
            middle = (low + high) // 2
            times = self.at(middle)
            precedes = (low < high) & ((times < labels) | (after & (times == labels)))
            low = np.where(precedes, middle + 1, low)
            high = np.where(precedes, high, middle)
        return low


class _ViewTransform(CoordinateTransform):
    """A view of regular timestamps in the form that xarray makes lazy coordinates of."""

    def __init__(self, view: TimestampView, dim: str, name: Hashable) -> None:
        super().__init__((name,), {dim: len(view)}, dtype=np.dtype(np.float64))
        self.view = view

    def forward(self, dim_positions: dict[str, Any]) -> dict[Hashable, Any]:
        (positions,) = dim_positions.values()
        return {self.coord_names[0]: self.view.at(positions)}
