"""The `storage_options` and cache options of a location, checked."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from platformdirs import user_cache_path

from intake_nwbzarr.arguments import local_path
from intake_nwbzarr.errors import CacheError, CredentialsError, LocationError
from intake_nwbzarr.location.urls import is_encodable, redact


@dataclass(frozen=True)
class Timeouts:
    """How long, and how often, a request is tried; given as ``storage_options={"timeouts": {...}}``.

    Parameters
    ----------
    connect
        Seconds to reach the host.
    stall
        Seconds without a single byte.
    total
        Seconds for a request with all its repetitions.
    session
        Seconds for all requests to a session, together; no limit unless it is given. They count from when it
        is opened in a process, and in one that reads it without opening it, as a dask worker does, from the
        first request. What is under way when they are over, and what is asked for later, ends in a
        `TransportError`, until the session is opened again, or nothing was asked of it for as long.
    attempts
        How often a request is sent at most.
    backoff
        Seconds before the first repetition, about doubled before each further one.
    """

    connect: float = 5.0
    stall: float = 20.0
    total: float = 600.0
    session: float = inf
    attempts: int = 6
    backoff: float = 0.25


# Options of ours, meaningful for every location.
OWN = frozenset(
    {"allow_external", "chunk_cache", "consolidated", "revalidate", "ship_credentials", "timeouts"}
)
S3_PUBLIC = frozenset(
    {"anon", "profile", "endpoint_url", "region", "requester_pays", "instance_role", "addressing_style"}
    | {"use_ssl", "verify"}
)
S3_SECRET = frozenset({"key", "secret", "token"})
_SWITCHES = frozenset(
    {"anon", "requester_pays", "instance_role", "use_ssl"}
    | {"allow_external", "consolidated", "ship_credentials"}
)
_AS_TEXT = {"true": True, "false": False}
_STYLES = ("auto", "path", "virtual")
# Those that hold further options; where they are text, somebody's dictionary was turned into it.
_DICTIONARIES = frozenset({"client_kwargs", "config_kwargs", "headers", "s3", "timeouts"})
_TEXTS = S3_SECRET | {"addressing_style", "endpoint_url", "profile", "region"}
_S3_ALIASES = {
    "username": "key",
    "password": "secret",
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
    "region_name": "region",
}
# Tuning of fsspec's own machinery, which has no counterpart here: accepted and without effect.
_TUNING = frozenset(
    {
        "asynchronous", "batch_size", "block_size", "cache_regions", "cache_type", "default_block_size",
        "default_cache_type", "default_fill_cache", "fill_cache", "listings_expiry_time", "loop",
        "max_concurrency", "max_paths", "skip_instance_cache", "use_listings_cache",
    }
)  # fmt: skip
# A month, in seconds.
_LONGEST = 30 * 86400
# Leaves of any other filesystem's options that say nothing worth hiding.
_FSSPEC_PUBLIC = S3_PUBLIC | {
    "anon", "cache_storage", "check_files", "expiry_time", "fo", "mode", "project", "region_name",
    "same_names", "target_protocol",
}  # fmt: skip


def checked_options(given: object) -> dict[str, Any]:
    """Storage options as a dictionary whose names, and those of the dictionaries in it, are text.

    Raises
    ------
    LocationError
        When they are not; no value is repeated.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise LocationError(
            f"storage_options are a dictionary, such as {{'anon': True}}; found a {type(given).__name__}."
        )
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise LocationError(f"The names of storage options are text; found a {type(name).__name__}.")
        if isinstance(value, Mapping):
            checked[str(name)] = checked_options(value)
            continue
        if value is not None and name in _DICTIONARIES:
            raise LocationError(
                f"The storage option {name!r} is a dictionary; found a {type(value).__name__}."
            )
        if not all(is_encodable(text) for text in (name, value) if isinstance(text, str)):
            raise LocationError(
                "A storage option holds a NUL character, or half of a character (a lone surrogate)."
            )
        checked[str(name)] = value
    return checked


def split_options(scheme: str, options: Mapping[str, Any], url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Storage options as (public, secret), in one vocabulary.

    Parameters
    ----------
    scheme
        ``file``, ``http``, ``https``, ``s3``, ``store``, or anything else for fsspec.
    options
        As `checked_options` gives them.
    url
        Redacted, for errors.

    Raises
    ------
    LocationError
        For an option that is unknown, or means nothing for this kind of location.
    CredentialsError
        For half a pair of keys.
    """
    own = _switches(
        {name: value for name, value in options.items() if name in OWN and value is not None}, url
    )
    _check_timeouts(own.get("timeouts"), url)
    own |= _caching(scheme, own.pop("chunk_cache", None), own.pop("revalidate", None), url)
    rest = {name: value for name, value in options.items() if name not in OWN and value is not None}
    match scheme:
        case "s3":
            public, secret = _split_s3(rest, url)
        case "http" | "https":
            public, secret = _split_http(rest, url)
        case "file" | "store":
            # A catalog entry keeps `anon` when its path is changed to a local copy.
            _refuse_unknown(set(rest) - _TUNING - {"anon"}, OWN, "a local folder or an open store", url)
            public, secret = {}, {}
        case _:
            public = _public_leaves(rest)
            secret = {} if public == rest else {"options": rest}
    return own | public, secret


def _caching(scheme: str, chunk_cache: object, revalidate: object, url: str) -> dict[str, Any]:
    """How copies are kept, where that was asked for."""
    cache, again = cache_option(chunk_cache, url), revalidate_option(revalidate, url)
    if scheme == "file":
        # A catalog entry keeps its options when its path is changed to a local copy, which needs no other.
        return {}
    if cache is not None and scheme not in {"http", "https", "s3"}:
        raise LocationError(
            f"chunk_cache was given for {url}, and copies are kept of what is read over https and s3, where "
            "an ETag tells versions apart; fsspec has caches of its own: simplecache::..."
        )
    kept = {} if cache is None else {"chunk_cache": cache}
    return kept if again is None else kept | {"revalidate": again}


def timeouts(public: Mapping[str, Any]) -> Timeouts:
    """The timeouts that public options ask for."""
    return Timeouts(**public.get("timeouts", {}))


def canonical(public: Mapping[str, Any]) -> str:
    """Public options as JSON, equal for equal options."""
    return json.dumps(public, sort_keys=True)


def _split_s3(options: Mapping[str, Any], url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    client, config = options.get("client_kwargs", {}), dict(options.get("config_kwargs", {}))
    flat = client | (config.pop("s3", None) or {}) | config
    flat |= {name: value for name, value in options.items() if name not in {"client_kwargs", "config_kwargs"}}
    flat = {_S3_ALIASES.get(name, name): value for name, value in flat.items() if value is not None}
    known = S3_PUBLIC | S3_SECRET
    _refuse_unknown(set(flat) - known - _TUNING, known | OWN, "S3", url)
    flat = _switches(flat, url) | {name: _text(name, flat[name], url) for name in _TEXTS & set(flat)}
    encrypted, trusted = flat.pop("use_ssl", True), _trust(flat.pop("verify", True), url)
    public = {name: flat[name] for name in S3_PUBLIC & set(flat) if flat[name] is not False} | trusted
    if not encrypted:
        public["use_ssl"] = False
    if public.get("addressing_style", "auto") not in _STYLES:
        raise LocationError(
            f"The storage option addressing_style for {url} must be one of {', '.join(_STYLES)}."
        )
    secret = {name: flat[name] for name in S3_SECRET & set(flat) if flat[name] != ""}
    if "endpoint_url" in public:
        public["endpoint_url"] = check_endpoint(public["endpoint_url"])
    if secret and not {"key", "secret"} <= set(secret):
        missing = sorted({"key", "secret"} - set(secret))
        raise CredentialsError(
            f"The credentials for {url} are incomplete: {' and '.join(missing)} missing; give key and secret "
            "together (and token, where they are temporary), or none to use a profile or the environment."
        )
    if secret and (public.get("anon") or "profile" in public):
        raise CredentialsError(
            f"Two identities were given for {url}: keys and {'anon' if public.get('anon') else 'a profile'}; "
            "give one of them."
        )
    return public, secret


def _switches(options: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The options, those that are true or false as such: a catalog's template gives them as text."""
    switched = dict(options)
    for name in _SWITCHES & set(options):
        value = _AS_TEXT.get(f"{options[name]}".lower())
        if value is None:
            raise LocationError(f"The storage option {name} for {url} is neither true nor false.")
        switched[name] = value
    return switched


def _text(name: str, value: object, url: str) -> str:
    # YAML makes a number of a key of digits.
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise LocationError(f"The storage option {name} for {url} is text; found a {type(value).__name__}.")


def _split_http(options: Mapping[str, Any], url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if options.keys() & S3_SECRET:
        raise LocationError(
            f"S3 keys were given for {url}, which is read over plain HTTP; use s3://bucket/key."
        )
    client, known = options.get("client_kwargs", {}), {"headers", "verify", "ssl"}
    headers = (client.get("headers") or {}) | (options.get("headers") or {})
    others = (set(client) - known) | (set(options) - known - {"client_kwargs", "anon"} - _TUNING)
    _refuse_unknown(others, OWN | known, "HTTP", url)
    # aiohttp, which fsspec's HTTP is made of, calls it ssl, and others verify.
    flat = {**client, **options}
    trusted = _trust(flat.get("verify", flat.get("ssl", True)), url)
    lines = {name: _text("headers", value, url) for name, value in headers.items()}
    if any("\r" in text or "\n" in text for pair in lines.items() for text in pair):
        raise LocationError(f"A header given for {url} holds a line break.")
    return trusted, {"headers": lines} if lines else {}


def _trust(given: object, url: str) -> dict[str, Any]:
    """The option `verify`, where it is not the default: False, or the path of what is trusted."""
    value = _AS_TEXT.get(given.lower(), given) if isinstance(given, str) else given
    if value is None or value is True:
        return {}
    if value is False:
        return {"verify": False}
    if not isinstance(value, str | os.PathLike):
        raise LocationError(
            f"The storage option verify (or ssl) for {url} is True, False, or the path of a file or folder "
            f"of certificates, not an object of type {type(value).__name__}."
        )
    return {"verify": str(local_path(value, f"The storage option verify for {url}"))}


def check_endpoint(endpoint: str) -> str:
    """An endpoint without its trailing slash; refused where it is no URL or holds a password."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if (
        not usable
        or parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.username
        or parts.query
    ):
        raise LocationError(
            "The endpoint_url must be http://host[:port] or https://host[:port], without a password or query."
        )
    return endpoint.rstrip("/")


def _public_leaves(options: Mapping[str, Any]) -> dict[str, Any]:
    public: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            if inner := _public_leaves(value):
                public[name] = inner
        elif name in _FSSPEC_PUBLIC and isinstance(value, bool | int | str) and _shows_nothing(str(value)):
            public[name] = value
    return public


def _shows_nothing(value: str) -> bool:
    # `fo` is a URL, which may be a signed one.
    return "@" not in value and redact(value) == value


def _check_timeouts(given: Mapping[str, Any] | None, url: str) -> None:
    if given is None:
        return
    names = [field.name for field in fields(Timeouts)]
    if not all(name in names and _is_time(name, value) for name, value in given.items()):
        raise LocationError(
            f"The timeouts for {url} must be positive numbers for some of {', '.join(names)}; attempts is a "
            "whole number."
        )


def _is_time(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= _LONGEST and (name != "attempts" or float(value).is_integer())


def _refuse_unknown(names: set[str], known: frozenset[str], kind: str, url: str) -> None:
    if not names:
        return
    name = min(names)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}."
    # Somebody's secret may have taken the place of a name.
    called = f"The storage option {name!r}" if close or name.islower() else "A storage option"
    raise LocationError(f"{called} for {url} is not an option for {kind}; {hint}")


DEFAULT_SIZE: Final = 10 * 10**9
"""Bytes that a cache holds at most, unless another size is given."""

SMALLEST: Final = 10**6

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T|Ki|Mi|Gi|Ti)B?", re.IGNORECASE)
_FACTORS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip


def cache_option(given: object, url: str) -> dict[str, Any] | None:
    """The option `chunk_cache` in one form, which travels to other processes as it is.

    Parameters
    ----------
    given
        A folder; a number of bytes, or a text such as ``"2 GB"``, for a folder under the user's cache
        directory; ``True`` for both by default; or ``{"folder": ..., "size": ...}``.
    url
        Redacted, for errors.

    Returns
    -------
    dict or None
        ``folder``, absolute, and ``size`` in bytes; what is not in it is the default. None for no cache.

    Raises
    ------
    LocationError
        When it is neither a folder nor a size.
    """
    value = _AS_TEXT.get(given.lower(), given) if isinstance(given, str) else given
    match value:
        case False | None:
            return None
        case True:
            return {}
        case int() | float():
            return {"size": _size(value, url)}
        case str() if _SIZE.fullmatch(value.strip()):
            return {"size": _size(value, url)}
        case str() | os.PathLike() if os.fspath(value):
            return {"folder": _folder(value, url)}
        case Mapping() if value.keys() <= {"folder", "size"}:
            option: dict[str, Any] = {}
            if value.get("folder") is not None:
                option["folder"] = _folder(value["folder"], url)
            if value.get("size") is not None:
                option["size"] = _size(value["size"], url)
            return option
    raise LocationError(
        f"The storage option chunk_cache for {url} is neither a folder, nor a number of bytes, nor "
        "{'folder': ..., 'size': ...}."
    )


def revalidate_option(given: object, url: str) -> bool | None:
    """The option `revalidate`: False never asks, None asks for the metadata, True for every object.

    Raises
    ------
    LocationError
        When it is neither True, False nor ``"metadata"``.
    """
    value = _AS_TEXT.get(given.lower(), given) if isinstance(given, str) else given
    if value is True or value is False:
        return value
    if value is None or (isinstance(value, str) and value == "metadata"):
        return None
    raise LocationError(f"The storage option revalidate for {url} must be 'metadata', True or False.")


def default_folder() -> Path:
    """Where copies are kept unless a folder is given: in the user's cache directory.

    Raises
    ------
    CacheError
        When the user has no home.
    """
    if sys.platform == "win32":
        return user_cache_path("intake-nwbzarr", appauthor=False)
    if sys.platform == "darwin":
        return at_home("~/Library/Caches/intake-nwbzarr")
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return Path(base, "intake-nwbzarr") if Path(base).is_absolute() else at_home("~/.cache/intake-nwbzarr")


def at_home(folder: str) -> Path:
    """A folder with the home that it may begin with.

    Raises
    ------
    CacheError
        When there is no such home.
    """
    expanded = os.path.expanduser(folder)  # noqa: PTH111 (pathlib raises)
    if expanded.startswith("~"):
        raise CacheError(
            f"The chunk cache cannot be kept in {folder}: there is no such home. Name another folder, by "
            "storage_options={'chunk_cache': {'folder': ...}} or the variable XDG_CACHE_HOME."
        )
    return Path(expanded)


def _size(given: object, url: str) -> int:
    size: float = -1
    if isinstance(given, int | float) and not isinstance(given, bool):
        size = given
    elif isinstance(given, str) and (match := _SIZE.fullmatch(given.strip())):
        size = float(match[1]) * _FACTORS[match[2].lower()]
    if not SMALLEST <= size < float("inf"):
        raise LocationError(
            f"The size of the chunk cache for {url} must be a number of bytes, at least 1 MB, or a text such "
            "as '2 GB'."
        )
    return int(size)


def _folder(given: object, url: str) -> str:
    if not isinstance(given, str | os.PathLike) or not os.fspath(given) or "\0" in str(given):
        raise LocationError(f"The folder of the chunk cache for {url} must be the path of a folder.")
    text = str(os.fspath(given))
    if "://" in text:
        raise LocationError(
            f"The folder of the chunk cache for {url} is a URL; it is a folder on this machine."
        )
    # Another process may work in another directory; a home is expanded where it is.
    return text if text.startswith("~") else os.path.abspath(text)  # noqa: PTH100 (as a shell: `..` before links)
