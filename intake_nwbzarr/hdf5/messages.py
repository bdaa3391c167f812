"""Messages of HDF5 object headers: dataspace, datatype, fill value, layout, filters, links and attributes.

Sections and field names are those of the HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Final, Literal

import numpy as np

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.hdf5.source import Cursor
from intake_nwbzarr.untrusted_input import (
    DEEPEST_PATH,
    LARGEST_ELEMENT,
    LARGEST_LENGTH,
    MOST_DIMENSIONS,
    MOST_FILTERS,
    MOST_MEMBERS,
)

type Kind = Literal[
    "integer", "float", "time", "string", "bitfield", "opaque", "compound", "reference", "enum", "vlen",
    "array", "complex",
]  # fmt: skip

_KINDS: Final[tuple[Kind, ...]] = (
    "integer", "float", "time", "string", "bitfield", "opaque", "compound", "reference", "enum", "vlen",
    "array", "complex",
)  # fmt: skip

# The addresses of the B-tree and of the local heap of a group in the older form.
type Parts = tuple[int, int] | None

# Size, bits and bias of the exponent, of the IEEE 754 formats that NumPy has.
_FLOATS: Final = {(2, 5, 15), (4, 8, 127), (8, 11, 1023)}


@dataclass(frozen=True)
class Dataspace:
    """The shape of a dataset or attribute (section IV.A.2.b)."""

    # None for a null dataspace, which has no elements.
    shape: tuple[int, ...] | None
    # The largest lengths, None for an unlimited one.
    largest: tuple[int | None, ...] = ()

    @property
    def count(self) -> int:
        """Return the number of elements."""
        return 0 if self.shape is None else prod(self.shape)


@dataclass(frozen=True)
class Member:
    """A field of a compound type."""

    name: str
    offset: int
    datatype: Datatype


@dataclass(frozen=True)
class Datatype:
    """The type of elements (section IV.A.2.d)."""

    kind: Kind
    size: int
    # Of numbers, and of elements that NumPy can only hold as bytes; None for all others.
    dtype: np.dtype[np.generic] | None = None
    # Of an enumeration, a variable-length sequence or an array.
    base: Datatype | None = None
    # Of a compound.
    members: tuple[Member, ...] = ()
    # Of an enumeration, its names by value.
    names: Mapping[int, str] = field(default_factory=dict, hash=False)
    # Of an array.
    shape: tuple[int, ...] = ()
    # Variable-length text, as opposed to a sequence of the base type.
    is_text: bool = False
    # Of fixed-length text: what follows it up to the end.
    padding: Literal["null terminated", "nulls", "spaces"] = "nulls"
    # A region reference, or one of the newer kinds, as opposed to an object reference.
    is_region: bool = False
    # What is unusual about numbers that NumPy has no dtype for.
    unusual: str = ""

    @cached_property
    def is_bool(self) -> bool:
        """Return whether it is an enumeration of FALSE and TRUE, as h5py writes booleans."""
        return self.kind == "enum" and self.size == 1 and dict(self.names) == {0: "FALSE", 1: "TRUE"}


@dataclass(frozen=True)
class Filter:
    """One stage of a filter pipeline (section IV.A.2.l), by its registered number."""

    number: int
    parameters: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True)
class Layout:
    """Where a dataset's elements are (section IV.A.2.i)."""

    kind: Literal["compact", "contiguous", "chunked", "virtual"]
    # Of contiguous elements, or of the chunk index; None if nothing is stored.
    address: int | None = None
    size: int = 0
    data: bytes = field(default=b"", repr=False)
    chunks: tuple[int, ...] = ()
    # How chunks are found: by a B-tree of version 1 or 2, or ...
    index: Literal["tree 1", "single", "implicit", "fixed", "extensible", "tree 2"] = "tree 1"
    # Of a single filtered chunk.
    chunk_size: int | None = None
    mask: int = 0
    # Chunks at the edges that are stored without filters.
    partial_unfiltered: bool = False


@dataclass(frozen=True)
class Link:
    """A link of a group: by the address of an object, or by a path, perhaps in another file."""

    name: str
    address: int | None = None
    path: str = ""
    file: str | None = None
    # Of a group of an older file, the addresses of its B-tree and its heap, where the link repeats them.
    parts: Parts = field(default=None, compare=False)


def text_of(data: bytes | memoryview) -> str:
    """Return text, in which bytes that are not UTF-8 are kept as escapes."""
    return bytes(data).decode("utf-8", "backslashreplace")


def dataspace(data: bytes | memoryview, lengths: int) -> Dataspace:
    """Parse a dataspace message."""
    cursor = Cursor(data, lengths=lengths)
    version, rank, flags = cursor.number(1), cursor.number(1), cursor.number(1)
    match version:
        case 1:
            cursor.take(5)
            is_null = False
        case 2:
            is_null = cursor.number(1) == 2
        case _:
            raise _unknown("dataspace", version)
    if rank > MOST_DIMENSIONS:
        raise MetadataError(f"A dataspace has {rank} dimensions; at most {MOST_DIMENSIONS} are allowed.")
    shape = tuple(cursor.length() for _ in range(rank))
    if prod(length or 1 for length in shape) > LARGEST_LENGTH:
        raise MetadataError(f"A dataspace of the shape {shape} has more elements than can be counted.")
    largest: tuple[int | None, ...] = shape
    if flags & 1:
        unlimited = (1 << 8 * lengths) - 1
        largest = tuple(None if (length := cursor.length()) == unlimited else length for _ in range(rank))
    return Dataspace(None if is_null else shape, largest)


def datatype(data: bytes | memoryview) -> Datatype:
    """Parse a datatype message."""
    return _datatype(Cursor(data), 0)


def _datatype(cursor: Cursor, depth: int) -> Datatype:
    if depth > DEEPEST_PATH:
        raise MetadataError(f"A datatype is nested deeper than {DEEPEST_PATH} levels.")
    first, bits, size = cursor.number(1), cursor.number(3), cursor.number(4)
    version, number = first >> 4, first & 15
    if number >= len(_KINDS):
        raise _unknown("datatype", number)
    if not 0 < size <= LARGEST_ELEMENT:
        raise MetadataError(f"A datatype has elements of {size} bytes.", found=size, expected=LARGEST_ELEMENT)
    kind = _KINDS[number]
    match kind:
        case "integer" | "bitfield":
            return _integer(cursor, kind, bits, size)
        case "float":
            return _float(cursor, bits, size)
        case "time":
            cursor.take(2)
            return Datatype(kind, size, unusual="times of HDF5")
        case "string":
            padding: tuple[Literal["null terminated", "nulls", "spaces"], ...]
            padding = ("null terminated", "nulls", "spaces")
            if bits & 15 >= len(padding):
                raise _unknown("padding of texts", bits & 15)
            return Datatype(kind, size, padding=padding[bits & 15])
        case "opaque":
            tag = bytes(cursor.take(bits & 255)).rstrip(b"\0")
            return Datatype(kind, size, _opaque(tag, size))
        case "compound":
            return _compound(cursor, version, bits & 0xFFFF, size, depth)
        case "reference":
            # Versions 4 have references of other kinds as well, which nothing has written for NWB.
            return Datatype(kind, size, is_region=bits & 15 != 0)
        case "enum":
            return _enumeration(cursor, version, bits & 0xFFFF, size, depth)
        case "vlen":
            base = _datatype(cursor, depth + 1)
            return Datatype(kind, size, base=base, is_text=bits & 15 == 1)
        case "array":
            return _array(cursor, version, size, depth)
        case "complex":
            base = _datatype(cursor, depth + 1)
            if size != 2 * base.size:
                raise MetadataError(f"A complex number of {size} bytes has parts of {base.size}.")
            return Datatype(kind, size, _complex(base), base=base)


def _integer(cursor: Cursor, kind: Kind, bits: int, size: int) -> Datatype:
    offset, precision = cursor.number(2), cursor.number(2)
    order = ">" if bits & 1 else "<"
    signed = kind == "integer" and bits & 8
    if size not in {1, 2, 4, 8} or offset or precision != 8 * size:
        return Datatype(kind, size, unusual=f"integers with {precision} of {8 * size} bits")
    return Datatype(kind, size, np.dtype(f"{order}{'i' if signed else 'u'}{size}"))


def _float(cursor: Cursor, bits: int, size: int) -> Datatype:
    offset, precision = cursor.number(2), cursor.number(2)
    cursor.number(1)
    exponent = cursor.number(1)
    cursor.take(2)
    bias = cursor.number(4)
    if (size, exponent, bias) not in _FLOATS or offset or precision != 8 * size or bits & 0x40:
        return Datatype("float", size, unusual=f"floating-point numbers with {precision} bits")
    return Datatype("float", size, np.dtype(f"{'>' if bits & 1 else '<'}f{size}"))


def _opaque(tag: bytes, size: int) -> np.dtype[np.generic]:
    if tag.startswith((b"NUMPY:<M8[", b"NUMPY:<m8[", b"NUMPY:datetime64[", b"NUMPY:timedelta64[")):
        try:
            dtype = np.dtype(tag.removeprefix(b"NUMPY:").decode("ascii"))
            if dtype.itemsize == size:
                return dtype
        except (TypeError, ValueError):
            pass
    return np.dtype((np.void, size))


def _compound(cursor: Cursor, version: int, count: int, size: int, depth: int) -> Datatype:
    if count > MOST_MEMBERS:
        raise MetadataError(f"A compound type has {count} fields; at most {MOST_MEMBERS} are allowed.")
    members: list[Member] = []
    wide = max(1, (size.bit_length() + 7) // 8)
    for _ in range(count):
        start = cursor.at
        name = cursor.text()
        if version < 3:
            cursor.align(start)
        offset = cursor.number(4 if version < 3 else wide)
        shape: tuple[int, ...] = ()
        if version == 1:
            rank = cursor.number(1)
            cursor.take(11)
            shape = tuple(cursor.number(4) for _ in range(4))[: min(rank, 4)]
            if 0 in shape:
                raise MetadataError(f"The field {text_of(name)!r} has no elements.")
        member = _datatype(cursor, depth + 1)
        if shape:
            member = Datatype("array", prod(shape) * member.size, base=member, shape=shape)
        if offset + member.size > size:
            raise MetadataError(f"The field {text_of(name)!r} lies outside of its compound type.")
        members.append(Member(text_of(name), offset, member))
    if not members or len({member.name for member in members}) < count:
        raise MetadataError("A compound type has no fields, or several of the same name.")
    result = Datatype("compound", size, members=tuple(members))
    # h5py stores complex numbers as compounds of r and i.
    match members:
        case [Member("r", 0, real), Member("i", _, imaginary)] if (
            real == imaginary
            and real.kind == "float"
            and size == 2 * real.size
            and members[1].offset == real.size
        ):
            return Datatype("complex", size, _complex(real), base=real)
    return result


def _complex(base: Datatype) -> np.dtype[np.generic] | None:
    if base.dtype is None or base.size < 4:
        return None
    return np.dtype(f"c{2 * base.size}").newbyteorder(base.dtype.byteorder)


def _enumeration(cursor: Cursor, version: int, count: int, size: int, depth: int) -> Datatype:
    if count > MOST_MEMBERS:
        raise MetadataError(f"An enumeration has {count} names; at most {MOST_MEMBERS} are allowed.")
    base = _datatype(cursor, depth + 1)
    if base.kind != "integer" or base.size != size:
        raise MetadataError(f"An enumeration of {size} bytes is one of a {base.kind} of {base.size} bytes.")
    names: list[str] = []
    for _ in range(count):
        start = cursor.at
        names.append(text_of(cursor.text()))
        if version < 3:
            cursor.align(start)
    signed = base.dtype is not None and base.dtype.kind == "i"
    order: Literal["little", "big"] = (
        "big" if base.dtype is not None and base.dtype.byteorder == ">" else "little"
    )
    values = [int.from_bytes(cursor.take(base.size), order, signed=signed) for _ in range(count)]
    return Datatype(
        "enum", size, base.dtype, base, names=dict(zip(values, names, strict=True)), unusual=base.unusual
    )


def _array(cursor: Cursor, version: int, size: int, depth: int) -> Datatype:
    rank = cursor.number(1)
    if rank > MOST_DIMENSIONS:
        raise MetadataError(f"An array type has {rank} dimensions; at most {MOST_DIMENSIONS} are allowed.")
    if version < 3:
        cursor.take(3)
    shape = tuple(cursor.number(4) for _ in range(rank))
    if version < 3:
        cursor.take(4 * rank)
    base = _datatype(cursor, depth + 1)
    if prod(shape) * base.size != size:
        raise MetadataError(f"An array type of the shape {shape} has {size} bytes.", found=size)
    return Datatype("array", size, base=base, shape=shape)


def unsupported(kind: Datatype) -> str:
    """Return why elements of a type cannot be read, "" if they can."""
    if kind.unusual:
        return kind.unusual
    match kind.kind:
        case "reference" if kind.is_region:
            return "region references"
        case "complex" if kind.dtype is None:
            return "complex numbers of an unusual size"
        case "compound":
            return next((reason for each in kind.members if (reason := unsupported(each.datatype))), "")
        case "vlen" | "array" if kind.base is not None and not kind.is_text:
            return unsupported(kind.base)
    return ""


def fill_value(data: bytes | memoryview, *, old: bool) -> bytes | None:
    """Return the fill value of a message as stored, None for the default, which is zero."""
    cursor = Cursor(data)
    if old:
        return bytes(cursor.take(cursor.number(4))) or None
    version = cursor.number(1)
    if version in {1, 2}:
        cursor.take(2)
        if not cursor.number(1) or (version == 1 and cursor.at >= len(data)):
            return None
    elif version == 3:
        if not cursor.number(1) & 0x20:
            return None
    else:
        raise _unknown("fill value", version)
    return bytes(cursor.take(cursor.number(4))) or None


def filters(data: bytes | memoryview) -> tuple[Filter, ...]:
    """Parse a filter pipeline message."""
    cursor = Cursor(data)
    version, count = cursor.number(1), cursor.number(1)
    if version not in {1, 2}:
        raise _unknown("filter pipeline", version)
    if count > MOST_FILTERS:
        raise MetadataError(f"A dataset has {count} filters; at most {MOST_FILTERS} are allowed.")
    if version == 1:
        cursor.take(6)
    found = []
    for _ in range(count):
        number = cursor.number(2)
        length = cursor.number(2) if version == 1 or number >= 256 else 0
        cursor.take(2)
        values = cursor.number(2)
        name = bytes(cursor.take(-(-length // 8) * 8 if version == 1 else length)).partition(b"\0")[0]
        parameters = tuple(cursor.number(4) for _ in range(values))
        if version == 1 and values % 2:
            cursor.take(4)
        found.append(Filter(number, parameters, text_of(name)))
    return tuple(found)


def layout(data: bytes | memoryview, offsets: int, lengths: int) -> Layout:
    """Parse a data layout message."""
    cursor = Cursor(data, offsets, lengths)
    version = cursor.number(1)
    if version in {1, 2}:
        return _early_layout(cursor)
    if version not in {3, 4, 5}:
        raise _unknown("data layout", version)
    match cursor.number(1):
        case 0:
            return Layout("compact", data=bytes(cursor.take(cursor.number(2))))
        case 1:
            return Layout("contiguous", cursor.address(), cursor.length())
        case 2 if version == 3:
            rank = _checked_rank(cursor.number(1))
            address = cursor.address()
            sizes = tuple(cursor.number(4) for _ in range(rank))
            return Layout("chunked", address, chunks=sizes[:-1])
        case 2:
            return _chunked(cursor)
        case 3:
            return Layout("virtual")
        case other:
            raise _unknown("data layout class", other)


def _early_layout(cursor: Cursor) -> Layout:
    rank, kind = _checked_rank(cursor.number(1)), cursor.number(1)
    cursor.take(5)
    address = None if kind == 0 else cursor.address()
    sizes = tuple(cursor.number(4) for _ in range(rank))
    match kind:
        case 0:
            return Layout("compact", data=bytes(cursor.take(cursor.number(4))))
        case 1:
            # The size is that of all elements.
            return Layout("contiguous", address)
        case 2:
            return Layout("chunked", address, chunks=sizes[:-1])
    raise _unknown("data layout class", kind)


def _chunked(cursor: Cursor) -> Layout:
    flags, rank, wide = cursor.number(1), _checked_rank(cursor.number(1)), cursor.number(1)
    if not 1 <= wide <= 8:
        raise MetadataError(f"The lengths of chunks have {wide} bytes.")
    sizes = tuple(cursor.number(wide) for _ in range(rank))
    index = cursor.number(1)
    chunk_size, mask = None, 0
    match index:
        case 1:
            if flags & 2:
                chunk_size, mask = cursor.length(), cursor.number(4)
        case 2:
            pass
        case 3:
            cursor.take(1)
        case 4:
            cursor.take(5)
        case 5:
            cursor.take(6)
        case _:
            raise _unknown("chunk index", index)
    kinds: tuple[Literal["single", "implicit", "fixed", "extensible", "tree 2"], ...]
    kinds = ("single", "implicit", "fixed", "extensible", "tree 2")
    return Layout(
        "chunked",
        cursor.address(),
        chunks=sizes[:-1],
        index=kinds[index - 1],
        chunk_size=chunk_size,
        mask=mask,
        partial_unfiltered=bool(flags & 1),
    )


def _checked_rank(rank: int) -> int:
    if not 1 <= rank <= MOST_DIMENSIONS + 1:
        raise MetadataError(f"A data layout has {rank} dimensions.")
    return rank


def link(data: bytes | memoryview, offsets: int) -> Link:
    """Parse a link message."""
    cursor = Cursor(data, offsets)
    version, flags = cursor.number(1), cursor.number(1)
    if version != 1:
        raise _unknown("link", version)
    kind = cursor.number(1) if flags & 8 else 0
    if flags & 4:
        cursor.take(8)
    if flags & 16:
        cursor.take(1)
    name = text_of(cursor.take(cursor.number(1 << (flags & 3))))
    if kind == 0:
        return Link(name, cursor.address())
    value = bytes(cursor.take(cursor.number(2)))
    if kind == 1:
        return Link(name, path=text_of(value))
    if kind == 64:
        file, _, path = value[1:].partition(b"\0")
        return Link(name, path=text_of(path.partition(b"\0")[0]), file=text_of(file))
    raise MetadataError(f"The link {name!r} is of the unknown kind {kind}.")


@dataclass(frozen=True)
class Attribute:
    """An attribute message, of which the value is not decoded."""

    name: str
    datatype: bytes | memoryview
    dataspace: bytes | memoryview
    data: bytes | memoryview = field(repr=False)
    # The datatype, or the dataspace, is that of another object: its message is a shared one.
    shared: tuple[bool, bool] = (False, False)


def attribute(data: bytes | memoryview) -> Attribute:
    """Parse an attribute message."""
    cursor = Cursor(data)
    version, flags = cursor.number(1), cursor.number(1)
    if version not in {1, 2, 3}:
        raise _unknown("attribute", version)
    sizes = cursor.number(2), cursor.number(2), cursor.number(2)
    if version == 3:
        cursor.take(1)
    parts = []
    for size in sizes:
        parts.append(cursor.take(size))
        if version == 1:
            cursor.take(-size % 8)
    shared = (False, False) if version == 1 else (bool(flags & 1), bool(flags & 2))
    name = text_of(bytes(parts[0]).partition(b"\0")[0])
    return Attribute(name, parts[1], parts[2], cursor.data[cursor.at :], shared)


def _unknown(what: str, version: int) -> MetadataError:
    return MetadataError(
        f"Its {what} has the unknown version or kind {version}.",
        found=version,
        next_step="It may be damaged, or written by a newer release of HDF5: rewrite it with h5repack.",
    )
