"""Validation of `storage_options`: S3, HTTP and fsspec options, timeouts and the chunk cache."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from intake_nwbzarr.arguments import local_path
from intake_nwbzarr.errors import CacheError, CredentialsError, LocationError, did_you_mean
from intake_nwbzarr.location.urls import is_encodable, plain_server_url, redact


@dataclass(frozen=True)
class Timeouts:
    """Timeouts and retries of requests, passed as ``storage_options={"timeouts": {...}}``.

    Parameters
    ----------
    connect
        Seconds to connect to the host.
    stall
        Seconds without receiving a byte.
    total
        Seconds for a request, including all retries.
    session
        Seconds for all requests to a session together; no limit by default. They count from when the session
        is opened in a process, or from the first request in a process that does not open it, such as a dask
        worker. After that, current and later requests fail with a `TransportError`, until the session is
        opened again or has been idle for as long.
    attempts
        How often a request is sent at most, including the first time.
    backoff
        Seconds before the first retry, about doubled before each further one.
    """

    connect: float = 5.0
    stall: float = 20.0
    total: float = 600.0
    session: float = inf
    attempts: int = 6
    backoff: float = 0.25


@dataclass(frozen=True)
class Isolation:
    """What the process of an HDF5 file may take, passed as ``storage_options={"isolate": {...}}``.

    Parameters
    ----------
    memory_limit
        Bytes of memory, at least 100 MB: a number, or a string such as ``"2 GB"``.
    timeout
        Seconds that the process may compute for a request, without the time in which it waits for bytes of
        the file.
    """

    memory_limit: int = 4 * 10**9
    timeout: float = 120.0


# Options of this package, valid for every location.
PACKAGE_OPTIONS = frozenset(
    {"allow_external", "chunk_cache", "consolidated", "hdf5", "isolate", "revalidate", "ship_credentials"}
    | {"timeouts"}
)
S3_PUBLIC = frozenset(
    {"anon", "profile", "endpoint_url", "region", "requester_pays", "instance_role", "addressing_style"}
    | {"use_ssl", "verify"}
)
S3_SECRET = frozenset({"key", "secret", "token"})
_BOOLEANS = frozenset(
    {"anon", "requester_pays", "instance_role", "use_ssl"}
    | {"allow_external", "consolidated", "hdf5", "ship_credentials"}
)
_BOOLEAN_TEXT = {"true": True, "false": False}
_STYLES = ("auto", "path", "virtual")
# Options that are dictionaries; a string here was probably made from one by a catalog's template.
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
# Options that tune fsspec itself, accepted without effect.
_TUNING = frozenset(
    {
        "asynchronous", "batch_size", "block_size", "cache_regions", "cache_type", "default_block_size",
        "default_cache_type", "default_fill_cache", "fill_cache", "listings_expiry_time", "loop",
        "max_concurrency", "max_paths", "skip_instance_cache", "use_listings_cache",
    }
)  # fmt: skip
# A month, in seconds.
_LONGEST = 30 * 86400
# Options of other fsspec filesystems that are never secrets.
_FSSPEC_PUBLIC = S3_PUBLIC | {
    "anon", "cache_storage", "check_files", "expiry_time", "fo", "mode", "project", "region_name",
    "same_names", "target_protocol",
}  # fmt: skip


def checked_options(given: object) -> dict[str, Any]:
    """Return storage options as nested dictionaries with string keys."""
    # Errors show types, never values: those may be secrets.
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise _not_allowed("storage_options", given, "a dictionary, such as {'anon': True}")
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise _not_allowed("The names of storage options", name, "strings")
        if isinstance(value, Mapping):
            checked[str(name)] = checked_options(value)
            continue
        if value is not None and name in _DICTIONARIES:
            raise _not_allowed(f"The storage option {name!r}", value, "a dictionary")
        if not all(is_encodable(text) for text in (name, value) if isinstance(text, str)):
            raise LocationError(
                "A storage option contains a NUL character or a lone surrogate.",
                found=name if is_encodable(name) else None,
                expected="text without these",
            )
        checked[str(name)] = value
    return checked


def is_public(name: str) -> bool:
    """Return whether the value of a storage option is never a secret."""
    return name in PACKAGE_OPTIONS | _FSSPEC_PUBLIC | _TUNING | {"ssl"}


def applicable(options: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return the storage options of several locations that one of them can have, by its scheme."""
    of_s3, of_http = S3_PUBLIC | S3_SECRET | _S3_ALIASES.keys(), {"headers", "ssl"}
    match url.partition("://")[0] if "://" in url else "file":
        case "s3":
            dropped: Collection[str] = of_http
        case "http" | "https":
            dropped = of_s3 - {"verify"}
        case "file":
            dropped = of_s3 | of_http | {"client_kwargs", "config_kwargs"}
        case _:
            dropped = ()
    return {name: value for name, value in options.items() if name not in dropped}


def split_options(scheme: str, options: Mapping[str, Any], url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return checked storage options as (public, secret), with aliases resolved."""
    options = {name: value for name, value in options.items() if value is not None}
    own = _booleans({name: value for name, value in options.items() if name in PACKAGE_OPTIONS}, url)
    _check_timeouts(own.get("timeouts"), url)
    own |= _isolate_option(own.pop("isolate", None), url)
    own |= _cache_options(scheme, own.pop("chunk_cache", None), own.pop("revalidate", None), url)
    rest = {name: value for name, value in options.items() if name not in PACKAGE_OPTIONS}
    match scheme:
        case "s3":
            public, secret = _split_s3(rest, url)
        case "http" | "https":
            public, secret = _split_http(rest, url)
        case "file" | "store":
            # A catalog entry keeps `anon` when its path is changed to a local copy.
            unknown = set(rest) - _TUNING - {"anon"}
            _refuse_unknown(unknown, PACKAGE_OPTIONS, "a local folder or an open store", url)
            public, secret = {}, {}
        case _:
            public = _public_leaves(rest)
            secret = {} if public == rest else {"options": rest}
    return own | public, secret


def _cache_options(scheme: str, chunk_cache: object, revalidate: object, url: str) -> dict[str, Any]:
    """Return the checked options `chunk_cache` and `revalidate`, as far as they were passed."""
    cache, mode = cache_option(chunk_cache, url), revalidate_option(revalidate, url)
    if scheme == "file":
        # A catalog entry keeps its options when its path is changed to a local copy, which needs no cache.
        return {}
    if cache is not None and scheme not in {"http", "https", "s3"}:
        raise LocationError(
            f"The storage option chunk_cache is not valid for {url}: it needs ETags.",
            location=url,
            found=scheme,
            expected=("http", "https", "s3"),
            next_step="fsspec has caches of its own, such as simplecache::...",
        )
    checked = {} if cache is None else {"chunk_cache": cache}
    return checked if mode is None else checked | {"revalidate": mode}


def timeouts(public: Mapping[str, Any]) -> Timeouts:
    """Return the timeouts of public storage options."""
    return Timeouts(**public.get("timeouts", {}))


def isolation(public: Mapping[str, Any]) -> Isolation | None:
    """Return what the process of an HDF5 file may take, None where it needs none."""
    return Isolation(**public["isolate"]) if "isolate" in public else None


def canonical(public: Mapping[str, Any]) -> str:
    """Return public storage options as canonical JSON."""
    return json.dumps(public, sort_keys=True)


def _split_s3(options: Mapping[str, Any], url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    client, config = options.get("client_kwargs", {}), dict(options.get("config_kwargs", {}))
    flat = client | (config.pop("s3", None) or {}) | config
    flat |= {name: value for name, value in options.items() if name not in {"client_kwargs", "config_kwargs"}}
    flat = {_S3_ALIASES.get(name, name): value for name, value in flat.items() if value is not None}
    known = S3_PUBLIC | S3_SECRET
    _refuse_unknown(set(flat) - known - _TUNING, known | PACKAGE_OPTIONS, "S3", url)
    flat = _booleans(flat, url) | {name: _text(name, flat[name], url) for name in _TEXTS & set(flat)}
    encrypted, verify = flat.pop("use_ssl", True), _verify_option(flat.pop("verify", True), url)
    public = {name: flat[name] for name in S3_PUBLIC & set(flat) if flat[name] is not False} | verify
    if not encrypted:
        public["use_ssl"] = False
    if public.get("addressing_style", "auto") not in _STYLES:
        raise _invalid("addressing_style", url, f"one of {', '.join(_STYLES)}")
    secret = {name: flat[name] for name in S3_SECRET & set(flat) if flat[name] != ""}
    if "endpoint_url" in public:
        public["endpoint_url"] = check_endpoint(public["endpoint_url"])
    if secret and not {"key", "secret"} <= set(secret):
        missing = sorted({"key", "secret"} - set(secret))
        raise CredentialsError(
            f"The credentials for {url} are incomplete: {' and '.join(missing)} missing.",
            location=url,
            expected=missing,
            next_step="Pass key and secret together (and token, if they are temporary), or neither to use a "
            "profile or the environment.",
        )
    if secret and (public.get("anon") or "profile" in public):
        raise CredentialsError(
            f"Two identities were passed for {url}: keys and {'anon' if public.get('anon') else 'profile'}.",
            location=url,
            next_step="Pass one of them.",
        )
    return public, secret


def _booleans(options: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return options with the boolean ones parsed: catalog templates make strings of them."""
    checked = dict(options)
    for name in _BOOLEANS & set(options):
        value = _BOOLEAN_TEXT.get(f"{options[name]}".lower())
        if value is None:
            raise _invalid(name, url, "True or False")
        checked[name] = value
    return checked


def _text(name: str, value: object, url: str) -> str:
    # YAML parses a key of digits as a number.
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise _not_allowed(f"The storage option {name} for {url}", value, "a string")


def _split_http(options: Mapping[str, Any], url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if options.keys() & S3_SECRET:
        raise LocationError(
            f"S3 keys were passed for {url}, which is read over plain HTTP.",
            location=url,
            next_step="Use a URL such as s3://bucket/key.",
        )
    client, known = options.get("client_kwargs", {}), {"headers", "verify", "ssl"}
    headers = (client.get("headers") or {}) | (options.get("headers") or {})
    others = (set(client) - known) | (set(options) - known - {"client_kwargs", "anon"} - _TUNING)
    _refuse_unknown(others, PACKAGE_OPTIONS | known, "HTTP", url)
    # The option is called ssl in aiohttp, which fsspec uses for HTTP, and verify in other libraries.
    flat = {**client, **options}
    verify = _verify_option(flat.get("verify", flat.get("ssl", True)), url)
    lines = {name: _text("headers", value, url) for name, value in headers.items()}
    if any("\r" in text or "\n" in text for pair in lines.items() for text in pair):
        raise LocationError(f"A header for {url} contains a line break.", location=url)
    return verify, {"headers": lines} if lines else {}


def _verify_option(given: object, url: str) -> dict[str, Any]:
    """Return the option `verify` where it is not the default: False, or the path of trusted certificates."""
    value = _BOOLEAN_TEXT.get(given.lower(), given) if isinstance(given, str) else given
    if value is None or value is True:
        return {}
    if value is False:
        return {"verify": False}
    if not isinstance(value, str | os.PathLike):
        raise _not_allowed(
            f"The storage option verify (or ssl) for {url}", value, "True, False, or the path of certificates"
        )
    return {"verify": str(local_path(value, f"The storage option verify for {url}"))}


def check_endpoint(endpoint: str) -> str:
    """Return an endpoint URL without its trailing slash, if it is valid and has no password or query."""
    url = plain_server_url(endpoint)
    if url is None:
        raise LocationError(
            "endpoint_url must be http://host[:port] or https://host[:port], without a password or query.",
            expected="http://host[:port] or https://host[:port]",
        )
    return url


def _public_leaves(options: Mapping[str, Any]) -> dict[str, Any]:
    public: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            if inner := _public_leaves(value):
                public[name] = inner
        elif name in _FSSPEC_PUBLIC and isinstance(value, bool | int | str) and _is_public(str(value)):
            public[name] = value
    return public


def _is_public(value: str) -> bool:
    # The option `fo` is a URL, possibly a presigned one.
    return "@" not in value and redact(value) == value


def _check_timeouts(given: Mapping[str, Any] | None, url: str) -> None:
    if given is None:
        return
    names = [field.name for field in fields(Timeouts)]
    if not all(name in names and _is_time(name, value) for name, value in given.items()):
        raise LocationError(
            f"The timeouts for {url} must be positive numbers for some of {', '.join(names)}; attempts must "
            "be a whole number.",
            location=url,
            expected=names,
        )


def _isolate_option(given: object, url: str) -> dict[str, Any]:
    """Return the option `isolate` as a dictionary, where it is not False."""
    value = _BOOLEAN_TEXT.get(given.lower(), given) if isinstance(given, str) else given
    match value:
        case None | False:
            return {}
        case True:
            return {"isolate": {}}
        case Mapping() if value.keys() <= {"memory_limit", "timeout"}:
            option = {name: each for name, each in value.items() if each is not None}
            if "memory_limit" in option:
                what = f"The memory_limit of isolate for {url}"
                option["memory_limit"] = _size(option["memory_limit"], what, url, LEAST_MEMORY, "100 MB")
            if _is_time("timeout", option.get("timeout", 1)):
                return {"isolate": option}
    expected = "True, False, or {'memory_limit': '2 GB', 'timeout': 60}, a size and positive seconds"
    raise _invalid("isolate", url, expected)


def _is_time(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= _LONGEST and (name != "attempts" or float(value).is_integer())


def _refuse_unknown(names: set[str], known: frozenset[str], kind: str, url: str) -> None:
    if not names:
        return
    name = min(names)
    suggestion = did_you_mean(name, known)
    # A secret may have been passed in place of a name.
    shown = f"The storage option {name!r}" if suggestion or name.islower() else "A storage option"
    raise LocationError(
        f"{shown} for {url} is not an option for {kind}.",
        location=url,
        expected=sorted(known),
        next_step=suggestion or f"Options are {', '.join(sorted(known))}.",
    )


def _invalid(name: str, url: str, expected: str) -> LocationError:
    """Return the error for a storage option whose value may be a secret, and is not shown."""
    return LocationError(
        f"The storage option {name} for {url} must be {expected}.", location=url, expected=expected
    )


def _not_allowed(argument: str, given: object, expected: str) -> LocationError:
    """Return the error for a storage option of the wrong type."""
    found = f"an object of type {type(given).__name__}"
    return LocationError(f"{argument} must be {expected}, not {found}.", found=found, expected=expected)


DEFAULT_SIZE: Final = 10 * 10**9
"""Default size of a chunk cache in bytes."""

SMALLEST: Final = 10**6

LEAST_MEMORY: Final = 10**8
"""Bytes of memory that a process takes before it has read anything."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T|Ki|Mi|Gi|Ti)B?", re.IGNORECASE)
_FACTORS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip


def cache_option(given: object, url: str) -> dict[str, Any] | None:
    """Return the option `chunk_cache` as a dictionary of `folder` and `size`, None for no cache."""
    # A folder; a size in bytes or as a string such as "2 GB"; True for the defaults; or a dictionary.
    value = _BOOLEAN_TEXT.get(given.lower(), given) if isinstance(given, str) else given
    match value:
        case False | None:
            return None
        case True:
            return {}
        case int() | float():
            return {"size": _cache_size(value, url)}
        case str() if _SIZE.fullmatch(value.strip()):
            return {"size": _cache_size(value, url)}
        case str() | os.PathLike() if os.fspath(value):
            return {"folder": _folder(value, url)}
        case Mapping() if value.keys() <= {"folder", "size"}:
            option: dict[str, Any] = {}
            if value.get("folder") is not None:
                option["folder"] = _folder(value["folder"], url)
            if value.get("size") is not None:
                option["size"] = _cache_size(value["size"], url)
            return option
    expected = "a folder, a size in bytes, True, False, or {'folder': ..., 'size': ...}"
    raise _invalid("chunk_cache", url, expected)


def revalidate_option(given: object, url: str) -> bool | None:
    """Return the option `revalidate`: False for never, None for metadata only, True for every object."""
    value = _BOOLEAN_TEXT.get(given.lower(), given) if isinstance(given, str) else given
    if value is True or value is False:
        return value
    if value is None or (isinstance(value, str) and value == "metadata"):
        return None
    raise _invalid("revalidate", url, "'metadata', True or False")


def default_folder() -> Path:
    """Return the default folder of the chunk cache, in the user's cache directory."""
    if sys.platform == "win32":
        return user_cache_path("intake-nwbzarr", appauthor=False)
    if sys.platform == "darwin":
        return expand_home("~/Library/Caches/intake-nwbzarr")
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    return (
        Path(base, "intake-nwbzarr") if Path(base).is_absolute() else expand_home("~/.cache/intake-nwbzarr")
    )


def expand_home(folder: str) -> Path:
    """Return a folder with a leading ``~`` expanded."""
    expanded = os.path.expanduser(folder)  # noqa: PTH111 (pathlib raises)
    if expanded.startswith("~"):
        raise CacheError(
            f"The chunk cache folder {folder} is in a home directory that does not exist.",
            found=folder,
            next_step="Set another folder with storage_options={'chunk_cache': {'folder': ...}} or the "
            "environment variable XDG_CACHE_HOME.",
        )
    return Path(expanded)


def _cache_size(given: object, url: str) -> int:
    return _size(given, f"The size of the chunk cache for {url}", url, SMALLEST, "1 MB")


def _size(given: object, what: str, url: str, least: int, least_text: str) -> int:
    size: float = -1
    if isinstance(given, int | float) and not isinstance(given, bool):
        size = given
    elif isinstance(given, str) and (match := _SIZE.fullmatch(given.strip())):
        size = float(match[1]) * _FACTORS[match[2].lower()]
    if not least <= size < float("inf"):
        expected = f"at least {least_text}, as a number of bytes or a string such as '2 GB'"
        raise LocationError(f"{what} must be {expected}.", location=url, expected=expected)
    return int(size)


def _folder(given: object, url: str) -> str:
    if not isinstance(given, str | os.PathLike) or not os.fspath(given) or "\0" in str(given):
        raise LocationError(
            f"The folder of the chunk cache for {url} must be the path of a folder.",
            location=url,
            expected="a local path",
        )
    text = str(os.fspath(given))
    if "://" in text:
        raise LocationError(
            f"The folder of the chunk cache for {url} must be a local path, not a URL.",
            location=url,
            found="a URL",
            expected="a local path",
        )
    # Absolute, since another process may have another working directory; each expands "~" itself.
    return text if text.startswith("~") else os.path.abspath(text)  # noqa: PTH100 (`..` before symbolic links)
