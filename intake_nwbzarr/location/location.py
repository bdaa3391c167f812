"""The location of a session: a URL or path, its options and who asks, without showing secrets."""

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

from intake_nwbzarr.arguments import takes_storage_options
from intake_nwbzarr.errors import LinkError, LocationError, OptionError
from intake_nwbzarr.location.credentials import Secrets, ambient_identity
from intake_nwbzarr.location.options import OWN, canonical, checked_options, split_options
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
    normalise,
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

# What this process' user, or a pickle of theirs, has named: only that is opened for a Dataset's attributes.
MOST_KNOWN = 10_000
_KNOWN: OrderedDict[tuple[str, str, str | None], Location] = OrderedDict()
_STORES: WeakValueDictionary[str, Any] = WeakValueDictionary()


@dataclass(frozen=True)
class Location:
    """Where a session is stored; made by `locate`.

    It pickles, compares and hashes; secrets are in none of its attributes.

    Parameters
    ----------
    url
        Canonical, without secrets and without a trailing slash: ``file:///data/a.nwb.zarr``,
        ``https://host/a.nwb.zarr``, ``s3://bucket/a.nwb.zarr``, any fsspec URL, or ``store://…`` for an open
        zarr Store.
    options
        The storage options that are no secrets, as JSON.
    secrets
        Names those that are; the process that was given them keeps them.
    """

    url: str
    options: str = "{}"
    secrets: Secrets | None = None
    store: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, ...]:
        if self.store is not None and not self.option("ship_credentials"):
            raise LocationError(
                f"{self.url} is an open zarr Store, which may hold secrets and stays in this process; give "
                "its URL instead, or storage_options={'ship_credentials': True} to send it as it is."
            )
        return _restore, (self.url, self.options, self.secrets, self.store)

    def __copy__(self) -> Location:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Location:
        # Immutable; and a copy of an open store would be another store.
        return self

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        return "intake_nwbzarr.Location", self.url, canonical(_without_own(self.public))

    @property
    def public(self) -> dict[str, Any]:
        """The storage options that are no secrets."""
        return cast("dict[str, Any]", json.loads(self.options))

    def option(self, name: str) -> Any:
        """One of them, None where it was not given."""
        return self.public.get(name)

    @property
    def scheme(self) -> str:
        """``file``, ``http``, ``https``, ``s3``, ``store``, or one of fsspec's: of a chain, the first."""
        return self.url.partition("://")[0].partition("::")[0]

    @property
    def is_chain(self) -> bool:
        """Whether the URL is one of fsspec's chains; ``::`` in a name makes none."""
        return self.scheme not in PLAIN and "::" in self.url

    @property
    def path(self) -> Path | None:
        """The local path, None for anything that is not a local folder or file."""
        return Path(path_of(self.url)) if self.scheme == "file" else None

    @property
    def cache_key(self) -> Hashable:
        """Location and identity: what is cached under it is never served to another identity."""
        ambient = None if self.scheme in {"file", "http", "https", "store", "memory"} else ambient_identity()
        return self.url, self.options, self.secrets, ambient

    @property
    def uncached(self) -> Location:
        """The same, read without a chunk cache: for what must see the present state, or reads everything."""
        public = self.public
        left_out = {"chunk_cache", "consolidated", "revalidate"}
        kept = {name: value for name, value in public.items() if name not in left_out}
        return self if kept == public else replace(self, options=canonical(kept))

    def read_consolidated(self, consolidated: bool | None) -> Location:
        """The same, with another answer to whether its consolidated metadata are used; None leaves it.

        Raises
        ------
        OptionError
            When it is anything but True, False or None.
        """
        if not isinstance(consolidated, bool | None):
            raise OptionError(f"consolidated must be True, False or None, not {consolidated!r:.80}.")
        if consolidated is None:
            return self
        return _remember(replace(self, options=canonical(self.public | {"consolidated": consolidated})))

    def attributes(self) -> dict[str, str]:
        """What a Dataset carries to find its way back: the URL, and the options that are no secrets."""
        options = self.public
        if self.secrets is not None:
            options["credentials"] = self.secrets.handle
        return {"nwb_location": self.url} | ({"nwb_storage_options": canonical(options)} if options else {})

    @classmethod
    def from_attributes(cls, attrs: Mapping[Any, Any]) -> Location:
        """The inverse of `attributes`.

        Attributes are data, and may come from somebody else's file, which must not choose what is opened
        here, or with which credentials. They lead back only in a process that was given this very location,
        with these options, by its user or by a pickle.

        Raises
        ------
        LocationError
            When the attributes name no location, or none that this process was given.
        """
        url, text = attrs.get("nwb_location"), attrs.get("nwb_storage_options", "{}")
        options: Any = None
        if isinstance(url, str) and isinstance(text, str):
            try:
                options = json.loads(text)
            except ValueError:
                options = None
        if not isinstance(url, str) or not isinstance(options, dict):
            raise LocationError("The attributes name no NWB file: nwb_location is missing or damaged.")
        handle = options.pop("credentials", None)
        known = _KNOWN.get((url, canonical(options), handle)) if isinstance(handle, str | None) else None
        if known is not None:
            return _remember(known)
        if (store := _STORES.get(url)) is not None:
            return locate(store, options)
        raise LocationError(
            f"This Dataset says that it comes from {redact(url)}, which was not opened in this process; a "
            "Dataset's attributes alone choose neither files nor credentials. If you trust them, open it "
            f"with intake_nwbzarr.open_nwb({redact(url)!r}), or xarray.open_dataset(..., engine='nwbzarr'), "
            "and the storage_options that it needs."
        )

    def sibling(self, source: str) -> Location:
        """Another file, named relative to this one, as external links do.

        Parameters
        ----------
        source
            ``"."`` is this file, ``"../raw.nwb.zarr"`` its neighbour; absolute paths and URLs as well.

        Raises
        ------
        LinkError
            When it is not under the folder that holds this file, unless the location was opened with
            ``storage_options={"allow_external": True}``; even then a remote file reaches no local one, and
            credentials stay with their own bucket or host.
        """
        if source in {"", "."}:
            return self
        base, path = split_url(self.url)
        elsewhere, target = _resolve_source(self, base, path, source)
        if target == path and elsewhere == base:
            return self
        if elsewhere is None or target is None:
            raise LinkError(f"{self.url} links to {source!r}, which is no place that a file may link to.")
        if self.secrets is not None and "url" in (self.secrets.reveal() or {}):
            raise LinkError(
                f"{self.url} links to {source!r}, and a chained URL with secrets leads to itself only."
            )
        url = elsewhere + "/".join(["", *target]) if elsewhere != "file://" else "file:///" + "/".join(target)
        parent = path[:-1]
        inside = (
            elsewhere == base and bool(path) and target[: len(parent)] == parent and len(target) > len(parent)
        )
        if inside and self.scheme == "file":
            folder = Path(path_of(f"{base}/{'/'.join(parent)}"))
            inside = Path(path_of(url)).resolve().is_relative_to(folder.resolve())
        if not inside and not self.option("allow_external"):
            raise LinkError(
                f"{self.url} links to {source!r}, outside of the folder that holds it; open it with "
                "storage_options={'allow_external': True} to follow such links."
            )
        if elsewhere == base:
            return _remember(replace(self, url=url))
        public = {name: value for name, value in self.public.items() if name in OWN}
        return locate(url, public | ({"anon": True} if url.startswith("s3://") else {}))


@takes_storage_options
def locate(location: Place, storage_options: Mapping[str, Any] | None = None) -> Location:
    """Make a `Location` of whatever names one.

    Parameters
    ----------
    location
        A local path, a URL (``https``, ``http``, ``s3``, or any that fsspec knows, chained ones included), a
        ``.zip`` of a store at either, an open zarr Store, or a Location.
    storage_options
        In s3fs' vocabulary: ``anon``, ``key``, ``secret``, ``token``, ``profile``, ``endpoint_url``,
        ``client_kwargs`` (``endpoint_url``, ``region_name``, ``verify``), ``requester_pays``, ``use_ssl``;
        ``headers`` for https; and ``verify``, ``instance_role``, ``addressing_style``, ``allow_external``,
        ``ship_credentials``, ``timeouts`` (see `intake_nwbzarr.location.options.Timeouts`), ``chunk_cache``
        and ``revalidate`` (see `intake_nwbzarr.location.options`), ``consolidated`` (as the keyword of that
        name).

    Raises
    ------
    LocationError
        When the location or an option makes no sense.
    CredentialsError
        When half a set of credentials, or two of them, are given.

    Examples
    --------
    >>> str(locate("s3://dandiarchive/zarr/c8c6b848/", {"anon": True}))
    's3://dandiarchive/zarr/c8c6b848'
    >>> str(locate("https://me:password@example.org/a%20b.nwb.zarr/?signature=0123"))
    'https://example.org/a%20b.nwb.zarr'
    """
    return _remember(_locate(location, storage_options))


def _locate(location: Place, storage_options: Mapping[str, Any] | None = None) -> Location:
    options = checked_options(storage_options)
    if isinstance(location, Location):
        if options:
            raise LocationError(f"{location} carries its own storage options; give the URL to use others.")
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
            url, hidden = canonical_http(location)
            check_page(url)
            return _make(scheme, url, options, hidden)
        case "s3" | "s3a":
            return _s3(location.partition("://")[2], options)
        case "store":
            raise LocationError(
                "The location names a zarr Store that was open at another time; give the store itself."
            )
        case _:
            return _fsspec(location, options)


def _checked_text(location: str) -> str:
    """A location that an operating system, a URL and a log can hold."""
    if not location:
        raise LocationError("The location is empty.")
    if not is_encodable(location):
        raise LocationError("The location holds a NUL character, or half of a character (a lone surrogate).")
    return str(location)


def _local(path: str, options: Mapping[str, Any]) -> Location:
    path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 (`..` before symlinks, as a shell)
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
        raise LocationError(f"s3://{bucket} is given with a signed query; such links are https:// URLs.")
    return _make("s3", f"s3://{bucket}/{key}".rstrip("/"), options)


def _fsspec(url: str, options: Mapping[str, Any]) -> Location:
    url = canonical_chain(url)
    check_schemes(url)
    shown = redact(url)
    hidden = {} if shown == url else {"url": url}
    shown = shown.rstrip("/") if not shown.endswith("://") else shown
    return _make("fsspec", shown, options, hidden)


def _open_store(store: Any, options: Mapping[str, Any]) -> Location:
    from zarr.abc.store import Store
    from zarr.storage import LocalStore, ZipStore

    if not isinstance(store, Store):
        raise LocationError(
            f"Cannot open an object of type {type(store).__name__}; pass a path, a URL, a zarr Store or a "
            "Location."
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
    scheme: str, url: str, options: Mapping[str, Any], hidden: Mapping[str, Any] | None = None
) -> Location:
    public, secret = split_options(scheme, options, url)
    values = secret | dict(hidden or {})
    kept = Secrets.keep(values, ships=bool(public.get("ship_credentials"))) if values else None
    return Location(url, canonical(public), kept)


def _remember(location: Location) -> Location:
    """Note that this process' user, or a pickle of theirs, named this location and chose its options."""
    if location.store is None:
        handle = location.secrets.handle if location.secrets is not None else None
        key = location.url, location.options, handle
        _KNOWN[key] = location
        _KNOWN.move_to_end(key)
        if len(_KNOWN) > MOST_KNOWN:
            _KNOWN.popitem(last=False)
    return location


def _restore(url: str, options: str, secrets: Secrets | None, store: Any) -> Location:
    import_module("intake_nwbzarr.accessor")  # a worker that receives something lazy has ds.nwb, too
    if store is not None:
        _STORES[url] = store
    return _remember(Location(url, options, secrets, store))


def _without_own(public: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in public.items() if name not in OWN}


def _resolve_source(
    location: Location, base: str, path: list[str], source: str
) -> tuple[str | None, list[str] | None]:
    """Where a link's source leads, as (scheme and authority, parts); None for where no link may lead."""
    remote = location.scheme in {"http", "https"}
    # Next to a location of fsspec's, :: would begin another link of a chain.
    chained = "::" in source and (
        location.scheme not in PLAIN or protocol_of(source) not in _LINKED_SCHEMES | {None}
    )
    if "\\" in source or "\0" in source or chained or location.scheme == "store":
        return None, None
    if SCHEME.match(source):
        scheme = source.partition("://")[0].lower()
        if scheme not in _LINKED_SCHEMES or (scheme == "file" and location.scheme != "file"):
            return None, None
        base, parts = split_url(_locate(redact(source)).url)
        return base, normalise(parts)
    if source.startswith("/"):
        # An absolute path is one on the machine that wrote the file: it means something on a local disk only.
        return ("file://", normalise(source.split("/"))) if location.scheme == "file" else (None, None)
    parts = [quote(part, safe=PATH_SAFE) if remote else part for part in source.split("/")]
    if any(code in source.lower() for code in ("%2e", "%2f", "%5c", "%00")):
        return None, None
    return base, normalise(path + parts)
