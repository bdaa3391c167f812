"""Storage options of the sessions in a table, and the locations that a table may name.

A table is data, which may come from others. It names locations and, in the column ``storage``, entries of the
``storage_options`` that its reader passes. It never chooses an endpoint, credentials or a profile; it may
name local files and private addresses only where its reader has allowed them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from intake_nwbzarr.arguments import STORAGE_OPTIONS, describe_value
from intake_nwbzarr.errors import AccessError, LocationError, NWBZarrError, OptionError
from intake_nwbzarr.location.location import Location, locate, parse_location
from intake_nwbzarr.location.options import checked_options
from intake_nwbzarr.location.urls import normalized, protocol_of, redact, split_url
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.web import reach

# Options that identify the reader, or cost them money: sent to S3 only, or below a prefix.
_IDENTIFYING: Final = frozenset(
    {
        "key",
        "secret",
        "token",
        "headers",
        "profile",
        "requester_pays",
        "instance_role",
        "username",
        "password",
    }
    | {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
)
_WEB: Final = frozenset({"http", "https"})
_PUBLIC: Final = 2


@dataclass(frozen=True)
class Storage:
    """An entry of storage_options: its options, and the locations that they are used for."""

    name: str
    # Canonical URLs; none for any location of a scheme that the entry's options may be used for.
    prefixes: tuple[str, ...]
    identifying: bool
    # By scheme (s3, https, ...), a location with the entry's options; secrets are behind a handle.
    template: Mapping[str, Location] = field(hash=False)
    # Why the options are not valid for a scheme.
    invalid: Mapping[str, str] = field(hash=False)

    @property
    def called(self) -> str:
        """Return the name of the entry in error messages."""
        return "storage_options" if not self.name else f"The entry {self.name!r} of storage_options"

    def covers(self, url: str) -> bool:
        """Return whether a canonical URL is at or below one of the prefixes."""
        return any(_is_below(url, prefix) for prefix in self.prefixes)


@dataclass(frozen=True)
class Storages:
    """The storage options of the reader of tables at a location."""

    # The location of the tables.
    tables: Location
    storages: Mapping[str, Storage] = field(default_factory=dict, hash=False)
    # For all rows, if storage_options are plain options instead of entries by name.
    plain: Storage | None = None
    _reach: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, tables: Location, storage_options: Mapping[str, Any] | None) -> Storages:
        """Return the storages of the `storage_options` of a call."""
        options = checked_options(storage_options)
        if is_plain(options):
            return cls(tables, {}, _storage("", options))
        return cls(tables, {name: _storage(name, entry) for name, entry in options.items()})

    def location(self, key: str, storage: str | None, source: str | None = None) -> Location:
        """Return the location of a row, with its storage options.

        Parameters
        ----------
        key, storage, source
            The columns ``location``, ``storage`` and ``source``. Where the location is not allowed, the error
            suggests to allow the source, if it is a prefix of the location.

        Raises
        ------
        AccessError
            When a table must not name this location.
        LocationError
            When it is not a location.
        """
        own = self.plain or self.storages.get(storage or "")
        scheme = protocol_of(key)
        if scheme in {None, "file", "local"}:
            return self._local(key, source)
        url = parse_location(key)
        if url.secrets is not None:
            raise self._refused(url.url, "URLs with a password or a query are not allowed in tables.")
        if own is not None and own.prefixes and not own.covers(url.url):
            raise self._refused(
                url.url,
                f"{own.called} is for {' and '.join(own.prefixes)} only.",
                f"Add to its prefix, if you trust this location with it: {_prefix_above(url, source)!r}.",
            )
        if own is not None and own.prefixes:
            return self._with_options(own, url)
        # The reader trusts the tables with locations below the prefix of an entry.
        if not any(entry.covers(url.url) for entry in self.storages.values()):
            self._check_public(url, source)
        if own is None:
            return url
        if own.identifying and url.scheme != "s3":
            raise self._refused(
                url.url,
                f"{own.called} has credentials or headers, which without a prefix are for s3:// locations "
                "only.",
                f"If you trust this location with them, add a prefix with all URLs that they are for: "
                f"'prefix': [{_prefix_above(url, source)!r}, ...].",
            )
        return self._with_options(own, url)

    def results(self, url: str) -> Location:
        """Return an S3 folder that the caller names, with plain options or those of its prefix's entry."""
        named = parse_location(url)
        entries = self.storages.values()
        own = self.plain or next((each for each in entries if each.covers(named.url)), None)
        known = named if own is None or "s3" not in own.template else self._with_options(own, named)
        # Results of public sessions, read anonymously, are written with the credentials of the environment.
        return named if known.option("anon") else known

    def advice(self, key: str, storage: str | None) -> str | None:
        """Return what to pass if a row's location cannot be accessed, None if its storage has an entry."""
        is_local = protocol_of(key) in {None, "file", "local"}
        if is_local or not self.missing([storage]):
            return None
        known = f" (it has {', '.join(map(repr, self.storages))})" if self.storages else ""
        return (
            f"The table names the storage {storage!r}, for which storage_options has no entry{known}. If the "
            "session needs options, such as credentials or an endpoint_url, pass them under that name: "
            f"storage_options={{{storage!r}: {{...}}}}."
        )

    @property
    def table_advice(self) -> str | None:
        """Return what to pass if the tables cannot be accessed, None if an entry is used for them."""
        has_options = self.tables.options != "{}" or self.tables.secrets is not None
        if not self.storages or has_options or self.tables.path is not None:
            return None
        return (
            "The tables themselves are opened without storage_options, whose entries are for the sessions. "
            "If they need options, pass table_options={...}, or add a 'prefix' above them to their entry."
        )

    def missing(self, names: list[str | None]) -> list[str]:
        """Return the names of storages in the tables for which storage_options has no entry."""
        return [] if self.plain else sorted({name for name in names if name and name not in self.storages})

    def _with_options(self, own: Storage, url: Location) -> Location:
        if url.scheme in own.template:
            return replace(own.template[url.scheme], url=url.url)
        raise LocationError(
            f"{own.called} is not valid for {url}. {own.invalid.get(url.scheme, '')}".strip(),
            location=url,
            path=own.name,
        )

    def _local(self, key: str, source: str | None) -> Location:
        """Return a local location, which must be below the folder of local tables, or below a prefix."""
        folder = self._folder()
        text = key if folder is None or protocol_of(key) or Path(key).is_absolute() else str(folder / key)
        url = parse_location(text)
        path = url.path
        assert path is not None  # noqa: S101 - for the type checker
        resolved = path.resolve()
        allowed = [folder] if folder is not None else []
        entries = [self.plain] if self.plain else list(self.storages.values())
        prefixes = [prefix for entry in entries if entry for prefix in entry.prefixes]
        allowed += [place for prefix in prefixes if (place := parse_location(prefix).path) is not None]
        if any(resolved.is_relative_to(place.resolve()) for place in allowed):
            return url
        which = "Local files" if folder is None else "Local files outside the folder of the tables"
        raise self._refused(
            url.url, f"{which} are allowed below a prefix only.", self._advice(url, source, "local")
        )

    def _folder(self) -> Path | None:
        """Return the folder of local tables, None for remote ones."""
        path = self.tables.path
        return path if path is None or not path.name.endswith(".parquet") else path.parent

    def _check_public(self, url: Location, source: str | None) -> None:
        """Refuse other schemes, and hosts that are less public than that of the tables.

        Redirects to such hosts are refused as well.
        """
        if url.scheme not in _WEB | {"s3"}:
            raise self._refused(
                url.url,
                f"Locations with the scheme {url.scheme} are allowed below a prefix only.",
                self._advice(url, source),
            )
        if url.scheme == "s3":
            return
        host = urlsplit(url.url).hostname or ""
        found = self._reach_of(host)
        if found is not None and found < self._own_reach:
            kind = "link-local" if found == 0 else "private"
            raise self._refused(
                url.url,
                f"{host} is a {kind} address, which is allowed below a prefix only.",
                self._advice(url, source),
            )

    @property
    def _own_reach(self) -> int:
        if self.tables.path is not None:
            return 1
        server = self.tables.option("endpoint_url") if self.tables.scheme == "s3" else self.tables.url
        host = urlsplit(server or "").hostname or ""
        found = self._reach_of(host) if host else _PUBLIC
        return _PUBLIC if found is None else found

    def _reach_of(self, host: str) -> int | None:
        if host in self._reach:
            return self._reach[host]
        found = run(reach(host))
        # A name that does not resolve now may do so later, and is looked up again.
        if found is not None:
            self._reach[host] = found
        return found

    def _advice(self, url: Location, source: str | None, name: str = "trusted") -> str:
        entry = f"{name!r}: {{'prefix': {_prefix_above(url, source)!r}}}"
        if self.plain is not None:
            return (
                "If you trust the tables with it, pass storage_options with entries by name: one with your "
                f"options for each name in the column storage, and {{{entry}}}."
            )
        if self.storages:
            return f"If you trust the tables with it, add this entry to storage_options: {{{entry}}}."
        return f"If you trust the tables with it, pass storage_options={{{entry}}}."

    def _refused(self, url: str, why: str, next_step: str | None = None) -> NWBZarrError:
        return AccessError(
            f"{redact(url)} in the tables {self.tables} is not opened. {why}",
            location=redact(url),
            found=str(self.tables),
            next_step=next_step,
        )


def _prefix_above(url: Location, source: str | None) -> str:
    """Return the prefix that allows a location: that of its scan, or else the folder that it is in."""
    if source is not None:
        with suppress(NWBZarrError):
            scanned = parse_location(source)
            if scanned.url != url.url and _is_below(url.url, scanned.url) and not _is_everything(scanned):
                return str(scanned.path or scanned.url)
    if url.path is not None:
        return str(url.path.parent)
    base, parts = split_url(url.url)
    return "/".join([base, *parts[:-1]])


def _is_everything(place: Location) -> bool:
    """Return whether a local folder is the home folder or above it, which errors do not suggest to allow."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (pathlib raises)
    return place.path is not None and (place.path.parent == place.path or home.is_relative_to(place.path))


def is_plain(options: Mapping[str, Any]) -> bool:
    """Return whether storage options are plain ones, and not entries by name."""
    are_entries = all(isinstance(value, Mapping) for value in options.values())
    return not are_entries or (bool(options) and options.keys() <= STORAGE_OPTIONS)


def table_location(
    urlpath: str | Location, table_options: Mapping[str, Any] | None, storage_options: Mapping[str, Any]
) -> Location:
    """Return the location of tables: with own options, plain ones, or those of the entry for its prefix."""
    if isinstance(urlpath, Location) or table_options is not None:
        return locate(urlpath, table_options)
    bare = parse_location(urlpath)
    if is_plain(storage_options):
        return locate(urlpath, None if bare.path else _without_prefix(storage_options))
    for entry in storage_options.values():
        if any(_is_below(bare.url, prefix) for prefix in _prefixes("", entry)):
            return locate(urlpath, None if bare.path else _without_prefix(entry))
    return locate(urlpath)


def _storage(name: str, options: Mapping[str, Any]) -> Storage:
    kept = _without_prefix(options)
    template: dict[str, Location] = {}
    invalid: dict[str, str] = {}
    prefixes = _prefixes(name, options)
    schemes = {_scheme(prefix) for prefix in prefixes} - {"file"} if prefixes else {"s3", "https", "http"}
    for scheme in schemes:
        example = next((each for each in prefixes if _scheme(each) == scheme), f"{scheme}://example")
        try:
            template[scheme] = parse_location(example, kept)
        except LocationError as error:
            invalid[scheme] = str(error)
    if not template and kept:
        # Options that are valid nowhere are misspelled.
        parse_location(prefixes[0] if prefixes else "s3://example", kept)
    return Storage(name, prefixes, _has_identity(kept), template, invalid)


def _prefixes(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    given = options.get("prefix")
    listed = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) and each for each in listed):
        raise OptionError(
            f"The prefix of the entry {name!r} of storage_options must be a URL or a list of URLs, not "
            f"{describe_value(given)}.",
            path=name,
            found=describe_value(given),
        )
    return tuple(parse_location(each).url for each in listed)


def _without_prefix(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "prefix"}


def _has_identity(options: Mapping[str, Any]) -> bool:
    return any(name in _IDENTIFYING and value not in (None, False) for name, value in _leaves(options))


def _leaves(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        yield name, value
        if isinstance(value, Mapping):
            yield from _leaves(value)


def _scheme(url: str) -> str:
    return url.partition("://")[0].partition("::")[0]


def _is_below(url: str, prefix: str) -> bool:
    """Return whether a canonical URL is at or below another one; `..` does not lead out of it."""
    (base, parts), (own, above) = split_url(url), split_url(prefix)
    # Servers decode %2e%2e and ..%2f, so that these lead out of it as well.
    path = "/".join(parts)
    while path != unquote(path):
        path = unquote(path)
    decoded = [part for part in path.replace("\\", "/").split("/") if part]
    return base == own and normalized(decoded) == decoded and parts[: len(above)] == above
