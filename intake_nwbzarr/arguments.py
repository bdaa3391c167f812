"""What callers give, checked in one way: local paths, switches, choices, and keywords in the wrong place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from pathlib import Path
from urllib.parse import unquote

from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.location.urls import is_encodable, path_of, protocol_of

_LIKE_A_SCHEME = re.compile(r"[^/]{2}:[/\\]|^//[^/]*@|(?:^|/)(?:https?|s3a?|gs|az):", re.IGNORECASE)

# All that is given in storage_options, by whichever library it is known.
STORAGE_OPTIONS = frozenset(
    {
        "addressing_style", "allow_external", "anon", "aws_access_key_id", "aws_secret_access_key",
        "aws_session_token", "chunk_cache", "client_kwargs", "config_kwargs", "endpoint_url",
        "headers", "instance_role", "key", "password", "profile", "region", "region_name", "requester_pays",
        "revalidate", "secret", "ship_credentials", "ssl", "timeouts", "token", "use_ssl", "username",
    }
)  # fmt: skip


def local_path(given: object, what: str) -> Path:
    """A file or folder of this machine, absolute.

    Parameters
    ----------
    given
        As a caller gave it.
    what
        It is, for errors: "A snapshot is a local file".

    Raises
    ------
    OptionError
        When it is no local path; it is not echoed, for it may be a mistyped URL with a password in it.
    """
    text = os.fsdecode(given) if isinstance(given, str | os.PathLike) else ""
    if protocol_of(text) in {"file", "local"}:
        text = path_of("file://" + unquote(text.partition("://")[2]))
    problem = "" if text else f"found an empty text, or an object of type {type(given).__name__}"
    if protocol_of(text) is not None or _LIKE_A_SCHEME.search(text):
        problem = "a URL was given"
    elif not is_encodable(text):
        problem = "the one that was given holds a NUL character, or half of a character (a lone surrogate)"
    expanded = os.path.expanduser(text)  # noqa: PTH111 (pathlib raises)
    if expanded.startswith("~") and not os.path.lexists(Path(expanded).parts[0]):
        problem = "the home that it begins with does not exist"
    if problem:
        raise OptionError(f"{what}; {problem}.")
    return Path(os.path.abspath(expanded))  # noqa: PTH100 (`..` before links, as a shell)


def switch(name: str, given: object) -> bool:
    """A keyword that is True or False.

    Raises
    ------
    OptionError
        When it is neither.
    """
    if isinstance(given, bool):
        return given
    raise OptionError(f"{name} must be True or False, not {shown(given)}.")


def choice[T](name: str, given: T, allowed: Collection[T]) -> T:
    """A keyword that is one of some values.

    Raises
    ------
    OptionError
        When it is another.
    """
    if isinstance(given, str | bool | None) and any(given is one or given == one for one in allowed):
        return given
    raise OptionError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {shown(given)}.")


def shown(given: object) -> str:
    """A value as an error shows it: numbers and short texts as they are, anything else by its type."""
    if given is None or isinstance(given, bool | int | float):
        return f"{given!r:.40}"
    if isinstance(given, str) and len(given) <= 100:
        return repr(given)
    return f"an object of type {type(given).__name__}"


def check_keywords(called: str, given: Iterable[object], known: Iterable[str] | None = None) -> None:
    """Refuse keywords that are storage options, and where all are known, any other.

    Parameters
    ----------
    called
        What was called, for the error.
    given
        The keywords' names. Their values are not looked at: they may be secrets.
    known
        The names that it has; None where others see to that.

    Raises
    ------
    OptionError
        Which says where the option goes, or names the closest keyword.
    """
    unknown = [str(name) for name in given if known is None or name not in set(known)]
    for name in unknown:
        if name in STORAGE_OPTIONS:
            value = "True" if name == "anon" else "..."
            raise OptionError(
                f"{called} has no keyword {name!r}: it is a storage option, so pass "
                f"storage_options={{{name!r}: {value}}}."
            )
    if known is not None and unknown:
        close = get_close_matches(unknown[0], known := list(known), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f": it takes {', '.join(known)}."
        raise OptionError(f"{called} has no keyword {unknown[0]!r}{hint}")


def takes_storage_options[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """A function that says of storage options given as keywords where they belong."""
    known = frozenset(signature(function).parameters)

    @wraps(function)
    def checked(*arguments: P.args, **keywords: P.kwargs) -> T:
        if not keywords.keys() <= known:
            check_keywords(f"{function.__name__}()", keywords.keys() - known)
        return function(*arguments, **keywords)

    return checked
