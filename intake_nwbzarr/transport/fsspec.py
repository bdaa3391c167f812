"""Transports over fsspec file systems and over open zarr Stores."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    HostNotFoundError,
    ListingError,
    LocationError,
    MissingPackageError,
    ResponseError,
    TransportError,
)
from intake_nwbzarr.location.credentials import credentials_not_sent, unlogged
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.location.options import PACKAGE_OPTIONS
from intake_nwbzarr.transport.answers import Failure, Fetched, Folder, Listed, Part, Unchanged
from intake_nwbzarr.transport.base import Transport, too_large
from intake_nwbzarr.transport.request_log import record

_CACHES = frozenset({"blockcache", "cached", "filecache", "simplecache"})
# Errors that a retry does not change, unlike other OSErrors and those of HTTP libraries.
_FINAL = (TypeError, ValueError, LookupError, AttributeError, ImportError, RuntimeError)


class FsspecTransport(Transport):
    """A folder of any fsspec filesystem; its reads run on threads."""

    # fsspec's filesystems check little, so parts are compared with the object's size, which takes one more
    # request the first time a part of an object is read.

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        if location.store is not None:
            self._filesystem, self._root = _twin(location.store.fs), str(location.store.path).rstrip("/")
        else:
            url, options = _revealed(location)
            self._filesystem, self._root = _open_filesystem(url, options, location)
        self._sizes: dict[str, int] = {}
        self._origin = _origin(location)

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        outcome = await asyncio.to_thread(self._read, key, part, limit)
        if outcome is not None or self._origin is None or not key:
            return outcome
        # One attempt, within the request that is already counted in the budget.
        asked = await self._origin._get(key, Part(0, 1), 1)
        if isinstance(asked, Fetched):
            return Failure(
                TransportError, "the filesystem reports it as missing, but it exists", attempts=None
            )
        return asked

    def _read(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        path = self._path(key)
        start, stop = None, None
        try:
            if part is not None:
                size = self._size(path)
                if part.bounds(size) is None:
                    return Failure(
                        ResponseError, f"the object ends at {size} bytes, before the requested range"
                    )
                start, stop = part.bounds(size) or (0, 0)
            if start is not None and stop is not None and stop - start > limit:
                return too_large(stop - start, limit)
            record(self.counted, "get", requests=1)
            with unlogged():
                data = bytes(self._filesystem.cat_file(path, start=start, end=stop))
        except Exception as error:
            failure = _failure(error)
        else:
            record(self.counted, "get", received=len(data))
            if start is not None and stop is not None and len(data) != stop - start:
                return Failure(ResponseError, f"{len(data)} bytes arrived of {stop - start}", attempts=None)
            return (
                too_large(len(data), limit)
                if len(data) > limit
                else Fetched(data, None, self._sizes.get(path))
            )
        return failure

    async def _find(self, key: str, etag: str | None) -> Fetched | Unchanged | Failure | None:
        if self._origin is not None:
            return await self._origin._find(key, etag)
        return await asyncio.to_thread(self._first_byte, key)

    def _first_byte(self, key: str) -> Unchanged | Failure | None:
        # Not `exists`, which may be answered from an earlier listing.
        record(self.counted, "get", requests=1)
        try:
            self._filesystem.cat_file(self._path(key), start=0, end=1)
        except Exception as error:
            failure = _failure(error)
        else:
            return Unchanged()
        return failure

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if self._root else key

    def _size(self, path: str) -> int:
        if path not in self._sizes:
            record(self.counted, "get", requests=1)
            with unlogged():
                size = self._filesystem.info(path).get("size")
            if not isinstance(size, int):
                raise TypeError("the filesystem does not report the size of an object")
            self._sizes[path] = size
        return self._sizes[path]

    async def _list(self, prefix: str) -> list[Listed]:
        async def attempt() -> list[Listed] | Failure:
            return await asyncio.to_thread(self._files, prefix)

        return await self._persist("list", prefix, attempt)

    def _files(self, prefix: str) -> list[Listed] | Failure:
        record(self.counted, "list", requests=1)
        # Some filesystems name files with a leading slash, and some without.
        start = f"{self._root}/".lstrip("/")
        try:
            with unlogged():
                found = self._filesystem.find(self._path(prefix) if prefix else self._root, detail=True)
        except Exception as error:
            failure = _failure(error)
        else:
            return [
                Listed(path.lstrip("/").removeprefix(start), int(entry.get("size") or 0), None)
                for path, entry in found.items()
                if path.lstrip("/").startswith(start) and entry.get("type") != "directory"
            ]
        return [] if failure is None else failure

    async def _list_folder(self, folder: str) -> Folder:
        async def attempt() -> Folder | Failure:
            return await asyncio.to_thread(self._ls, folder)

        return await self._persist("list", folder, attempt)

    def _ls(self, folder: str) -> Folder | Failure:
        record(self.counted, "list", requests=1)
        try:
            with unlogged():
                found = self._filesystem.ls(self._path(folder) if folder else self._root, detail=True)
        except Exception as error:
            failure = _failure(error)
        else:
            kinds = {entry["name"].rstrip("/").rpartition("/")[2]: entry.get("type") for entry in found}
            return Folder(
                tuple(sorted(name for name, kind in kinds.items() if kind != "directory")),
                tuple(sorted(name for name, kind in kinds.items() if kind == "directory")),
            )
        return Folder((), ()) if failure is None else failure


class StoreTransport(Transport):
    """An open zarr Store, awaited on the package's event loop."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        if location.store is None:
            raise LocationError(
                f"{location} was an open zarr Store of another process.",
                location=location,
                next_step="Pass its path or URL.",
            )
        self._store = location.store

    async def _get(self, key: str, part: Part | None, limit: int) -> Fetched | Failure | None:
        from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
        from zarr.buffer import default_buffer_prototype

        wanted: Any = None
        if part is not None and part.suffix is not None:
            wanted = SuffixByteRequest(part.suffix)
        elif part is not None:
            start = part.start or 0
            wanted = OffsetByteRequest(start) if part.stop is None else RangeByteRequest(start, part.stop)
        record(self.counted, "get", requests=1)
        try:
            buffer = await self._store.get(key, default_buffer_prototype(), wanted)
        except Exception as error:
            failure = _failure(error)
        else:
            if buffer is None:
                return None
            data = buffer.to_bytes()
            record(self.counted, "get", received=len(data))
            if part is not None and part.stop is not None and len(data) != part.stop - (part.start or 0):
                return Failure(ResponseError, f"{len(data)} bytes arrived of {part.stop - (part.start or 0)}")
            return too_large(len(data), limit) if len(data) > limit else Fetched(data, None)
        return failure

    async def _list(self, prefix: str) -> list[Listed]:
        if not self._store.supports_listing:
            name = type(self._store).__name__
            raise ListingError(
                f"{self.location}, a {name}, cannot be listed.", location=self.location, found=name
            )

        async def attempt() -> list[Listed] | Failure:
            record(self.counted, "list", requests=1)
            try:
                return [
                    Listed(key, 0, None)
                    async for key in self._store.list_prefix(f"{prefix}/" if prefix else "")
                ]
            except Exception as error:
                failure = _failure(error)
            return [] if failure is None else failure

        return await self._persist("list", prefix, attempt)


def _revealed(location: Location) -> tuple[str, dict[str, Any]]:
    """Return the URL and options as they were given."""
    given = location.secrets.reveal() if location.secrets is not None else {}
    if given is None:
        raise credentials_not_sent(location.url)
    options = given.get(
        "options", {name: value for name, value in location.public.items() if name not in PACKAGE_OPTIONS}
    )
    return given.get("url", location.url), dict(options)


def _origin(location: Location) -> Transport | None:
    """Return the transport below a cache: fsspec's caches report every failure as "not found"."""
    if location.store is not None or not location.is_chain:
        return None
    url, options = _revealed(location)
    *caches, last = url.split("::")
    protocol = last.partition("://")[0].lower()
    if not caches or protocol not in {"http", "https", "s3"}:
        return None
    if not all(cache.partition("://")[0] in _CACHES for cache in caches):
        return None
    inner = dict(options.get(protocol, {}))
    if (given := location.option("timeouts")) is not None:
        inner["timeouts"] = given
    from intake_nwbzarr.transport.s3 import S3Transport
    from intake_nwbzarr.transport.web import HttpTransport

    origin = (S3Transport if protocol == "s3" else HttpTransport)(locate(last, inner))
    origin.counted = location.url
    return origin


def _open_filesystem(url: str, options: dict[str, Any], location: Location) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    problem, missing = "", None
    try:
        with unlogged():
            filesystem, path = url_to_fs(url, **options)
    except ImportError as error:
        missing = _missing_package(error)
    except Exception as error:
        problem = type(error).__name__
    else:
        if "?" not in str(path):
            return filesystem, str(path).rstrip("/")
        problem = "a query belongs to one object, not to a folder"
    if missing is not None:
        raise MissingPackageError(
            f"{location} needs a package that is not installed: {missing}", location=location, found=missing
        )
    raise LocationError(
        f"fsspec cannot open {location} with these storage options ({problem}).",
        location=location,
        found=problem,
        next_step="Check the URL's scheme and the options, and that the filesystem's package is installed.",
    )


def _missing_package(error: ImportError) -> str:
    """Return the package to install, by fsspec's registry, and the module that was not found."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    module = f"the module {cause.name} was not found" if cause.name else "a module was not found"
    # The registry's own words come with their cause; others may hold what a caller gave.
    advice = str(error).strip().rstrip(".") if error.__cause__ is not None and error.args[0] else ""
    return f"{advice} ({module})." if advice else f"{module}."


def _twin(filesystem: Any) -> Any:
    """Return a zarr Store's filesystem for threads: its own connections belong to zarr's event loop."""
    if not filesystem.asynchronous:
        return filesystem
    wrapped = getattr(filesystem, "sync_fs", None)
    if wrapped is not None:
        return wrapped
    options = {**filesystem.storage_options, "asynchronous": False}
    return type(filesystem)(*filesystem.storage_args, **options)


def _failure(error: Exception) -> Failure | None:
    """Return the failure for an exception of another library; None for an object that does not exist."""
    name = type(error).__name__
    match error:
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError():
            cause = error.__cause__
            if cause is None or _is_absence(cause):
                return None
            return Failure(TransportError, f"the filesystem failed ({type(cause).__name__})", attempts=None)
        case PermissionError():
            return Failure(
                AccessError,
                "access was denied",
                advice="Check the credentials and their permissions.",
            )
        case ImportError():
            return Failure(MissingPackageError, f"a package is not installed: {_missing_package(error)}")
        case _ if isinstance(error, _FINAL):
            return Failure(TransportError, f"the filesystem failed ({name})")
        case _ if _is_final(_status(error)):
            return Failure(TransportError, f"the filesystem failed ({name}, {_status(error)})")
        case _ if "DNS" in name or "EndpointConnection" in name:
            return Failure(
                HostNotFoundError,
                "the host does not resolve",
                attempts=2,
                advice="Check its name.",
                transient=False,
            )
        case _ if "Credentials" in name:
            return Failure(CredentialsError, f"the credentials cannot be used ({name})")
        case _:
            return Failure(TransportError, f"the filesystem failed ({name})", attempts=None)


def _is_absence(cause: BaseException) -> bool:
    """Return whether a FileNotFoundError means absence: fsspec's HTTP raises it for any failure."""
    if isinstance(cause, OSError | LookupError):
        return isinstance(cause, FileNotFoundError | IsADirectoryError | NotADirectoryError | LookupError)
    return _status(cause) == "404"


def _status(cause: BaseException) -> str:
    """Return the HTTP status that an exception of another library has, if any."""
    # Of aiohttp, Azure, Google and botocore, in this order.
    status = next(
        (getattr(cause, name) for name in ("status", "status_code", "code") if hasattr(cause, name)), None
    )
    response = getattr(cause, "response", None)
    if isinstance(response, Mapping):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", status)
    return str(status)


def _is_final(status: str) -> bool:
    return re.fullmatch("4[0-9][0-9]", status) is not None and status not in {"408", "429"}
