"""What timestamps can be asked, whether they are computed, stored, or in memory."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


class Timestamps(ABC):
    """Times in seconds, found by their position: ascending, unless they say so; some may be equal."""

    computed: ClassVar[bool] = False
    """Whether the times follow from their positions, so that nothing is kept and nothing read."""

    @property
    def ascending(self) -> bool:
        """Whether labels can be found by bisection; assumed, and checked when read, where they are stored."""
        return True

    @abstractmethod
    def at(self, positions: Positions) -> Floats:
        """Give the times at some positions, in their order."""

    @abstractmethod
    def read(self, positions: range) -> Floats:
        """Give the times at evenly spaced positions, in either direction."""

    @abstractmethod
    def insertion_points(self, labels: Floats, after: NDArray[np.bool_], within: range) -> Positions:
        """Count the times that precede each label, and those equal to it where `after` is true.

        Only times at positions between the first and the last of `within`, which ascends, need to be counted
        right: where a label lies outside of them, any position on the same side will do.
        """
