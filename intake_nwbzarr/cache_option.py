"""The storage options `chunk_cache` and `revalidate`: where copies are kept, and when they are trusted."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from intake_nwbzarr.errors import CacheError, LocationError

DEFAULT_SIZE: Final = 10 * 10**9
"""Bytes that a cache holds at most, unless another size is given."""

SMALLEST: Final = 10**6

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T|Ki|Mi|Gi|Ti)B?", re.IGNORECASE)
_FACTORS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip
_AS_TEXT: Final[Mapping[str, Any]] = {"true": True, "false": False}


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
