"""Objects of an HDF5 file: groups with their links, datasets with their layout, and attributes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from intake_nwbzarr.errors import LimitError, MetadataError, NotZarrError
from intake_nwbzarr.hdf5 import messages
from intake_nwbzarr.hdf5.heaps import Addressing, FractalHeap, Heaps, check_distinct, verify_checksum
from intake_nwbzarr.hdf5.messages import Attribute, Dataspace, Datatype, Filter, Layout, Link, unsupported
from intake_nwbzarr.hdf5.source import Cursor, Source, together
from intake_nwbzarr.untrusted_input import (
    LARGEST_ATTRIBUTE,
    LARGEST_USER_BLOCK,
    MOST_CONTINUATIONS,
    MOST_DECODED,
    MOST_MESSAGES,
)

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

# Bytes of an object header that are usually enough for all of it.
_HEADER: Final = 512

# Bytes of memory that a link, a message, or a value in a list takes at least.
_LINK, _MESSAGE, _VALUE = 64, 32, 8


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


@dataclass
class Group:
    """A group."""

    address: int
    attributes: dict[str, Any] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    # Whether these are all links of the group, and not those beside one that was looked up.
    whole: bool = True


@dataclass
class Dataset:
    """A dataset."""

    address: int
    dataspace: Dataspace
    datatype: Datatype
    layout: Layout
    # As stored, None for the default; of texts, references and compounds with these, their value.
    fill: bytes | None = None
    fill_value: Any = None
    filters: tuple[Filter, ...] = ()
    # Elements are in other files.
    external: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedType:
    """A committed datatype, which is no part of the data."""

    address: int


type Object = Group | Dataset | NamedType


class _Message(NamedTuple):
    kind: int
    flags: int
    data: memoryview


class Objects:
    """Reads the objects of a file by their addresses."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.heaps = Heaps(source, Addressing(8, 8, 0))
        self.root: int | None = None
        self.budget = Budget(MOST_DECODED)
        self._types: dict[bytes, Datatype] = {}
        self._spaces: dict[bytes, Dataspace] = {}
        self._found: dict[tuple[bytes, int], bytes | memoryview] = {}
        # Of the superblock extension, and the heap of each kind of message that objects share.
        self._extension: int | None = None
        self._shared_heaps: dict[int, FractalHeap] | None = None

    @property
    def addressing(self) -> Addressing:
        """Return how addresses are stored."""
        return self.heaps.addressing

    async def open(self) -> None:
        """Read the superblock (section II)."""
        base = 0
        while base + 8 > self.source.size or bytes(await self.source.read(base, 8)) != SIGNATURE:
            base = base * 2 or 512
            if base > LARGEST_USER_BLOCK or base + 8 > self.source.size:
                raise NotZarrError("It is not an HDF5 file.", expected="an HDF5 file")
        self.addressing.base = base
        head = Cursor(await self.source.read(base, min(96, self.source.size - base)), at=8)
        version = head.number(1)
        if version in {0, 1}:
            head.take(4)
            offsets, lengths = head.number(1), head.number(1)
            self._set_sizes(offsets, lengths)
            head.take(9 + (4 if version else 0))
            head.offsets = offsets
            stored, _, end = head.address(), head.address(), head.address()
            head.take(2 * offsets)
            self.root = head.address()
        elif version in {2, 3}:
            offsets, lengths = head.number(1), head.number(1)
            self._set_sizes(offsets, lengths)
            head.offsets = offsets
            head.take(1)
            stored, self._extension, end = head.address(), head.address(), head.address()
            self.root = head.address()
            verify_checksum(head.data[: head.at + 4])
        else:
            raise MetadataError(
                f"Its superblock has the unknown version {version}.",
                found=version,
                next_step="Rewrite it with h5repack.",
            )
        # Both count from the beginning of the file, as it was before a user block was put before it.
        whole = 0 if end is None else end + base - (stored or 0)
        if whole > self.source.size:
            raise MetadataError(
                f"It is truncated: it has {self.source.size} bytes of {whole}.",
                found=self.source.size,
                expected=whole,
                next_step="Copy or download it again.",
            )
        if self.root is None:
            raise MetadataError("It has no root group.")

    def _set_sizes(self, offsets: int, lengths: int) -> None:
        if offsets not in {2, 4, 8} or lengths not in {2, 4, 8}:
            raise MetadataError(f"Its addresses have {offsets} bytes and its lengths {lengths}.")
        self.addressing.offsets, self.addressing.lengths = offsets, lengths

    async def read(self, address: int, only: str | None = None) -> Object:
        """Read the object whose header is at an address; of a large group, with the link of a name only."""
        found = await self._messages(address)
        kinds = {message.kind for message in found}
        if {1, 3, 8} <= kinds:
            return await self._dataset(address, found)
        if kinds & {2, 6, 10, 17}:
            return await self._group(address, found, only)
        if 3 in kinds:
            return NamedType(address)
        if 1 in kinds or 8 in kinds:
            raise MetadataError("A dataset has no dataspace, datatype or layout.")
        # A group without members may have no message that tells so.
        return await self._group(address, found, only)

    async def has_several_names(self, address: int) -> bool:
        """Return whether more than one hard link leads to an object."""
        head = await self.heaps.read_at_most(address, 16)
        if bytes(head[:4]) != b"OHDR":
            return int.from_bytes(head[4:8], "little") > 1
        counts = [each.data[1:5] for each in await self._messages(address) if each.kind == 22]
        return any(int.from_bytes(count, "little") > 1 for count in counts)

    # Object headers (section IV.A.1)

    async def _messages(self, address: int) -> list[_Message]:
        found: list[_Message] = []
        async for message in self._all_messages(address):
            self.budget.spend(_MESSAGE)
            found.append(message)
            if len(found) > MOST_MESSAGES:
                raise LimitError("An object header has too many messages.", expected=MOST_MESSAGES)
        return found

    async def _all_messages(self, address: int) -> AsyncIterator[_Message]:
        head = await self.heaps.read_at_most(address, _HEADER)
        if bytes(head[:4]) == b"OHDR":
            async for message in self._new_messages(address, head):
                yield message
            return
        if len(head) < 16 or head[0] != 1:
            raise MetadataError("No object has its header there.", found=address)
        cursor = self.heaps.cursor(head)
        cursor.take(2)
        count = cursor.number(2)
        cursor.take(4)
        blocks = [(address + 16, cursor.number(4))]
        visited: set[int] = set()
        seen = 0
        for number in range(MOST_CONTINUATIONS):
            if number >= len(blocks):
                return
            check_distinct([blocks[number][0]], visited)
            cursor = self.heaps.cursor(await self.heaps.read(*blocks[number]))
            while seen < count and cursor.at + 8 <= len(cursor.data):
                kind, size, flags = cursor.number(2), cursor.number(2), cursor.number(1)
                cursor.take(3)
                data = memoryview(cursor.take(size))
                seen += 1
                if kind == 16:
                    blocks.append(self._continuation(data))
                elif kind:
                    yield _Message(kind, flags, data)
        raise LimitError("An object header has too many blocks.", expected=MOST_CONTINUATIONS)

    async def _new_messages(self, address: int, head: memoryview) -> AsyncIterator[_Message]:
        cursor = self.heaps.cursor(head)
        cursor.expect(b"OHDR")
        version, flags = cursor.number(1), cursor.number(1)
        if version != 2:
            raise MetadataError(f"An object header has the unknown version {version}.", found=version)
        cursor.take((16 if flags & 32 else 0) + (4 if flags & 16 else 0))
        size = cursor.number(1 << (flags & 3))
        blocks = [(address, cursor.at, size)]
        visited: set[int] = set()
        for number in range(MOST_CONTINUATIONS):
            if number >= len(blocks):
                return
            start, at, size = blocks[number]
            check_distinct([start], visited)
            block = await self.heaps.read(start, at + size + 4)
            verify_checksum(block)
            if number and bytes(block[:4]) != b"OCHK":
                raise MetadataError("A block of an object header has another signature.")
            cursor = self.heaps.cursor(block[: at + size])
            cursor.at = at
            least = 6 if flags & 4 else 4
            while cursor.at + least <= len(cursor.data):
                kind, length, own = cursor.number(1), cursor.number(2), cursor.number(1)
                cursor.take(2 if flags & 4 else 0)
                data = memoryview(cursor.take(length))
                if kind == 16:
                    begin, whole = self._continuation(data)
                    if whole < 8:
                        raise MetadataError("A block of an object header is too short.")
                    blocks.append((begin, 4, whole - 8))
                elif kind:
                    yield _Message(kind, own, data)
        raise LimitError("An object header has too many blocks.", expected=MOST_CONTINUATIONS)

    def _continuation(self, data: memoryview) -> tuple[int, int]:
        cursor = self.heaps.cursor(data)
        address, size = cursor.address(), cursor.length()
        if address is None:
            raise MetadataError("A block of an object header has no address.")
        return address, size

    async def _body(self, message: _Message) -> bytes | memoryview:
        """Return the data of a message, which another object may share."""
        return message.data if not message.flags & 2 else await self._shared(message.data, message.kind)

    async def _shared(self, data: bytes | memoryview, kind: int) -> bytes | memoryview:
        """Return the data of a message that several objects share (section IV.A.2, shared messages)."""
        key = bytes(data), kind
        known = self._found.get(key)
        if known is not None:
            return known
        cursor = self.heaps.cursor(data)
        version, where = cursor.number(1), cursor.number(1)
        if version == 3 and where == 1:
            return self._found.setdefault(key, await (await self._shared_heap(kind)).get(cursor.take(8)))
        if version == 1:
            cursor.take(6)
        address = cursor.address()
        if address is None or version not in {1, 2, 3}:
            raise MetadataError("A shared message has no address.")
        for message in await self._messages(address):
            if message.kind == kind and not message.flags & 2:
                return self._found.setdefault(key, message.data)
        raise MetadataError("A shared message is missing.")

    async def _shared_heap(self, kind: int) -> FractalHeap:
        """Return the heap of the messages of a kind that objects share."""
        if self._shared_heaps is None:
            extension = [] if self._extension is None else await self._messages(self._extension)
            tables = await together(*(self.heaps.shared(each.data) for each in extension if each.kind == 15))
            self._shared_heaps = tables[0] if tables else {}
        # Both kinds of fill values have one index.
        heap = self._shared_heaps.get(5 if kind == 4 else kind)
        if heap is None:
            raise MetadataError(f"No table of shared messages has those of the kind {kind}.", found=kind)
        return heap

    # Groups

    async def _group(self, address: int, found: list[_Message], only: str | None) -> Group:
        (links, whole), attributes = await together(self._links(found, only), self._attributes(found))
        return Group(address, attributes, links, whole)

    async def _links(self, found: list[_Message], only: str | None) -> tuple[list[Link], bool]:
        links: list[Link] = []
        whole = True
        for message in found:
            match message.kind:
                case 17:
                    symbols, whole = await self._symbols(message.data, only)
                    links += symbols
                case 6:
                    self.budget.spend(_LINK + len(message.data))
                    links.append(messages.link(message.data, self.addressing.offsets))
                case 2:
                    links += await self._dense_links(message.data)
        names = {link.name for link in links}
        if len(names) < len(links) or not names.isdisjoint({"", "."}) or any("/" in name for name in names):
            raise MetadataError("A group has members without names of their own.")
        return links, whole

    async def _symbols(self, data: memoryview, only: str | None) -> tuple[list[Link], bool]:
        """Return links of a symbol table (sections III.B and III.C), and whether they are all."""
        cursor = self.heaps.cursor(data)
        tree, heap = cursor.address(), cursor.address()
        if tree is None or heap is None:
            return [], True
        if only is None:
            names, nodes = await together(self.heaps.local_heap(heap), self.heaps.group_nodes(tree))
        else:
            self.heaps.want([(tree, 1024)])
            names = await self.heaps.local_heap(heap)
            node = await self.heaps.group_node_of(tree, names, only.encode())
            nodes = [] if node is None else [node]
        links: list[Link] = []
        size = 2 * self.addressing.offsets + 24
        # A node has eight entries, unless the file was created with another number.
        self.heaps.want((node, 8 + 8 * size) for node in nodes)
        self.budget.spend(_LINK * len(nodes))
        for node in nodes:
            cursor = self.heaps.cursor(await self.heaps.read(node, 8))
            cursor.expect(b"SNOD")
            cursor.take(2)
            cursor = self.heaps.cursor(await self.heaps.read(node, 8 + cursor.number(2) * size))
            cursor.take(8)
            while cursor.at < len(cursor.data):
                name, target, kind = (
                    cursor.number(self.addressing.offsets),
                    cursor.address(),
                    cursor.number(4),
                )
                cursor.take(4)
                scratch = memoryview(cursor.take(16))
                text = messages.text_of(Cursor(names, at=name).text())
                self.budget.spend(_LINK + len(text))
                if kind == 2:
                    path = Cursor(names, at=int.from_bytes(scratch[:4], "little")).text()
                    links.append(Link(text, path=messages.text_of(path)))
                else:
                    links.append(Link(text, target, parts=self._parts(scratch) if kind == 1 else ()))
        return links, only is None

    def _parts(self, scratch: memoryview) -> tuple[int, ...]:
        cursor = self.heaps.cursor(scratch)
        return tuple(address for address in (cursor.address(), cursor.address()) if address is not None)

    def want_group(self, link: Link) -> None:
        """Have the B-tree and the heap of a group fetched along with its header."""
        self.heaps.want((address, 1024) for address in link.parts)

    async def _dense_links(self, data: memoryview) -> list[Link]:
        """Return the links of a group that are in a fractal heap."""
        heap, tree = self._dense(data, 8, "link")
        if heap is None or tree is None:
            return []
        links: list[Link] = []
        stored, records = await together(self.heaps.whole_heap(heap), self.heaps.records(tree, 5, 5))
        for record in records:
            body = await stored.get(record[4:])
            self.budget.spend(_LINK + len(body))
            links.append(messages.link(body, self.addressing.offsets))
        return links

    def _dense(self, data: memoryview, order: int, what: str) -> tuple[int | None, int | None]:
        """Return the addresses of the heap and the tree of names in a link info or attribute info message."""
        cursor = self.heaps.cursor(data)
        version, flags = cursor.number(1), cursor.number(1)
        if version:
            raise MetadataError(f"Its {what} info has an unknown version.")
        # The largest creation order.
        cursor.take(order if flags & 1 else 0)
        return cursor.address(), cursor.address()

    # Datasets

    async def _dataset(self, address: int, found: list[_Message]) -> Dataset:
        bodies: dict[int, bytes | memoryview] = {}
        for message in found:
            if message.kind in {1, 3, 4, 5, 7, 8, 11}:
                bodies[message.kind] = await self._body(message)
        space = messages.dataspace(bodies[1], self.addressing.lengths)
        layout = messages.layout(bodies[8], self.addressing.offsets, self.addressing.lengths)
        kind = self._datatype(bodies[3])
        rank = len(space.shape or ())
        if layout.kind == "chunked" and not (0 < len(layout.chunks) == rank and all(layout.chunks)):
            raise MetadataError(f"A dataset of the shape {space.shape} has chunks of {layout.chunks}.")
        if layout.kind == "contiguous" and not layout.size:
            layout = replace(layout, size=space.count * kind.size)
        fill = None
        if 5 in bodies:
            fill = messages.fill_value(bodies[5], old=False)
        elif 4 in bodies:
            fill = messages.fill_value(bodies[4], old=True)
        fill_value = None
        if fill is not None and kind.dtype is None and len(fill) == kind.size and not unsupported(kind):
            fill_value = (await self.elements(kind, fill, 1, self.budget))[0]
        return Dataset(
            address,
            space,
            kind,
            layout,
            fill,
            fill_value,
            messages.filters(bodies[11]) if 11 in bodies else (),
            external=7 in bodies,
            attributes=await self._attributes(found),
        )

    def _datatype(self, data: bytes | memoryview) -> Datatype:
        # Nearly all objects have the same few types.
        key = bytes(data)
        known = self._types.get(key)
        return known if known is not None else self._types.setdefault(key, messages.datatype(key))

    def _dataspace(self, data: bytes | memoryview) -> Dataspace:
        key = bytes(data)
        known = self._spaces.get(key)
        if known is None:
            known = self._spaces.setdefault(key, messages.dataspace(key, self.addressing.lengths))
        return known

    # Attributes

    async def _attributes(self, found: list[_Message]) -> dict[str, Any]:
        attributes: list[Attribute] = []
        for message in found:
            if message.kind == 12:
                attributes.append(messages.attribute(await self._body(message)))
            elif message.kind == 21:
                attributes += [each async for each in self._dense_attributes(message.data)]
        values = await together(*map(self._value, attributes))
        return {attribute.name: value for attribute, value in zip(attributes, values, strict=True)}

    async def _dense_attributes(self, data: memoryview) -> AsyncIterator[Attribute]:
        heap, tree = self._dense(data, 2, "attribute")
        if heap is None or tree is None:
            return
        stored, records = await together(self.heaps.whole_heap(heap), self.heaps.records(tree, 8, 9))
        for record in records:
            # Its ID is one of the heap of all attributes that objects share, or of the object's own.
            holder = await self._shared_heap(12) if record[8] & 2 else stored
            body = await holder.get(record[:8])
            self.budget.spend(_MESSAGE + len(body))
            yield messages.attribute(body)

    async def _value(self, attribute: Attribute) -> Any:
        kind = (
            self._datatype(await self._shared(attribute.datatype, 3))
            if attribute.shared[0]
            else self._datatype(attribute.datatype)
        )
        space = (
            self._dataspace(await self._shared(attribute.dataspace, 1))
            if attribute.shared[1]
            else self._dataspace(attribute.dataspace)
        )
        if space.shape is None:
            return "" if kind.kind == "string" or kind.is_text else None
        if space.count * kind.size > min(LARGEST_ATTRIBUTE, len(attribute.data)):
            raise MetadataError(f"The attribute {attribute.name!r} is longer than its message.")
        reason = unsupported(kind)
        if reason:
            return Unsupported(reason)
        flat = await self.elements(kind, attribute.data, space.count, self.budget)
        return flat[0] if space.shape == () else _nested(flat, space.shape)

    # Elements

    async def elements(
        self, kind: Datatype, data: bytes | memoryview, count: int, budget: Budget
    ) -> list[Any]:
        """Return elements as Python values: numbers, texts, lists, and `Address` for references."""
        size = kind.size
        budget.spend(count * max(size, _VALUE))
        if kind.is_bool:
            return [value != 0 for value in bytes(data[:count])]
        if kind.dtype is not None:
            array = np.frombuffer(data, kind.dtype, count)
            values: list[Any] = (array.astype(str) if kind.dtype.kind in "mM" else array).tolist()
            return values
        parts = [data[at : at + size] for at in range(0, count * size, size)]
        match kind.kind:
            case "string":
                return [fixed_text(part, kind) for part in parts]
            case "reference":
                return [_reference(part, self.addressing.offsets) for part in parts]
            case "vlen":
                return await self._variable(kind, parts, budget)
            case "array":
                assert kind.base is not None  # noqa: S101 - for the type checker
                length = prod(kind.shape)
                inner = await self.elements(kind.base, data, count * length, budget)
                return [_nested(inner[at * length : (at + 1) * length], kind.shape) for at in range(count)]
            case "compound":
                columns = [
                    await self.elements(
                        member.datatype,
                        b"".join(
                            part[member.offset : member.offset + member.datatype.size] for part in parts
                        ),
                        count,
                        budget,
                    )
                    for member in kind.members
                ]
                return [list(row) for row in zip(*columns, strict=True)]
        raise MetadataError(f"Elements of the kind {kind.kind!r} are not supported.")

    async def _variable(self, kind: Datatype, parts: list[Any], budget: Budget) -> list[Any]:
        """Return variable-length texts or sequences, which are in global heaps."""
        assert kind.base is not None  # noqa: S101 - for the type checker
        entries = []
        for part in parts:
            cursor = self.heaps.cursor(part)
            length, address, index = cursor.number(4), cursor.address(), cursor.number(4)
            budget.spend(length * (1 if kind.is_text else kind.base.size))
            entries.append((length, address, index))
        addresses = dict.fromkeys(address for length, address, _ in entries if address and length)
        found = await together(*map(self.heaps.collection, addresses))
        collections = dict(zip(addresses, found, strict=True))
        values: list[Any] = []
        for length, address, index in entries:
            size = length * (1 if kind.is_text else kind.base.size)
            budget.spend(size)
            stored: bytes | memoryview = b""
            if address and length:
                stored = collections[address].get(index)
                if len(stored) < size:
                    raise MetadataError("A value of variable length is longer than what is stored of it.")
            if kind.is_text:
                values.append(messages.text_of(stored[:size]).partition("\0")[0])
            else:
                length = length if stored else 0
                values.append(await self.elements(kind.base, stored[:size], length, budget))
        return values


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
    return messages.text_of(text)


def _reference(data: bytes | memoryview, offsets: int) -> Address:
    address = Cursor(data, offsets).address()
    # Both zero and the undefined address stand for no object.
    return Address(address or None)


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    """Return a list of lists of a shape."""
    if len(shape) <= 1:
        return flat
    inner = prod(shape[1:])
    return [_nested(flat[at * inner : (at + 1) * inner], shape[1:]) for at in range(shape[0])]
