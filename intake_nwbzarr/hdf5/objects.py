"""Objects of an HDF5 file: groups with their links, datasets with their layout, and attributes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Any, Final, NamedTuple

from intake_nwbzarr.errors import LimitError, MetadataError, NotZarrError
from intake_nwbzarr.hdf5 import messages
from intake_nwbzarr.hdf5.elements import Budget, Decoder, Unsupported, decode_with_heaps, nested
from intake_nwbzarr.hdf5.heaps import (
    MOST_GUESSED,
    Addressing,
    FractalHeap,
    Heaps,
    check_distinct,
    hash_of,
    verify_checksum,
)
from intake_nwbzarr.hdf5.messages import (
    Attribute,
    Dataspace,
    Datatype,
    Filter,
    Layout,
    Link,
    Parts,
    unsupported,
)
from intake_nwbzarr.hdf5.source import Cursor, Source, together
from intake_nwbzarr.hdf5.symbols import LINK, Symbols, parts_of, read_symbols
from intake_nwbzarr.untrusted_input import (
    LARGEST_ATTRIBUTE,
    LARGEST_USER_BLOCK,
    MOST_CONTINUATIONS,
    MOST_DECODED,
    MOST_MESSAGES,
    MOST_NODES,
)

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

# Bytes of an object header that are usually enough for all of it.
_HEADER: Final = 512

# Bytes of texts that are fetched along with the metadata.
_SHORT: Final = 64 * 2**10

# Bytes of memory that a message takes at least.
_MESSAGE: Final = 32


@dataclass
class Group:
    """A group."""

    address: int
    attributes: dict[str, Any] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    # Whether these are all links of the group, and not those beside one that was looked up.
    whole: bool = True
    # How many hard links lead to the group.
    names: int = 1


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
    # How many hard links lead to the dataset.
    names: int = 1


@dataclass(frozen=True)
class NamedType:
    """A committed datatype, which is no part of the data."""

    address: int
    names: int = 1


type Object = Group | Dataset | NamedType


type Follow = Callable[[list[Link]], None]


class _Message(NamedTuple):
    kind: int
    flags: int
    data: memoryview


@dataclass
class _Header:
    """An object header: its messages, and the blocks that they are in."""

    # How the kind, size and flags of a message are stored, and how many bytes a block has beside messages.
    form: Struct
    around: int
    # How many messages there may still be, those that are not kept included.
    left: int
    # The address of each block, where its messages begin, and how many bytes they have.
    blocks: list[tuple[int, int, int]]
    # How many hard links lead to the object.
    names: int = 1
    messages: list[_Message] = field(default_factory=list)


_OLD_HEADER: Final = Struct("<2xHII")
_OLD_MESSAGE, _NEW_MESSAGE, _ORDERED_MESSAGE = Struct("<HHB3x"), Struct("<BHB"), Struct("<BHB2x")


class Objects:
    """Reads the objects of a file by their addresses."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.heaps = Heaps(source, Addressing(8, 8, 0))
        self.root: int | None = None
        self.root_parts: Parts = None
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
        head = Cursor(await self.source.read(base, min(104, self.source.size - base)), at=8)
        version = head.number(1)
        if version in {0, 1}:
            head.take(4)
            offsets, lengths = head.number(1), head.number(1)
            self._set_sizes(offsets, lengths)
            head.take(9 + (4 if version else 0))
            head.offsets = offsets
            stored, _, end = head.address(), head.address(), head.address()
            # The entry of the root group is like one in a symbol table node.
            head.take(2 * offsets)
            self.root, kind = head.address(), head.number(4)
            head.take(4)
            self.root_parts = parts_of(self.heaps, head.take(16)) if kind == 1 else None
        elif version in {2, 3}:
            offsets, lengths = head.number(1), head.number(1)
            self._set_sizes(offsets, lengths)
            head.offsets = offsets
            # Bit 0: a writer has it open, or ended early; bit 2: one that keeps it readable (SWMR).
            if head.number(1) & 5 == 1 and version == 3:
                raise MetadataError(
                    "It is open for writing, or was not closed: what was written last may be missing.",
                    next_step="Close it, or have h5clear -s mark it as closed.",
                )
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

    async def read(
        self, address: int, parts: Parts = None, only: str | None = None, follow: Follow | None = None
    ) -> Object:
        """Read the object whose header is at an address; of a large group, with the link of a name only.

        The links of a group are passed to `follow` as soon as they are known: before its header is, if the
        link that leads to it has told its `parts`.
        """
        known = None
        if parts is None:
            header = await self._header(address)
        else:
            header, known = await together(self._header(address), self._try_symbols(parts, only, follow))
        found = header.messages
        kinds = {message.kind for message in found}
        if {1, 3, 8} <= kinds:
            return await self._dataset(address, header)
        if kinds & {2, 6, 10, 17}:
            return await self._group(address, header, only, follow, known)
        if 3 in kinds:
            return NamedType(address, header.names)
        if 1 in kinds or 8 in kinds:
            raise MetadataError("A dataset has no dataspace, datatype or layout.")
        # A group without members may have no message that tells so.
        return await self._group(address, header, only, follow, known)

    # Object headers (section IV.A.1)

    async def _header(self, address: int) -> _Header:
        head = await self.heaps.read_at_most(address, _HEADER)
        is_new = bytes(head[:4]) == b"OHDR"
        header = self._new_header(address, head) if is_new else self._old_header(address, head)
        visited: set[int] = set()
        for number in range(MOST_CONTINUATIONS):
            if number >= len(header.blocks):
                return header
            start, at, size = header.blocks[number]
            check_distinct([start], visited)
            whole = at + size + (4 if is_new else 0)
            block = await self.heaps.read(start, whole)
            if is_new:
                verify_checksum(block)
                if number and bytes(block[:4]) != b"OCHK":
                    raise MetadataError("A block of an object header has another signature.")
            self._add_messages(header, block[at : at + size])
        raise LimitError("An object header has too many blocks.", expected=MOST_CONTINUATIONS)

    def _old_header(self, address: int, head: memoryview) -> _Header:
        if len(head) < 16 or head[0] != 1:
            raise MetadataError("No object has its header there.", found=address)
        count, names, size = _OLD_HEADER.unpack_from(head)
        return _Header(_OLD_MESSAGE, 0, count, [(address + 16, 0, size)], names)

    def _new_header(self, address: int, head: memoryview) -> _Header:
        cursor = self.heaps.cursor(head)
        cursor.expect(b"OHDR")
        version, flags = cursor.number(1), cursor.number(1)
        if version != 2:
            raise MetadataError(f"An object header has the unknown version {version}.", found=version)
        cursor.take((16 if flags & 32 else 0) + (4 if flags & 16 else 0))
        size = cursor.number(1 << (flags & 3))
        form = _ORDERED_MESSAGE if flags & 4 else _NEW_MESSAGE
        return _Header(form, 8, MOST_MESSAGES, [(address, cursor.at, size)])

    def _add_messages(self, header: _Header, data: memoryview) -> None:
        """Add the messages in one block of an object header."""
        form, at, size = header.form, 0, header.form.size
        while header.left and at + size <= len(data):
            kind, length, flags = form.unpack_from(data, at)
            at += size
            stop = at + length
            if stop > len(data):
                raise MetadataError("A message of an object header ends after its block.", found=stop)
            body, at = data[at:stop], stop
            header.left -= 1
            if kind == 16:
                start, whole = self._continuation(body)
                if whole < header.around:
                    raise MetadataError("A block of an object header is too short.")
                header.blocks.append((start, header.around // 2, whole - header.around))
            elif kind == 22:
                header.names = int.from_bytes(body[1:5], "little")
            elif kind:
                self.budget.spend(_MESSAGE)
                header.messages.append(_Message(kind, flags, body))
        # An older header says how many messages it has.
        if header.around and not header.left:
            raise LimitError("An object header has too many messages.", expected=MOST_MESSAGES)

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
        for message in (await self._header(address)).messages:
            if message.kind == kind and not message.flags & 2:
                return self._found.setdefault(key, message.data)
        raise MetadataError("A shared message is missing.")

    async def _shared_heap(self, kind: int) -> FractalHeap:
        """Return the heap of the messages of a kind that objects share."""
        if self._shared_heaps is None:
            extension = [] if self._extension is None else (await self._header(self._extension)).messages
            tables = await together(*(self.heaps.shared(each.data) for each in extension if each.kind == 15))
            self._shared_heaps = tables[0] if tables else {}
        # Both kinds of fill values have one index.
        heap = self._shared_heaps.get(5 if kind == 4 else kind)
        if heap is None:
            raise MetadataError(f"No table of shared messages has those of the kind {kind}.", found=kind)
        return heap

    # Groups

    async def _group(
        self, address: int, header: _Header, only: str | None, follow: Follow | None, known: Symbols | None
    ) -> Group:
        (links, whole), attributes = await together(
            self._links(header.messages, only, follow, known), self._attributes(header.messages)
        )
        return Group(address, attributes, links, whole, header.names)

    async def _links(
        self, found: list[_Message], only: str | None, follow: Follow | None, known: Symbols | None
    ) -> tuple[list[Link], bool]:
        links: list[Link] = []
        whole = True
        for message in found:
            match message.kind:
                case 17:
                    parts = parts_of(self.heaps, message.data)
                    if known is None or known.parts != parts:
                        known = await read_symbols(self.heaps, self.budget, parts, only)
                    links += known.links
                    whole = known.whole
                case 6:
                    self.budget.spend(LINK + len(message.data))
                    links.append(messages.link(message.data, self.addressing.offsets))
                case 2:
                    dense, whole = await self._dense_links(message.data, only)
                    links += dense
        names = {link.name for link in links}
        if len(names) < len(links) or not names.isdisjoint({"", "."}) or any("/" in name for name in names):
            raise MetadataError("A group has members without names of their own.")
        if follow is not None:
            follow(links)
        return links, whole

    async def _try_symbols(self, parts: Parts, only: str | None, follow: Follow | None) -> Symbols | None:
        """Return the links of a symbol table that a link to the group refers to, None if it is damaged."""
        with suppress(MetadataError, LimitError):
            known = await read_symbols(self.heaps, self.budget, parts, only)
            if follow is not None:
                follow(known.links)
            return known
        return None

    async def _dense_links(self, data: memoryview, only: str | None) -> tuple[list[Link], bool]:
        """Return links of a group that are in a fractal heap, and whether they are all."""
        heap, tree = self._dense(data, 8, "link")
        if heap is None or tree is None:
            return [], True
        wanted = None if only is None else hash_of(only.encode("utf-8", "replace"))
        stored, records = await together(
            self.heaps.whole_heap(heap, MOST_NODES if only is None else MOST_GUESSED),
            self.heaps.records(tree, 5, 5, wanted),
        )
        links: list[Link] = []
        for record in records:
            if wanted is not None and int.from_bytes(record[:4], "little") != wanted:
                continue
            body = await stored.get(record[4:])
            self.budget.spend(LINK + len(body))
            links.append(messages.link(body, self.addressing.offsets))
        return links, only is None

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

    async def _dataset(self, address: int, header: _Header) -> Dataset:
        bodies: dict[int, bytes | memoryview] = {}
        for message in header.messages:
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
            fill_value = (await self.elements(kind, fill, 1))[0]
        return Dataset(
            address,
            space,
            kind,
            layout,
            fill,
            fill_value,
            messages.filters(bodies[11]) if 11 in bodies else (),
            external=7 in bodies,
            attributes=await self._attributes(header.messages),
            names=header.names,
        )

    async def elements(
        self, kind: Datatype, data: bytes | memoryview, count: int, budget: Budget | None = None
    ) -> list[Any]:
        """Return elements as Python values, after fetching the global heaps that they refer to."""
        return await decode_with_heaps(
            self.heaps, budget or self.budget, lambda decoder: decoder.decode(kind, data, count)
        )

    async def try_elements(self, kind: Datatype, address: int, count: int) -> None:
        """Have elements, and the global heaps that they refer to, fetched if they are short."""
        with suppress(MetadataError, LimitError):
            data = await self.heaps.read(address, count * kind.size, alone=True)
            await self.elements(kind, data, count, Budget(_SHORT))

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
        described = [await self._described(attribute) for attribute in attributes]
        return await decode_with_heaps(
            self.heaps,
            self.budget,
            lambda decoder: {
                attribute.name: _value(attribute, kind, space, decoder)
                for attribute, kind, space in described
            },
        )

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

    async def _described(self, attribute: Attribute) -> tuple[Attribute, Datatype, Dataspace]:
        """Return an attribute with its datatype and dataspace, which other objects may have."""
        kind, space = attribute.datatype, attribute.dataspace
        if attribute.shared[0]:
            kind = await self._shared(kind, 3)
        if attribute.shared[1]:
            space = await self._shared(space, 1)
        return attribute, self._datatype(kind), self._dataspace(space)


def _value(attribute: Attribute, kind: Datatype, space: Dataspace, decoder: Decoder) -> Any:
    if space.shape is None:
        return "" if kind.kind == "string" or kind.is_text else None
    if space.count * kind.size > min(LARGEST_ATTRIBUTE, len(attribute.data)):
        raise MetadataError(f"The attribute {attribute.name!r} is longer than its message.")
    reason = unsupported(kind)
    if reason:
        return Unsupported(reason)
    flat = decoder.decode(kind, attribute.data, space.count)
    return flat[0] if space.shape == () else nested(flat, space.shape)
