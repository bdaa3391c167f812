"""What tests of conversions share: a comparison of two stores by zarr-python, and a session to convert."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from intake_nwbzarr import convert, open_hierarchy
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.checks.compare import Verification
from intake_nwbzarr.checks.verify import compare
from intake_nwbzarr.conversion.report import Conversion
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from tests.servers.s3_server import S3Server


def nodes(store: Path) -> dict[str, Any]:
    """What zarr-python reads of every group and array but the cached schemas."""
    found: dict[str, Any] = {}
    root = zarr.open_consolidated(str(store), mode="r")
    for path, node in [("", root), *root.members(max_depth=None)]:
        if path.startswith("specifications"):
            continue
        attributes = dict(node.attrs)
        links = {link["name"]: (link["source"], link["path"]) for link in attributes.pop("_LINKS", [])}
        # Names of dimensions that hdmf-zarr adds, which HDF5 and older releases have not.
        attributes.pop("_ARRAY_DIMENSIONS", None)
        stored: Any = None
        if isinstance(node, zarr.Array):
            stored = node.shape, node.metadata.to_dict()["data_type"], values(node)
        found[path] = attributes, links, stored
    return found


def values(array: zarr.Array[Any]) -> Any:
    """An array's values as something that compares equal, NaN included."""
    read = np.asarray(array[...])
    return read.astype(object).tolist() if read.dtype.kind in "OUT" else (read.dtype.str, read.tobytes())


def read_by_upstream(store: Path, source: Any) -> Verification:
    """Compare what plain NWBZarrIO reads from a store with what xarray shows of another location."""
    import xarray as xr
    from hdmf_zarr.nwb import NWBZarrIO

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = xr.open_datatree(source, engine="nwbzarr")
        with NWBZarrIO(str(store), mode="r") as io:
            return compare(io.read(), tree, open_hierarchy(source))


class Session:
    """A store with the root of a session, which a test fills with arrays and consolidates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        attributes = {"neurodata_type": "NWBFile", "namespace": "core", "nwb_version": "2.8.0"}
        self.root = zarr.create_group(path, attributes=attributes)

    def add(self, name: str, data: Any, **options: Any) -> zarr.Array[Any]:
        """Add an array."""
        return self.root.create_array(name, data=data, **options)

    def consolidated(self) -> Path:
        """Consolidate, and return the path."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self.path)
        return self.path


def opened(store: Path, name: str) -> zarr.Array[Any]:
    """An array as zarr-python opens it."""
    found = zarr.open_consolidated(str(store), mode="r")[name]
    assert isinstance(found, zarr.Array)
    return found


def files(array: zarr.Array[Any], store: Path) -> dict[str, bytes]:
    """The stored objects of an array but its metadata."""
    folder = store / array.path
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }


QUICK: dict[str, Any] = {"timeouts": {"stall": 5.0, "total": 30, "attempts": 3, "backoff": 0.01}}
SMALL: dict[str, Any] = {"chunk_mib": 0.001, "shard_mib": 0.004}
"""A thousand bytes a chunk, and four chunks a shard."""


class Stored:
    """A session in a private bucket, and a place in it to convert to."""

    def __init__(self, server: S3Server, source: Path) -> None:
        self.server, self.source = server, source
        self.options = server.signed_options | QUICK
        self.folder = source.parent.name
        self.url = f"s3://{server.private_bucket}/{self.folder}/a.nwb.zarr"
        self.target = f"s3://{server.private_bucket}/{self.folder}/b.nwb.zarr"
        self.upload()

    def upload(self) -> None:
        self.server.upload(self.server.private_bucket, f"{self.folder}/a.nwb.zarr", self.source)
        self.server.reset()

    def convert(self, target: Any = None, **keywords: Any) -> Conversion:
        """Convert it to a folder, or in the bucket."""
        place = self.target if target is None else target
        options = self.options if target is None else None
        return convert(
            self.url, place, self.options, destination_options=options, verify=True, **(SMALL | keywords)
        )

    def stored(self) -> set[str]:
        """The keys of the destination in the bucket."""
        transport = open_transport(locate(self.target, self.options))
        return {entry.key for entry in run(transport.list())}

    def read(self, name: str) -> Any:
        """An array in the destination in the bucket."""
        hierarchy = open_hierarchy(self.target, self.options)
        node = hierarchy[name]
        assert isinstance(node, ArrayNode)
        return StoredArray(hierarchy.file, node).read()
