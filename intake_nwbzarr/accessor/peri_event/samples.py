"""Which samples of a series stand for each event and lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]
type Positions = NDArray[np.int64]

type AlignMethod = Literal["nearest", "ffill", "linear"]
"""The nearest sample, the one before, or a value between the two on either side."""

METHODS: Final = ("nearest", "ffill", "linear")

AT_ONCE: Final = 2**20
"""Events times lags that are located at once."""


class Taken(NamedTuple):
    """The samples taken, each (event, lag): positions along the series, -1 where there is none."""

    first: Positions
    second: Positions | None = None
    """What interpolation ends at."""
    weight: Floats | None = None
    """How much of the second is taken, from 0 to 1."""


class Samples(Protocol):
    """What says which samples are taken."""

    @property
    def shape(self) -> tuple[int, int]:
        """Events and lags."""

    @property
    def interpolates(self) -> bool:
        """Whether values are taken from between samples."""

    def at(self, events: NDArray[Any], lags: NDArray[Any]) -> Taken:
        """The samples of some events and lags, by position."""

    def take(self, events: NDArray[Any]) -> Samples:
        """Those of some events."""

    def located(self) -> Samples:
        """The same, for a task of its own: small, and without timestamps to read."""


def incomplete(samples: Samples) -> NDArray[np.bool_]:
    """Whether an event has lags without a sample, (event,)."""
    lags = np.arange(samples.shape[1])
    parts = [np.any(samples.at(events, lags).first < 0, axis=1) for events in batches(samples)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def batches(samples: Samples) -> Iterator[NDArray[np.int64]]:
    """Events, by position, a few at a time."""
    events, lags = samples.shape
    many = max(1, AT_ONCE // lags)
    for begin in range(0, events, many):
        yield np.arange(begin, min(begin + many, events))
