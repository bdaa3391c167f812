"""Groups of the older form: symbol tables of links, which a B-tree of version 1 and a local heap lead to."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.hdf5.elements import Budget
from intake_nwbzarr.hdf5.heaps import MOST_GUESSED, Heaps, check_distinct
from intake_nwbzarr.hdf5.messages import Link, Parts, text_of
from intake_nwbzarr.hdf5.source import Cursor, together
from intake_nwbzarr.untrusted_input import DEEPEST_TREE, MOST_NODES

LINK: Final = 64
"""Bytes of memory that a link takes at least."""

# Bytes of a node of a group's B-tree with HDF5's default of 32 children.
_GROUP_NODE: Final = 24 + 33 * 8 + 32 * 8

# An entry of a symbol table node, by the bytes of addresses.
_SYMBOL: Final = {2: Struct("<HHI4x16s"), 4: Struct("<III4x16s"), 8: Struct("<QQI4x16s")}


@dataclass(frozen=True)
class Symbols:
    """The links of a symbol table, and whether they are all."""

    parts: Parts
    links: list[Link]
    whole: bool


def parts_of(heaps: Heaps, data: bytes | memoryview) -> Parts:
    """Return where the B-tree and the local heap of a group are."""
    cursor = heaps.cursor(data)
    tree, heap = cursor.address(), cursor.address()
    return None if tree is None or heap is None else (tree, heap)


async def read_symbols(heaps: Heaps, budget: Budget, parts: Parts, only: str | None) -> Symbols:
    """Return the links of a symbol table, or those beside the one of a name (sections III.B and III.C)."""
    if parts is None:
        return Symbols(parts, [], True)
    tree, heap = parts
    if only is None:
        names, nodes = await together(_local_heap(heaps, heap), _nodes(heaps, tree))
    else:
        names, _ = await together(_local_heap(heaps, heap), _want_children(heaps, tree))
        node = await _node_of(heaps, tree, names, only.encode("utf-8", "replace"))
        nodes = [] if node is None else [node]
    links: list[Link] = []
    form = _SYMBOL[heaps.addressing.offsets]
    # A node has eight entries, unless the file was created with another number.
    heaps.want((node, 8 + 8 * form.size) for node in nodes)
    budget.spend(LINK * len(nodes))
    for node in nodes:
        cursor = heaps.cursor(await heaps.read(node, 8))
        cursor.expect(b"SNOD")
        cursor.take(2)
        entries = await heaps.read(node, 8 + cursor.number(2) * form.size)
        for name, target, kind, scratch in form.iter_unpack(entries[8:]):
            text = text_of(Cursor(names, at=name).text())
            budget.spend(LINK + len(text))
            if kind == 2:
                path = Cursor(names, at=int.from_bytes(scratch[:4], "little")).text()
                links.append(Link(text, path=text_of(path)))
            else:
                own = parts_of(heaps, scratch) if kind == 1 else None
                links.append(Link(text, heaps.addressing.defined(target), parts=own))
    return Symbols(parts, links, only is None)


async def _local_heap(heaps: Heaps, address: int) -> memoryview:
    """Return the data of a local heap (section III.D), in which names begin at offsets."""
    lengths, offsets = heaps.addressing.lengths, heaps.addressing.offsets
    cursor = heaps.cursor(await heaps.read(address, 8 + 2 * lengths + offsets))
    cursor.expect(b"HEAP")
    cursor.take(4)
    size = cursor.length()
    cursor.length()
    data = cursor.address()
    if data is None:
        raise MetadataError("A local heap has no data.")
    return await heaps.read(data, size, alone=True)


# B-trees of version 1 (section III.A.1)


async def _nodes(heaps: Heaps, address: int) -> list[int]:
    """Return the addresses of the symbol table nodes of a group."""
    level = [address]
    seen = {address}
    expected: int | None = None
    for _ in range(DEEPEST_TREE):
        found: list[int] = []
        below: int | None = None
        heaps.want((node, _GROUP_NODE) for node in level)
        for node in level:
            depth, children, _ = await _keyed_node(heaps, node)
            if expected not in {None, depth}:
                raise MetadataError("A B-tree of a group is damaged: its levels do not descend.")
            below = depth
            found += children
            if len(found) > MOST_NODES:
                raise LimitError(f"A group has more than {MOST_NODES:,} members.", expected=MOST_NODES)
        check_distinct(found, seen)
        if not below:
            return found
        level, expected = found, below - 1
    raise MetadataError("A B-tree of a group is damaged: it has no leaves.")


async def _node_of(heaps: Heaps, address: int, names: memoryview, name: bytes) -> int | None:
    """Return the address of the symbol table node of a group that has a name, if any has; one a level."""
    for _ in range(DEEPEST_TREE):
        level, children, last_names = await _keyed_node(heaps, address)
        # Names of a child are up to the one whose offset in the heap follows its address.
        found = next(
            (
                child
                for child, offset in zip(children, last_names, strict=True)
                if name <= Cursor(names, at=offset).text()
            ),
            None,
        )
        if found is None or not level:
            return found
        address = found
    raise MetadataError("A B-tree of a group is damaged: it has no leaves.")


async def _want_children(heaps: Heaps, tree: int) -> None:
    """Have the children of a B-tree's root fetched along with the names that tell which one is needed."""
    _, children, _ = await _keyed_node(heaps, tree)
    if len(children) <= MOST_GUESSED:
        heaps.want((child, _GROUP_NODE) for child in children)


async def _keyed_node(heaps: Heaps, address: int) -> tuple[int, list[int], list[int]]:
    """Return the level of a node, its children, and where their last names begin in the heap."""
    lengths, offsets = heaps.addressing.lengths, heaps.addressing.offsets
    head = 8 + 2 * offsets
    heaps.want([(address, _GROUP_NODE)])
    cursor = heaps.cursor(await heaps.read(address, head, alone=True))
    cursor.expect(b"TREE")
    if cursor.number(1) != 0:
        raise MetadataError("A B-tree of a group is of another kind.")
    level, used = cursor.number(1), cursor.number(2)
    size = head + used * (lengths + offsets) + lengths
    cursor = heaps.cursor(await heaps.read(address, size, alone=True))
    cursor.take(head)
    children, keys = [], []
    cursor.length()
    for _ in range(used):
        child, key = cursor.address(), cursor.length()
        if child is not None:
            children.append(child)
            keys.append(key)
    return level, children, keys
