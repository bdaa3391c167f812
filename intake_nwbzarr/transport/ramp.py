"""Ramps: how many connections to one server are made at once, so that one with a small backlog loses none.

A server that is slow to accept connections drops what its backlog has no room for, and TCP repeats a lost
handshake after a second only. So the connections that are being made begin with a few and double as they
succeed. Where one is lost, they are halved, and each counts until it has been used once: until then nothing
says that the server has accepted it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import Final

FIRST: Final = 8
"""Connections that are made at once before any has succeeded."""

FEWEST: Final = 2
"""What losses leave of that."""

PATIENCE: Final = 0.2
"""Seconds at least after which a handshake is taken to be lost, and begun anew."""

REPEATED_BY_TCP: Final = 0.9
"""Seconds after which that is left to TCP."""

REFUSALS: Final = 3
"""How often a connection is refused by a server that has accepted others before that is an error."""

RECOVERED: Final = 30.0
"""Seconds without a loss after which a server is trusted again."""


class Ramp:
    """Of one server; used on the package's event loop only."""

    def __init__(self) -> None:
        self.has_connected = False
        self._window = float(FIRST)
        self._threshold = inf  # up to where the window doubles
        self._reduced = -inf
        self._round_trip = inf
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def enter(self) -> bool:
        """Whether one more connection may be made now; whoever is let in calls `leave`."""
        if self._held >= int(self._window):
            return False
        self._held += 1
        return True

    async def turn(self) -> None:
        """Wait until it is worth asking again: for a connection that is free, or to make one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.wake()
            raise

    def leave(self) -> None:
        """Count a connection no more."""
        self._held -= 1
        self.wake()

    def wake(self) -> None:
        """Have the next one ask again."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    def connected(self, since: float) -> None:
        """Note a handshake that succeeded."""
        now = asyncio.get_running_loop().time()
        self.has_connected = True
        self._round_trip = now - since
        if self.is_careful and now - self._reduced > RECOVERED:
            self._threshold = inf
        if not self.is_careful:
            self._grow()

    def used(self) -> None:
        """Note that a connection was answered on."""
        if self.is_careful:
            self._grow()

    def lost(self, since: float) -> None:
        """Note a handshake that was lost, or refused; many that began together are one loss."""
        if since > self._reduced:
            self._reduced = asyncio.get_running_loop().time()
            self._window = self._threshold = max(min(self._window, self._held) / 2, FEWEST)

    @property
    def is_careful(self) -> bool:
        """Whether a connection counts until it has been used once."""
        return self._threshold < inf

    def patience(self, losses: int) -> float | None:
        """Seconds to wait for a handshake after so many that were lost; None for as long as TCP does."""
        seconds: float = max(PATIENCE, 8 * self._round_trip) * 2**losses
        return seconds if seconds < REPEATED_BY_TCP else None

    def _grow(self) -> None:
        self._window += 1 if self._window < self._threshold else 0.25 / self._window
        self.wake()
