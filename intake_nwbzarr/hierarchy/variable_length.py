"""Variable-length items: how large a chunk may be, checked before room is made for them."""

from __future__ import annotations

import struct
from collections.abc import Buffer
from math import prod
from typing import Any, Final, Literal

from numcodecs import VLenBytes, VLenUTF8
from numpy.typing import NDArray

from intake_nwbzarr.transport.contract import LARGEST_OBJECT

VARIABLE_LENGTH: Final = frozenset({"vlen-utf8", "vlen-bytes"})
"""The serializers of variable-length items."""

_ALWAYS: Final = 16 * 2**20
_EACH: Final = 64 * 2**10


def text_limit(shape: tuple[int, ...], fields: int = 1) -> int:
    """How many bytes a chunk of strings or objects may expand to; their metadata declare no size.

    Parameters
    ----------
    shape
        The chunk's.
    fields
        How many values each item has.
    """
    return min(LARGEST_OBJECT, _ALWAYS + _EACH * prod(shape) * fields)


def check_count(data: Buffer, count: int) -> None:
    """Compare the number of items that a chunk claims to hold with the declared one.

    The library reserves a reference for each claimed item before it reads the first.

    Raises
    ------
    ValueError
        When they differ, or there is no number.
    """
    view = memoryview(data).cast("B")
    if len(view) < 4:
        raise ValueError(f"it has {len(view)} bytes, too few to say how many items it holds")
    (found,) = struct.unpack_from("<I", view)
    if found != count:
        raise ValueError(f"it holds {found} elements where {count} are declared")


def decode_items(name: Literal["vlen-utf8", "vlen-bytes"], data: Buffer, count: int) -> NDArray[Any]:
    """The items of a chunk, decompressed before.

    Raises
    ------
    ValueError
        When there are not as many as declared, or they are damaged.
    """
    check_count(data, count)
    items: NDArray[Any] = (VLenUTF8() if name == "vlen-utf8" else VLenBytes()).decode(data)
    return items
