"""Runs of neighbouring positions, put one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.accessor.ragged_bounds import run_positions


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of positions, apart from each other; made by `of`.

    Parameters
    ----------
    starts
        Where each begins, ascending, (run,).
    lengths
        How many positions it has, (run,).
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Self:
        """Unite intervals in any order; those that overlap or touch become one run, empty ones none.

        Examples
        --------
        >>> Runs.of(np.array([5, 0, 9, 3]), np.array([7, 4, 9, 5]))
        Runs(starts=array([0]), lengths=array([7]))
        """
        starts, stops = starts[starts < stops], stops[starts < stops]
        if not len(starts):
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        order = np.argsort(starts, kind="stable")
        starts, reach = starts[order], np.maximum.accumulate(stops[order])
        first = np.flatnonzero(np.concatenate([[True], starts[1:] > reach[:-1]]))
        last = np.concatenate([first[1:] - 1, [len(reach) - 1]])
        return cls(starts[first], reach[last] - starts[first])

    @property
    def size(self) -> int:
        """How many positions there are."""
        return int(self.lengths.sum())

    def positions(self) -> slice | NDArray[np.int64]:
        """All of them, ascending."""
        return run_positions(self.starts, self.lengths)

    def places(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where positions are among all of them; any number for one that is in no run."""
        run = np.searchsorted(self.starts, positions, side="right") - 1
        offsets = np.cumsum(self.lengths) - self.lengths
        return positions + (offsets - self.starts)[run]

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions at places among all of them: what `places` undoes.

        Examples
        --------
        >>> Runs.of(np.array([5, 0]), np.array([7, 2])).at(np.arange(4))
        array([0, 1, 5, 6])
        """
        offsets = np.cumsum(self.lengths) - self.lengths
        run = np.searchsorted(offsets, places, side="right") - 1
        return places + (self.starts - offsets)[run]

    def count_before(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of them lie before each position.

        Examples
        --------
        >>> Runs.of(np.array([5, 0]), np.array([7, 2])).count_before(np.array([0, 1, 3, 6, 9]))
        array([0, 1, 2, 3, 4])
        """
        if not self.size:
            return np.zeros_like(positions)
        run = np.maximum(np.searchsorted(self.starts, positions, side="right") - 1, 0)
        offsets = np.cumsum(self.lengths) - self.lengths
        inside = np.clip(positions - self.starts[run], 0, self.lengths[run])
        return np.asarray(offsets[run] + inside)
