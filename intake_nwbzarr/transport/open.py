"""Open the transport of a location, or of a file that arrays are read from; fetch many objects at once."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from intake_nwbzarr.location.credentials import Secrets
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.options import canonical
from intake_nwbzarr.location.urls import file_url
from intake_nwbzarr.transport.answers import Fetched
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import check_process, gather, run

# A transport holds little more than its location; connections belong to the process.
MOST_TRANSPORTS = 1024

# A link of fsspec's that opens zip files itself.
_OF_ZIP = re.compile(r"(?:^|::)zip(?:::|://)")

_transports: OrderedDict[Hashable, Transport] = OrderedDict()
_lock = threading.Lock()

type Opener = Callable[[Location], Transport]
"""How a session's files are opened: `open_transport`, or what keeps, replays or records what is read."""


def open_transport(location: Location) -> Transport:
    """Return the transport of a location, one in a process for each identity; nothing is requested."""
    check_process()
    if location.store is not None:
        # Not cached: it would keep a store alive that may have a whole session in memory.
        return _new(location)
    key = location.cache_key
    with _lock:
        transport = _transports.get(key)
        if transport is not None:
            _transports.move_to_end(key)
            return transport
    transport = _new(location)
    with _lock:
        transport = _transports.setdefault(key, transport)
        while len(_transports) > MOST_TRANSPORTS:
            _transports.popitem(last=False)
    return transport


@dataclass(frozen=True)
class StoredFile:
    """A file in the state whose metadata document has an ETag, if known, as its lazy arrays read it."""

    location: Location
    etag: str | None = None

    @property
    def transport(self) -> Transport:
        """Return the location's own transport, looked up once, and again after access was refused."""
        # The identity is found from twenty environment variables and two files, which takes longer than
        # reading a small array from memory does.
        if self._transport.refused:
            vars(self).pop("_transport", None)
        return self._transport

    @cached_property
    def _transport(self) -> Transport:
        return open_transport(self.location).at(self.etag)

    def __reduce__(self) -> tuple[type[StoredFile], tuple[Location, str | None]]:
        return StoredFile, (self.location, self.etag)


def fetch_many(
    transport: Transport, keys: Sequence[str], *, limit: int | None = None
) -> list[Fetched | None]:
    """Get many objects at once, in the order of their keys; the first failure ends it all."""
    return run(gather([lambda key=key: transport.get(key, limit=limit) for key in keys]))  # type: ignore[misc]


def _new(location: Location) -> Transport:
    # Each engine is imported when it is first needed: local folders need neither the web nor fsspec.
    if location.option("hdf5"):
        if location.option("isolate") is not None:
            from intake_nwbzarr.transport.isolated import IsolatedTransport

            return IsolatedTransport(location, _stored(location))
        from intake_nwbzarr.transport.hdf5 import HDF5Transport

        return HDF5Transport(location, _stored(location))
    return _stored(location)


def _stored(location: Location) -> Transport:
    """Return the transport of what is stored at a location, whether or not it is HDF5."""
    if _is_archive(location):
        from intake_nwbzarr.transport.zip import ZipTransport

        folder, name = _container(location)
        return ZipTransport(location, _stored(folder), name)
    match location.scheme:
        case "file":
            from intake_nwbzarr.transport.local import LocalTransport

            return LocalTransport(location)
        case "http" | "https":
            from intake_nwbzarr.transport.web import HttpTransport

            return _cached(HttpTransport(location))
        case "s3":
            from intake_nwbzarr.transport.s3 import S3Transport

            return _cached(S3Transport(location))
        case "store":
            from zarr.storage import FsspecStore

            from intake_nwbzarr.transport.fsspec import FsspecTransport, StoreTransport

            return (FsspecTransport if isinstance(location.store, FsspecStore) else StoreTransport)(location)
        case _:
            from intake_nwbzarr.transport.fsspec import FsspecTransport

            return FsspecTransport(location)


def _cached(transport: Transport) -> Transport:
    if transport.location.option("chunk_cache") is None:
        return transport
    from intake_nwbzarr.transport.disk_cache import cached

    return cached(transport)


def _is_archive(location: Location) -> bool:
    """Return whether a location is a zip file of a store."""
    if not location.url.endswith(".zip") or location.scheme == "store" or _OF_ZIP.search(location.url):
        return False
    return location.path is None or not os.path.isdir(location.path)  # noqa: PTH112 (False for names too long)


def _container(location: Location) -> tuple[Location, str]:
    """Return the folder of a file, with the same options and secrets, and the file's key in it."""
    public = location.public
    if "session" in public.get("timeouts", {}):
        # The archive's time, which is not counted twice.
        public["timeouts"] = {name: value for name, value in public["timeouts"].items() if name != "session"}
        location = replace(location, options=canonical(public))
    if location.path is not None:
        # A link to an archive may lead anywhere: its user named it.
        file = Path(os.path.realpath(location.path))
        return replace(location, url=file_url(file.parent)), file.name
    start, separator, rest = location.url.rpartition("://")
    folder, _, name = rest.rpartition("/")
    secrets = location.secrets
    if secrets is not None and (given := secrets.reveal()) is not None and "url" in given:
        whole, _, _ = given["url"].rpartition("/")
        secrets = Secrets.keep({**given, "url": whole}, ships=secrets.ships)
    if location.scheme in {"http", "https"}:
        name = unquote(name)
    return replace(location, url=f"{start}{separator}{folder}", secrets=secrets), name
