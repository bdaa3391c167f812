"""Elements of HDF5 datasets and attributes as Python values: numbers, texts, lists and object references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from struct import Struct
from typing import Any, Final

import numpy as np

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.hdf5.heaps import Heaps
from intake_nwbzarr.hdf5.messages import Datatype, text_of
from intake_nwbzarr.hdf5.source import Cursor, together

# Bytes of memory that a value in a list takes at least.
_VALUE: Final = 8

# The length, the address of the collection and the index in it of what has a variable length, by the bytes of
# addresses.
_VARIABLE: Final = {2: Struct("<IHI"), 4: Struct("<III"), 8: Struct("<IQI")}


@dataclass
class Budget:
    """How many bytes may still be decoded: a small file may refer to the same bytes any number of times."""

    left: int

    def spend(self, nbytes: int) -> None:
        """Count bytes that are decoded."""
        self.left -= nbytes
        if self.left < 0:
            raise LimitError("Its attributes, links or texts are longer than allowed when they are decoded.")


@dataclass(frozen=True)
class Address:
    """An object reference: the address of an object, None for a null reference."""

    value: int | None


@dataclass(frozen=True)
class Unsupported:
    """The value of an attribute, or the elements of a dataset, that are of a kind that is not read."""

    reason: str


class Decoder:
    """Decodes elements with the global heaps that are here, and notes which others they refer to."""

    def __init__(self, heaps: Heaps, budget: Budget) -> None:
        self.heaps = heaps
        self.budget = budget
        # Addresses of global heap collections. What is in them is decoded as if it was empty.
        self.missing: dict[int, None] = {}

    def decode(self, kind: Datatype, data: bytes | memoryview, count: int) -> list[Any]:
        """Return elements as Python values: numbers, texts, lists, and `Address` for references."""
        size = kind.size
        self.budget.spend(count * max(size, _VALUE))
        if kind.is_bool:
            return [value != 0 for value in bytes(data[:count])]
        if kind.dtype is not None:
            array = np.frombuffer(data, kind.dtype, count)
            values: list[Any] = (array.astype(str) if kind.dtype.kind in "mM" else array).tolist()
            return values
        if kind.kind == "vlen":
            return self._variable(kind, data[: count * size])
        if kind.kind == "array":
            assert kind.base is not None  # noqa: S101 - for the type checker
            length = prod(kind.shape)
            inner = self.decode(kind.base, data, count * length)
            return [nested(inner[at * length : (at + 1) * length], kind.shape) for at in range(count)]
        parts = [data[at : at + size] for at in range(0, count * size, size)]
        match kind.kind:
            case "string":
                return [fixed_text(part, kind) for part in parts]
            case "reference":
                return [_reference(part, self.heaps.addressing.offsets) for part in parts]
            case "compound":
                columns = [
                    self.decode(
                        member.datatype,
                        b"".join(
                            part[member.offset : member.offset + member.datatype.size] for part in parts
                        ),
                        count,
                    )
                    for member in kind.members
                ]
                return [list(row) for row in zip(*columns, strict=True)]
        raise MetadataError(f"Elements of the kind {kind.kind!r} are not supported.")

    def _variable(self, kind: Datatype, data: bytes | memoryview) -> list[Any]:
        """Return variable-length texts or sequences, which are in global heaps."""
        assert kind.base is not None  # noqa: S101 - for the type checker
        form = _VARIABLE[self.heaps.addressing.offsets]
        undefined = (1 << 8 * self.heaps.addressing.offsets) - 1
        if kind.size != form.size:
            raise MetadataError(f"Elements of variable length have {kind.size} bytes.", found=kind.size)
        values: list[Any] = []
        for length, address, index in form.iter_unpack(data):
            size = length * (1 if kind.is_text else kind.base.size)
            self.budget.spend(size)
            stored: bytes | memoryview = b""
            if length and address not in {0, undefined}:
                collection = self.heaps.known_collection(address)
                if collection is None:
                    self.missing[address] = None
                else:
                    stored = collection.get(index)
                    if len(stored) < size:
                        raise MetadataError("A value of variable length is longer than what is stored of it.")
            if kind.is_text:
                values.append(text_of(stored[:size]).partition("\0")[0])
            else:
                values.append(self.decode(kind.base, stored[:size], length if stored else 0))
        return values


async def decode_with_heaps[T](heaps: Heaps, budget: Budget, decode: Callable[[Decoder], T]) -> T:
    """Return what a function decodes, after all global heaps that it needs were fetched."""
    # What is decoded again is counted again, which bounds how often that happens.
    while True:
        decoder = Decoder(heaps, budget)
        result = decode(decoder)
        if not decoder.missing:
            return result
        await together(*map(heaps.collection, decoder.missing))


def fixed_text(data: bytes | memoryview, kind: Datatype) -> str:
    """Return a text of fixed length without its padding."""
    text = bytes(data)
    match kind.padding:
        case "null terminated":
            text = text.partition(b"\0")[0]
        case "spaces":
            text = text.rstrip(b" ").rstrip(b"\0")
        case _:
            text = text.rstrip(b"\0")
    return text_of(text)


def _reference(data: bytes | memoryview, offsets: int) -> Address:
    address = Cursor(data, offsets).address()
    # Both zero and the undefined address stand for no object.
    return Address(address or None)


def nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    """Return a list of lists of a shape."""
    if len(shape) <= 1:
        return flat
    inner = prod(shape[1:])
    return [nested(flat[at * inner : (at + 1) * inner], shape[1:]) for at in range(shape[0])]
