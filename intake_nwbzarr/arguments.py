"""Validation of arguments: local paths, booleans, choices, and unknown or misplaced keywords."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from inspect import signature
from pathlib import Path
from urllib.parse import unquote

from intake_nwbzarr.errors import OptionError, did_you_mean
from intake_nwbzarr.location.urls import is_encodable, path_of, protocol_of

_LIKE_A_SCHEME = re.compile(r"[^/]{2}:[/\\]|^//[^/]*@|(?:^|/)(?:https?|s3a?|gs|az):", re.IGNORECASE)

# Names of storage options of this package and of fsspec, s3fs and aiohttp.
STORAGE_OPTIONS = frozenset(
    {
        "addressing_style", "allow_external", "anon", "aws_access_key_id", "aws_secret_access_key",
        "aws_session_token", "chunk_cache", "client_kwargs", "config_kwargs", "endpoint_url",
        "hdf5", "headers", "instance_role", "isolate", "key", "password", "profile", "region", "region_name",
        "requester_pays", "revalidate", "secret", "ship_credentials", "ssl", "timeouts", "token", "use_ssl",
        "username",
    }
)  # fmt: skip


def local_path(given: object, argument: str) -> Path:
    """Return an absolute local path; `argument` begins the error message, as in "The snapshot path"."""
    text = os.fsdecode(given) if isinstance(given, str | os.PathLike) else ""
    if protocol_of(text) in {"file", "local"}:
        text = path_of("file://" + unquote(text.partition("://")[2]))
    # The path itself is never shown: it may be a mistyped URL that contains a password.
    found = "" if text else "an empty string" if isinstance(given, str) else describe_value(given)
    if protocol_of(text) is not None or _LIKE_A_SCHEME.search(text):
        found = "a URL"
    elif not is_encodable(text):
        found = "a string with a NUL character or a lone surrogate"
    expanded = os.path.expanduser(text)  # noqa: PTH111 (pathlib raises)
    if expanded.startswith("~") and not os.path.lexists(Path(expanded).parts[0]):
        found = "a path in a home directory that does not exist"
    if found:
        expected = "a local path"
        raise OptionError(f"{argument} must be {expected}, not {found}.", found=found, expected=expected)
    return Path(os.path.abspath(expanded))  # noqa: PTH100 (`..` before symbolic links, as in a shell)


def check_bool(name: str, given: object) -> bool:
    """Return a keyword's value, which must be True or False."""
    if isinstance(given, bool):
        return given
    raise invalid_argument(name, given, "True or False")


def check_choice[T](name: str, given: T, allowed: Collection[T]) -> T:
    """Return a keyword's value, which must be one of the allowed ones."""
    if isinstance(given, str | bool | None) and any(given is one or given == one for one in allowed):
        return given
    raise invalid_argument(name, given, f"one of {', '.join(map(repr, allowed))}")


def invalid_argument(name: str, given: object, expected: str) -> OptionError:
    """Return the error for an argument with an invalid value."""
    found = describe_value(given)
    return OptionError(f"{name} must be {expected}, not {found}.", found=found, expected=expected)


def describe_value(given: object) -> str:
    """Return a value as errors show it: numbers and short strings as their repr, others as their type."""
    # Python refuses to print far longer integers.
    if given is None or isinstance(given, float) or (isinstance(given, int) and abs(given) < 10**40):
        return f"{given!r:.40}"
    if isinstance(given, str) and len(given) <= 100:
        return repr(given)
    return f"an object of type {type(given).__name__}"


def check_keywords(function: str, given: Iterable[object], known: Iterable[str] | None = None) -> None:
    """Refuse keywords that are storage options, and unknown ones where the `known` names are given."""
    # Only names are shown: values may be secrets.
    unknown = [str(name) for name in given if known is None or name not in set(known)]
    for name in unknown:
        if name in STORAGE_OPTIONS:
            value = "True" if name == "anon" else "..."
            raise OptionError(
                f"{function} has no keyword {name!r}: it is a storage option.",
                found=name,
                next_step=f"Pass storage_options={{{name!r}: {value}}}.",
            )
    if known is not None and unknown:
        names = list(known)
        raise OptionError(
            f"{function} has no keyword {unknown[0]!r}.",
            found=unknown[0],
            expected=names,
            next_step=did_you_mean(unknown[0], names) or f"The keywords are {', '.join(names)}.",
        )


def takes_storage_options[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Make a function refuse storage options passed as keywords, and say how to pass them."""
    known = frozenset(signature(function).parameters)

    @wraps(function)
    def checked(*arguments: P.args, **keywords: P.kwargs) -> T:
        if not keywords.keys() <= known:
            check_keywords(f"{function.__name__}()", keywords.keys() - known)
        return function(*arguments, **keywords)

    return checked
