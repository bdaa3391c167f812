"""Presence: an absent chunk is fill only in a session that is still there, and still the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable, Sequence
from copy import copy
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from intake_nwbzarr.errors import AccessError, NWBZarrError, ObjectChangedError, TransportError
from intake_nwbzarr.transport.answers import Unchanged

if TYPE_CHECKING:
    from intake_nwbzarr.transport.contract import Transport

REMEMBERED: Final = 3.0
"""Seconds that a session is taken to be still there after it was seen."""

_MOST_ASKED: Final = 1024
# A chunk of Zarr 3, by its usual name: c/0/0.
_ZARR_3_CHUNK: Final = re.compile(r"(?:.*/)?c(?:[/.]\d+)*")


class _Look(NamedTuple):
    """A question that is being asked, or was answered."""

    since: float
    lasts: float
    answer: asyncio.Task[None]


looks: dict[Hashable, _Look] = {}


async def check_presence(transport: Transport, key: str) -> None:
    """Make sure that the session of an absent chunk is there; to be awaited on the package's event loop.

    Its metadata document is asked for, once for all arrays of a session and a while.

    Parameters
    ----------
    transport
        Of the session, in the state that the caller knows.
    key
        Of the chunk.

    Raises
    ------
    TransportError
        When the session is gone.
    ObjectChangedError
        When its metadata are not what they were.
    NWBZarrError
        When that cannot be found out.
    """
    if transport.opening and monotonic() - transport.seen <= transport.presence_lasts:
        return
    name = transport.presence_key
    look = looks.get(name)
    if look is None or _is_over(look):
        _forget_old()
        look = looks[name] = _Look(
            monotonic(), transport.presence_lasts, asyncio.ensure_future(_look(transport, key))
        )
    # Others wait for the same answer, whoever gives up; each failure is raised anew.
    try:
        await asyncio.shield(look.answer)
    except NWBZarrError as error:
        raise copy(error) from None


async def _look(transport: Transport, key: str) -> None:
    is_changed = False
    denied: AccessError | None = None
    for document in _documents(key, transport.state):
        try:
            found = await transport.find(document)
        except AccessError as error:
            # A bucket that denies listing answers so for documents that do not exist.
            denied = error
            continue
        if found is None:
            continue
        if transport.state is None or isinstance(found, Unchanged):
            return
        is_changed = True
    if is_changed:
        raise ObjectChangedError(
            f"{transport.location} was replaced, or its metadata were, since it was opened; its chunk "
            f"{key!r} is not there. Open it again."
        )
    if denied is not None:
        raise denied
    raise TransportError(
        f"Cannot read {transport.location}/{key}: {transport.location} is not there any more, or not "
        "mounted. Bring it back, or open it where it is now."
    )


def _documents(key: str, state: str | None) -> Sequence[str]:
    """The names of a session's metadata documents, the likeliest first."""
    # A session that was opened from consolidated metadata has a state, wherever ETags are known.
    older = (".zmetadata", ".zgroup") if state is not None else (".zgroup", ".zmetadata")
    return ("zarr.json", *older) if _ZARR_3_CHUNK.fullmatch(key) else (*older[:1], "zarr.json", *older[1:])


def _is_over(look: _Look) -> bool:
    if not look.answer.done():
        return False
    failed = look.answer.cancelled() or look.answer.exception() is not None
    return failed or monotonic() - look.since > look.lasts


def _forget_old() -> None:
    if len(looks) >= _MOST_ASKED:
        for name in [name for name, look in looks.items() if _is_over(look)]:
            del looks[name]
