"""The location of a session: URL or path, storage options and identity, with secrets masked."""

from __future__ import annotations

import json
import os
import re
import secrets as randomness
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

from intake_nwbzarr.arguments import describe_value, invalid_argument, takes_storage_options
from intake_nwbzarr.errors import LinkError, LocationError
from intake_nwbzarr.location.credentials import Secrets, ambient_identity
from intake_nwbzarr.location.options import PACKAGE_OPTIONS, canonical, checked_options, split_options
from intake_nwbzarr.location.urls import (
    PATH_SAFE,
    PLAIN,
    SCHEME,
    canonical_bucket,
    canonical_chain,
    canonical_http,
    check_page,
    check_path,
    check_schemes,
    file_url,
    is_encodable,
    normalized,
    path_of,
    protocol_of,
    redact,
    split_url,
)

if TYPE_CHECKING:
    from zarr.abc.store import Store

type Place = str | os.PathLike[str] | Location | Store

_SIGNED = re.compile(r"[?&][^=&/]*(?:x-amz-|key|sig|token|secret|passw|cred|auth)[^=&/]*=", re.IGNORECASE)
_LINKED_SCHEMES = frozenset({"file", "http", "https", "s3"})

# Locations that the user of this process, or one of their pickles, has named: a Dataset's attributes can
# reopen only these.
MOST_KNOWN = 10_000
_KNOWN: OrderedDict[tuple[str, str, str | None], Location] = OrderedDict()
_STORES: WeakValueDictionary[str, Any] = WeakValueDictionary()


@dataclass(frozen=True)
class Location:
    """The location of a session, as `locate` returns it: comparable, hashable, and without secrets."""

    # Canonical, without secrets and without a trailing slash: file:///data/a.nwb.zarr, s3://bucket/a.nwb.zarr,
    # any fsspec URL, or store://<id> for an open zarr Store.
    url: str
    # Storage options that are not secrets, as JSON.
    options: str = "{}"
    # A handle of those that are, which stay in the process that they were passed to.
    secrets: Secrets | None = None
    store: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, ...]:
        if self.store is not None and not self.option("ship_credentials"):
            raise LocationError(
                f"{self.url} is an open zarr Store, which is not sent to other processes: it may contain "
                "secrets.",
                location=self.url,
                next_step="Pass its URL instead, or storage_options={'ship_credentials': True} to send it.",
            )
        return _restore, (self.url, self.options, self.secrets, self.store)

    def __copy__(self) -> Location:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Location:
        # Locations are immutable, and a copy of an open store would be another store.
        return self

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return "intake_nwbzarr.Location", self.url, canonical(_filesystem_options(self.public))

    @property
    def public(self) -> dict[str, Any]:
        """Return the storage options that are not secrets."""
        return cast("dict[str, Any]", json.loads(self.options))

    def option(self, name: str) -> Any:
        """Return one of the public storage options, None where it was not given."""
        return self.public.get(name)

    @property
    def scheme(self) -> str:
        """Return the URL scheme: ``file``, ``http``, ``https``, ``s3``, ``store``, or fsspec's first one."""
        return self.url.partition("://")[0].partition("::")[0]

    @property
    def is_chain(self) -> bool:
        """Return whether the URL is an fsspec chain; a plain URL may have ``::`` in its path."""
        return self.scheme not in PLAIN and "::" in self.url

    @property
    def path(self) -> Path | None:
        """Return the local path, None for a location that is not on a local filesystem."""
        return Path(path_of(self.url)) if self.scheme == "file" else None

    @property
    def cache_key(self) -> Hashable:
        """Return a key of location and identity, so that cached data are never served to another identity."""
        ambient = None if self.scheme in {"file", "http", "https", "store", "memory"} else ambient_identity()
        return self.url, self.options, self.secrets, ambient

    @property
    def uncached(self) -> Location:
        """Return the same location without a chunk cache, to see the present state or to read everything."""
        public = self.public
        dropped = {"chunk_cache", "consolidated", "revalidate"}
        kept = {name: value for name, value in public.items() if name not in dropped}
        return self if kept == public else replace(self, options=canonical(kept))

    def read_consolidated(self, consolidated: bool | None) -> Location:
        """Return the location with the option `consolidated`, which None leaves unchanged."""
        if not isinstance(consolidated, bool | None):
            raise invalid_argument("consolidated", consolidated, "True, False or None")
        if consolidated is None:
            return self
        return _remember(replace(self, options=canonical(self.public | {"consolidated": consolidated})))

    @property
    def is_hdf5(self) -> bool:
        """Return whether the location is known to be an HDF5 file."""
        return self.option("hdf5") is True

    @property
    def as_hdf5(self) -> Location:
        """Return the location of a file that is known to be HDF5."""
        return _remember(replace(self, options=canonical(self.public | {"hdf5": True})))

    @property
    def as_file(self) -> Location:
        """Return the location of a file as it is stored, though it may be HDF5."""
        kept = {name: value for name, value in self.public.items() if name != "hdf5"}
        return replace(self, options=canonical(kept))

    def finished_within(self, seconds: float) -> Location:
        """Return the location with a time limit for all requests to the session together."""
        public = self.public
        # A shorter one that was given for the location holds.
        limits = {"session": seconds} | public.get("timeouts", {})
        timeouts = limits | {"session": min(limits["session"], seconds)}
        return _remember(replace(self, options=canonical(public | {"timeouts": timeouts})))

    def attributes(self) -> dict[str, str]:
        """Return the Dataset attributes from which `from_attributes` finds the location."""
        options = self.public
        if self.secrets is not None:
            options["credentials"] = self.secrets.handle
        return {"nwb_location": self.url} | ({"nwb_storage_options": canonical(options)} if options else {})

    @classmethod
    def from_attributes(cls, attrs: Mapping[Any, Any]) -> Location:
        """Return the location that a Dataset's attributes name, if this process has opened it."""
        # Attributes are data, possibly from an untrusted file, and must not choose what is opened or with
        # which credentials. So only a location that the user or a pickle named here, with the same options,
        # is returned.
        url, text = attrs.get("nwb_location"), attrs.get("nwb_storage_options", "{}")
        options: Any = None
        if isinstance(url, str) and isinstance(text, str):
            try:
                options = json.loads(text)
            except ValueError:
                options = None
        if not isinstance(url, str) or not isinstance(options, dict):
            raise LocationError(
                "The attributes do not name an NWB file: nwb_location or nwb_storage_options is missing or "
                "not valid.",
                found=sorted({"nwb_location", "nwb_storage_options"} & attrs.keys()),
                expected=["nwb_location", "nwb_storage_options"],
            )
        handle = options.pop("credentials", None)
        known = _KNOWN.get((url, canonical(options), handle)) if isinstance(handle, str | None) else None
        if known is not None:
            return _remember(known)
        if (store := _STORES.get(url)) is not None:
            return locate(store, options)
        raise LocationError(
            f"The attributes of this Dataset name {redact(url)}, which was not opened in this process. A "
            "Dataset's attributes alone cannot choose which files or credentials are used.",
            location=redact(url),
            next_step="If you trust them, open the session with "
            f"intake_nwbzarr.open_nwb({redact(url)!r}), or xarray.open_dataset(..., engine='nwbzarr'), and "
            "the storage_options that it needs.",
        )

    def link_target(self, source: str) -> str:
        """Return the URL that an external link's `source` names, also one that must not be followed."""
        base, path = split_url(self.url)
        elsewhere, target = (base, path) if source in {"", "."} else _resolve_source(self, base, path, source)
        if target == path and elsewhere == base:
            return self.url
        if elsewhere is None or target is None:
            raise LinkError(
                f"{self.url} links to {source!r}, which is not a valid target of an external link.",
                location=self.url,
                found=source,
                expected="a relative path, or an https or s3 URL",
            )
        return (
            elsewhere + "/".join(["", *target]) if elsewhere != "file://" else "file:///" + "/".join(target)
        )

    def sibling(self, source: str) -> Location:
        """Return the location of the file that an external link's `source` names, relative to this one."""
        # Only files below the parent folder, unless allow_external is set. Even then a remote file cannot
        # link to a local one, and credentials are not sent to another bucket or host.
        url = self.link_target(source)
        if url == self.url:
            return self
        base, path = split_url(self.url)
        elsewhere, target = split_url(url)
        if self.secrets is not None and "url" in (self.secrets.reveal() or {}):
            raise LinkError(
                f"{self.url} links to {source!r}: external links are not followed from a chained URL that "
                "contains secrets.",
                location=self.url,
                found=source,
            )
        parent = path[:-1]
        inside = (
            elsewhere == base and bool(path) and target[: len(parent)] == parent and len(target) > len(parent)
        )
        if inside and self.scheme == "file":
            folder = Path(path_of(f"{base}/{'/'.join(parent)}"))
            inside = Path(path_of(url)).resolve().is_relative_to(folder.resolve())
        if not inside and not self.option("allow_external"):
            raise LinkError(
                f"{self.url} links to {source!r}, which is outside its parent folder.",
                location=self.url,
                found=source,
                next_step="Pass storage_options={'allow_external': True} to follow such links.",
            )
        # Whether this file is HDF5 says nothing of others.
        file = self.as_file
        if elsewhere == base:
            return _remember(replace(file, url=url))
        public = {name: value for name, value in file.public.items() if name in PACKAGE_OPTIONS}
        return locate(url, public | ({"anon": True} if url.startswith("s3://") else {}))


@takes_storage_options
def locate(location: Place, storage_options: Mapping[str, Any] | None = None) -> Location:
    """Return the `Location` of a path, URL or store.

    Parameters
    ----------
    location
        A local path, a URL (``https``, ``http``, ``s3``, or any that fsspec supports, including chained
        URLs), a ``.zip`` file of a store at either, an open zarr Store, or a Location.
    storage_options
        Named as in s3fs: ``anon``, ``key``, ``secret``, ``token``, ``profile``, ``endpoint_url``,
        ``client_kwargs`` (``endpoint_url``, ``region_name``, ``verify``), ``requester_pays``, ``use_ssl``;
        ``headers`` for https; and ``verify``, ``instance_role``, ``addressing_style``, ``allow_external``,
        ``ship_credentials``, ``timeouts`` (see `intake_nwbzarr.location.options.Timeouts`), ``isolate`` (see
        `intake_nwbzarr.location.options.Isolation`), ``chunk_cache`` and ``revalidate`` (see
        `intake_nwbzarr.location.options`), ``consolidated`` (as the keyword of `xarray.open_dataset`).

    Raises
    ------
    LocationError
        When the location or a storage option is not valid.
    CredentialsError
        When credentials are incomplete, or two identities are given.

    Examples
    --------
    >>> str(locate("s3://dandiarchive/zarr/c8c6b848/", {"anon": True}))
    's3://dandiarchive/zarr/c8c6b848'
    >>> str(locate("https://me:password@example.org/a%20b.nwb.zarr/?signature=0123"))
    'https://example.org/a%20b.nwb.zarr'
    """
    return _remember(parse_location(location, storage_options))


def parse_location(location: Place, storage_options: Mapping[str, Any] | None = None) -> Location:
    """Return a `Location` as `locate` does, for one that data name: Dataset attributes cannot reopen it."""
    options = checked_options(storage_options)
    if isinstance(location, Location):
        if options:
            raise LocationError(
                f"storage_options were passed together with a Location ({location}), which has its own.",
                location=location,
                next_step="Pass the URL instead of the Location to use other options.",
            )
        return location
    if isinstance(location, os.PathLike):
        return _local(_checked_text(os.fsdecode(location)), options)
    if not isinstance(location, str):
        return _open_store(location, options)
    location = _checked_text(location)
    match protocol_of(location):
        case None:
            return _local(location, options)
        case "file" | "local" if SCHEME.match(location):
            rest = path_of("file://" + location.partition("://")[2].removeprefix("localhost"))
            decoded = unquote(rest)
            return _local(
                decoded if not os.path.lexists(rest) and os.path.lexists(decoded) else rest, options
            )
        case "http" | "https" as scheme:
            url, secret = canonical_http(location)
            check_page(url)
            return _make(scheme, url, options, secret)
        case "s3" | "s3a":
            return _s3(location.partition("://")[2], options)
        case "store":
            raise LocationError(
                "A store:// URL names an open zarr Store of one process and cannot be opened.",
                found=redact(location),
                next_step="Pass the zarr Store itself.",
            )
        case _:
            return _fsspec(location, options)


def _checked_text(location: str) -> str:
    """Return a location that operating systems, URLs and logs can represent."""
    if not location:
        raise LocationError("The location is empty.", found="", expected="a path or URL")
    if not is_encodable(location):
        raise LocationError(
            "The location contains a NUL character or a lone surrogate.", expected="a path or URL"
        )
    return str(location)


def _local(path: str, options: Mapping[str, Any]) -> Location:
    path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 (`..` before symbolic links, as in a shell)
    check_path(path)
    return _make("file", file_url(Path(path)), options)


def _s3(rest: str, options: Mapping[str, Any]) -> Location:
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        userinfo, _, authority = authority.rpartition("@")
        name, _, password = userinfo.partition(":")
        options = {"key": unquote(name), "secret": unquote(password)} | dict(options)
    bucket, key = canonical_bucket(authority + slash + path)
    if _SIGNED.search(key):
        raise LocationError(
            f"The s3:// URL of bucket {bucket} has a signed query.",
            location=f"s3://{bucket}",
            next_step="Presigned URLs begin with https://; pass that one.",
        )
    return _make("s3", f"s3://{bucket}/{key}".rstrip("/"), options)


def _fsspec(url: str, options: Mapping[str, Any]) -> Location:
    url = canonical_chain(url)
    check_schemes(url)
    public = redact(url)
    secret = {} if public == url else {"url": url}
    public = public.rstrip("/") if not public.endswith("://") else public
    return _make("fsspec", public, options, secret)


def _open_store(store: Any, options: Mapping[str, Any]) -> Location:
    from zarr.abc.store import Store
    from zarr.storage import LocalStore, ZipStore

    if not isinstance(store, Store):
        raise LocationError(
            f"Cannot open {describe_value(store)}.",
            found=describe_value(store),
            next_step="Pass a path, a URL, a zarr Store or a Location.",
        )
    if isinstance(store, LocalStore):
        return _local(str(store.root), options)
    if isinstance(store, ZipStore) and getattr(store, "_zmode", "r") == "r":
        return _local(str(store.path), options)
    url = next((url for url, known in _STORES.items() if known is store), None)
    url = url or f"store://{randomness.token_hex(8)}"
    _STORES[url] = store
    return replace(_make("store", url, options), store=store)


def _make(
    scheme: str, url: str, options: Mapping[str, Any], url_secrets: Mapping[str, Any] | None = None
) -> Location:
    public, secret = split_options(scheme, options, url)
    values = secret | dict(url_secrets or {})
    secrets = Secrets.keep(values, ships=bool(public.get("ship_credentials"))) if values else None
    return Location(url, canonical(public), secrets)


def _remember(location: Location) -> Location:
    """Record that the user of this process, or one of their pickles, named this location."""
    if location.store is None:
        handle = location.secrets.handle if location.secrets is not None else None
        key = location.url, location.options, handle
        _KNOWN[key] = location
        _KNOWN.move_to_end(key)
        if len(_KNOWN) > MOST_KNOWN:
            _KNOWN.popitem(last=False)
    return location


def _restore(url: str, options: str, secrets: Secrets | None, store: Any) -> Location:
    import_module("intake_nwbzarr.accessor")  # registers ds.nwb where a worker unpickles lazy data
    if store is not None:
        _STORES[url] = store
    return _remember(Location(url, options, secrets, store))


def _filesystem_options(public: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in public.items() if name not in PACKAGE_OPTIONS}


def _resolve_source(
    location: Location, base: str, path: list[str], source: str
) -> tuple[str | None, list[str] | None]:
    """Return the target of an external link as (scheme and authority, path parts), None if not allowed."""
    remote = location.scheme in {"http", "https"}
    # Beside an fsspec URL, :: would begin another link of the chain.
    chained = "::" in source and (
        location.scheme not in PLAIN or protocol_of(source) not in _LINKED_SCHEMES | {None}
    )
    if "\\" in source or "\0" in source or chained or location.scheme == "store":
        return None, None
    if SCHEME.match(source):
        scheme = source.partition("://")[0].lower()
        if scheme not in _LINKED_SCHEMES or (scheme == "file" and location.scheme != "file"):
            return None, None
        base, parts = split_url(parse_location(redact(source)).url)
        return base, normalized(parts)
    if source.startswith("/"):
        # An absolute path is one of the machine that wrote the file, so it is valid on a local disk only.
        return ("file://", normalized(source.split("/"))) if location.scheme == "file" else (None, None)
    parts = [quote(part, safe=PATH_SAFE) if remote else part for part in source.split("/")]
    if any(code in source.lower() for code in ("%2e", "%2f", "%5c", "%00")):
        return None, None
    return base, normalized(path + parts)
