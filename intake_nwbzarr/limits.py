"""The limits of this process: requests and bytes in flight, threads that decode, bytes of dask's blocks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Final, NamedTuple

from intake_nwbzarr.errors import OptionError

FEWEST_BYTES: Final = 10**6


def _threads_of_this_machine() -> int:
    return min(8, max(2, os.cpu_count() or 2))


@dataclass(frozen=True)
class Limits:
    """What a process may do at once, over all sessions that it reads.

    Parameters
    ----------
    requests
        Requests in flight, to all servers together. They are halved for a while when one says 503 or 429.
    bytes_in_flight
        Bytes of answers that are being received, from ``https`` and ``s3``; a larger answer goes alone.
    decoding_threads
        Threads that decode chunks.
    block_bytes
        Bytes in memory of a block of a dask array, unless other chunks are asked for.
    bytes_at_open
        Bytes that opening one session may read: ids, regions, scalars and the like, decoded.
    """

    # Hundreds of small reads, as S3 serves them best; of large ones, their bytes let fewer at once.
    requests: int = 256
    bytes_in_flight: int = 512 * 2**20
    decoding_threads: int = field(default_factory=_threads_of_this_machine)
    block_bytes: int = 128 * 2**20
    # 30 million ids. A shape is written in a few bytes, and memory for it is taken before anything is read.
    bytes_at_open: int = 256 * 2**20


def set_limits(
    *,
    requests: int | None = None,
    bytes_in_flight: float | str | None = None,
    decoding_threads: int | None = None,
    block_bytes: float | str | None = None,
    bytes_at_open: float | str | None = None,
) -> Limits:
    """Set how much this process does at once: for all sessions, also those that are open, from now on.

    Other processes have their own limits. They begin with those that their environment names, in
    ``NWBZARR_REQUESTS``, ``NWBZARR_BYTES_IN_FLIGHT``, ``NWBZARR_DECODING_THREADS``, ``NWBZARR_BLOCK_BYTES``
    and ``NWBZARR_BYTES_AT_OPEN``.

    Parameters
    ----------
    requests
        Requests that may be in flight, at least 1; 256 unless set.
    bytes_in_flight
        Bytes of answers that may be on their way, at least 1 MB: a number or a text such as ``"256 MB"``;
        512 MiB unless set.
    decoding_threads
        Threads that decode, at least 1; the machine's processors, from 2 to 8, unless set.
    block_bytes
        Bytes in memory of a dask block, at least 1 MB, where `chunks` does not say more: a number or a text
        such as ``"64 MB"``; 128 MiB unless set. Of sessions that are opened from now on, by the process that
        opens them; see `intake_nwbzarr.arrays.preferred_chunks`.
    bytes_at_open
        Bytes that opening one session may read, of ids, regions, scalars and the like, at least 1 MB; 256 MiB
        unless set. Times that ``decode_times=True`` or ``share_time=True`` read are not among them.

    Returns
    -------
    Limits
        What holds now. Without arguments nothing is changed.

    Raises
    ------
    OptionError
        When a value, here or in the environment, is none of these. Nothing is changed then.

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
    changed = {name: _understood(name, value, name) for name, value in given.items() if value is not None}
    with _lock:
        _limits = replace(limits(), **changed)
        return _limits


def limits() -> Limits:
    """The limits that hold now; the environment is read when they are first asked for.

    Raises
    ------
    OptionError
        When the environment holds a value that means nothing.
    """
    global _limits
    if _limits is None:
        with _lock:
            _limits = _limits or _of_the_environment()
    return _limits


_limits: Limits | None = None
_lock = threading.RLock()


def _of_the_environment() -> Limits:
    variables = {name: f"NWBZARR_{name.upper()}" for name in _KINDS}
    return Limits(
        **{
            name: _understood(name, text, f"The environment variable {variable}")
            for name, variable in variables.items()
            if (text := os.environ.get(variable))
        }
    )


class _Kind(NamedTuple):
    """One of the limits: what it bounds, what may be given, and how that is understood."""

    bounds: str
    wanted: str
    understand: Callable[[Any], int]


def _understood(name: str, given: Any, called: str) -> int:
    bounds, wanted, understand = _KINDS[name]
    try:
        return understand(given)
    except (ValueError, OverflowError):
        raise OptionError(f"{called}={given!r} cannot limit {bounds}; it is {wanted}.") from None


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


_A_COUNT: Final = "a whole number of at least 1"
_SOME_BYTES: Final = "at least 1 MB, as a number or a text such as '256 MB'"
_KINDS: Final[Mapping[str, _Kind]] = {
    "requests": _Kind("the requests in flight", _A_COUNT, _count),
    "bytes_in_flight": _Kind("the bytes of answers in flight", _SOME_BYTES, _bytes),
    "decoding_threads": _Kind("the threads that decode", _A_COUNT, _count),
    "block_bytes": _Kind("the bytes of a dask block", _SOME_BYTES, _bytes),
    "bytes_at_open": _Kind("the bytes that opening reads", _SOME_BYTES, _bytes),
}
