"""Reading the objects of an HDF5 file from its root group on: all of them, or those that one needs."""

from __future__ import annotations

from intake_nwbzarr.errors import LimitError, MetadataError
from intake_nwbzarr.hdf5.documents import is_needed
from intake_nwbzarr.hdf5.messages import Link, Parts
from intake_nwbzarr.hdf5.objects import Dataset, Object, Objects
from intake_nwbzarr.hdf5.source import BLOCK
from intake_nwbzarr.untrusted_input import MOST_NODES


class Walk:
    """Reads objects, each as soon as a link to it is known; `found` has them by address.

    Parameters
    ----------
    objects
        Of the file, not opened yet.
    group
        The path of the object that will be opened, "" to read all objects.
    """

    def __init__(self, objects: Objects, group: str) -> None:
        self.objects = objects
        self.group = group
        # Why an object cannot be read stands in its place.
        self.found: dict[int, Object | MetadataError] = {}
        # Whether one of the objects has several names, of which only all links tell the shortest one.
        self.has_several_names = False
        self._too_many = False

    async def run(self) -> None:
        """Read the superblock, and start reading the objects."""
        await self.objects.open()
        assert self.objects.root is not None  # noqa: S101 - for the type checker
        self._start(self.objects.root, "", self.objects.root_parts)

    def check(self) -> None:
        """Raise the error of a file that cannot be read at all."""
        if self._too_many:
            raise LimitError(f"It has more than {MOST_NODES:,} objects.", expected=MOST_NODES)
        root = self.found.get(self.objects.root or 0)
        if isinstance(root, MetadataError):
            raise root

    def _start(self, address: int, path: str, parts: Parts) -> None:
        self.found[address] = MetadataError("It was not read.")
        self.objects.source.start(self._visit(address, path, parts))

    async def _visit(self, address: int, path: str, parts: Parts) -> None:
        # Of a large group that holds it, the link that leads to the object is looked up.
        holds = path not in {"", "general"} and self.group.startswith(f"{path}/")
        only = self.group[len(path) + 1 :].partition("/")[0] if holds else None
        try:
            item = await self.objects.read(address, parts, only, lambda links: self._follow(path, links))
        except (MetadataError, LimitError) as error:
            self.found[address] = MetadataError(str(error))
            return
        self.found[address] = item
        if self.group and path and item.names > 1:
            self.has_several_names = True
        # Schemas are long and mostly not read.
        if isinstance(item, Dataset) and not path.startswith("specifications/"):
            self._fetch_values(item)

    def _follow(self, path: str, links: list[Link]) -> None:
        for link in links:
            child = f"{path}/{link.name}" if path else link.name
            if link.address is None or link.address in self.found:
                continue
            if self.group and not is_needed(child, self.group):
                continue
            if len(self.found) > MOST_NODES:
                self._too_many = True
                return
            self._start(link.address, child, link.parts)

    def _fetch_values(self, dataset: Dataset) -> None:
        """Have scalars and short texts fetched along with the metadata, which opening a session reads."""
        kind, layout, count = dataset.datatype, dataset.layout, dataset.dataspace.count
        size = count * kind.size
        if layout.kind != "contiguous" or layout.address is None or dataset.external:
            return
        if kind.dtype is None and 0 < size <= BLOCK:
            self.objects.source.start(self.objects.try_elements(kind, layout.address, count))
        elif count == 1:
            self.objects.heaps.want([(layout.address, size)])
