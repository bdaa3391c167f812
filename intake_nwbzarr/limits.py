"""Limits that users tune: concurrent requests, bytes in flight, decoding threads, bytes of dask blocks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Final

from intake_nwbzarr.arguments import invalid_argument

FEWEST_BYTES: Final = 10**6


def _default_threads() -> int:
    return min(8, max(2, os.cpu_count() or 2))


@dataclass(frozen=True)
class Limits:
    """The limits of a process, shared by all sessions that it reads; see `set_limits`."""

    # S3 serves hundreds of concurrent small reads best; of large ones, bytes_in_flight allows fewer.
    requests: int = 256
    bytes_in_flight: int = 512 * 2**20
    decoding_threads: int = field(default_factory=_default_threads)
    block_bytes: int = 128 * 2**20
    # 30 million ids. A few bytes of metadata can declare any shape, and memory is allocated before reading.
    bytes_at_open: int = 256 * 2**20


def set_limits(
    *,
    requests: int | None = None,
    bytes_in_flight: float | str | None = None,
    decoding_threads: int | None = None,
    block_bytes: float | str | None = None,
    bytes_at_open: float | str | None = None,
) -> Limits:
    """Set the limits of this process for all sessions, including those that are already open.

    Every process has its own limits. Their initial values come from the environment variables
    ``NWBZARR_REQUESTS``, ``NWBZARR_BYTES_IN_FLIGHT``, ``NWBZARR_DECODING_THREADS``, ``NWBZARR_BLOCK_BYTES``
    and ``NWBZARR_BYTES_AT_OPEN``.

    Parameters
    ----------
    requests
        Concurrent requests to all servers together, at least 1. Default: 256. Halved for a while when a
        server responds with status 429 or 503.
    bytes_in_flight
        Bytes of response bodies that are received concurrently over ``https`` and ``s3``, at least 1 MB: a
        number, or a string such as ``"256 MB"``. Default: 512 MiB. A larger body is received alone.
    decoding_threads
        Threads that decode chunks, at least 1. Default: the number of processors, from 2 to 8.
    block_bytes
        Bytes in memory of a dask block, at least 1 MB, where `chunks` gives no size: a number, or a string
        such as ``"64 MB"``. Default: 128 MiB. Applies to sessions opened afterwards, in the process that
        opens them; see `intake_nwbzarr.arrays.preferred_chunks`.
    bytes_at_open
        Decoded bytes that opening one session may read (ids, regions, scalars and the like), at least 1 MB.
        Default: 256 MiB. Times that ``decode_times=True`` or ``share_time=True`` read do not count.

    Returns
    -------
    Limits
        The limits in effect. Without arguments, nothing changes.

    Raises
    ------
    OptionError
        When a value, passed or from the environment, is not valid; no limit is changed.

    Examples
    --------
    >>> before = set_limits()
    >>> set_limits(requests=64, bytes_in_flight="256 MB").bytes_in_flight
    256000000
    >>> set_limits(requests=before.requests, bytes_in_flight=before.bytes_in_flight) == before
    True
    """
    global _limits
    given = {
        "requests": requests,
        "bytes_in_flight": bytes_in_flight,
        "decoding_threads": decoding_threads,
        "block_bytes": block_bytes,
        "bytes_at_open": bytes_at_open,
    }
    changed = {name: _parsed(name, value, name) for name, value in given.items() if value is not None}
    with _lock:
        _limits = replace(limits(), **changed)
        return _limits


def limits() -> Limits:
    """Return the limits in effect; the first call reads the environment."""
    global _limits
    if _limits is None:
        with _lock:
            _limits = _limits or _from_environment()
    return _limits


_limits: Limits | None = None
_lock = threading.RLock()


def _from_environment() -> Limits:
    variables = {name: f"NWBZARR_{name.upper()}" for name in _PARSERS}
    return Limits(
        **{
            name: _parsed(name, text, f"The environment variable {variable}")
            for name, variable in variables.items()
            if (text := os.environ.get(variable))
        }
    )


def _parsed(name: str, given: Any, argument: str) -> int:
    parse, expected = _PARSERS[name]
    try:
        return parse(given)
    except (ValueError, OverflowError):
        raise invalid_argument(argument, given, expected) from None


def _count(given: Any) -> int:
    number = int(given) if isinstance(given, str) else given
    if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
        raise ValueError
    return int(number)


def _bytes(given: Any) -> int:
    from dask.utils import parse_bytes

    number = parse_bytes(given) if isinstance(given, str) else given
    if not isinstance(number, Real) or not float(number) >= FEWEST_BYTES:
        raise ValueError
    return int(float(number))


_COUNT: Final = _count, "a whole number of at least 1"
_BYTES: Final = _bytes, "at least 1 MB, as a number of bytes or a string such as '256 MB'"
_PARSERS: Final[Mapping[str, tuple[Callable[[Any], int], str]]] = {
    "requests": _COUNT,
    "bytes_in_flight": _BYTES,
    "decoding_threads": _COUNT,
    "block_bytes": _BYTES,
    "bytes_at_open": _BYTES,
}
