"""Catalog entries that may be shown: the same, with a mask where secrets stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from intake_nwbzarr.urls import is_misplaced

MASK = "****"

_SECRET_NAME = re.compile(
    r"key|secret|token|pass(word|wd|phrase)?$|credential|auth|cookie|signature|headers|username|connection_string",
    re.IGNORECASE,
)
# A value that is nothing but a template of Intake 1, `{{ env(NAME) }}`, or Intake 2, `{env(NAME)}`.
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}|\{[^{}]*\}")
# A name and password, which may hold slashes: what follows a host's colon and is no port.
_USERINFO = re.compile(r"(?<=://)(?:[^/?#]*|[^/:?#]*:(?!\d+/)[^?#]*)@")
_QUERY = re.compile(r"(?<=\?)[^#\s]+")
_FRAGMENT = re.compile(r"(?<=#)\S+")


def masked_options(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Storage options with `MASK` for every secret; templates that name a variable are none.

    Examples
    --------
    >>> masked_options({"key": "AKIA", "secret": "{{ env(MY_SECRET) }}", "anon": False})
    {'key': '****', 'secret': '{{ env(MY_SECRET) }}', 'anon': False}
    """
    if options is None:
        return None
    return {
        str(name): _masked(value, bool(_SECRET_NAME.search(str(name)))) for name, value in options.items()
    }


def masked_url(url: object) -> str:
    """A URL with `MASK` for a user's name and password and for the query, where signatures stand.

    So is the whole of a URL that is so mistyped that any part of it may be a password.

    Examples
    --------
    >>> masked_url("https://me:pass@host/a.nwb.zarr?X-Amz-Signature=0a1b")
    'https://****@host/a.nwb.zarr?****'
    """
    text = str(url)
    is_local = text.startswith(("file://", "local://"))
    named = text if is_local else _USERINFO.sub(f"{MASK}@", text)
    if is_misplaced(_TEMPLATE.sub("any", named)):
        return MASK
    if "://" not in text or is_local:
        return text
    shown = _QUERY.sub(MASK, named)
    # A key on S3 may hold the sign.
    return _FRAGMENT.sub(MASK, shown) if re.search("https?://", text) else shown


def _masked(value: Any, secret: bool) -> Any:
    match value:
        case Mapping():
            return {
                str(name): _masked(inner, secret or bool(_SECRET_NAME.search(str(name))))
                for name, inner in value.items()
            }
        case list() | tuple():
            return [_masked(inner, secret) for inner in value]
        case None | bool():
            return value
        case str() if not secret:
            return masked_url(value)
        case str() if not value or _TEMPLATE.fullmatch(value.strip()):
            return value
        case _:
            return MASK if secret else value
