"""What both Intake drivers share: the entry's location, masking of secrets, and a summary of metadata."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from intake_nwbzarr.errors import CredentialsError, LocationError
from intake_nwbzarr.location.options import checked_options
from intake_nwbzarr.location.urls import may_show_password

MASK = "****"

_OPTIONS = ("storage_options", "table_options")

_SECRET_NAME = re.compile(
    r"key|secret|token|pass(word|wd|phrase)?$|credential|auth|cookie|signature|headers|username|connection_string",
    re.IGNORECASE,
)
# A template of Intake 1, `{{ env(NAME) }}`, or Intake 2, `{env(NAME)}`.
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}|\{[^{}]*\}")
# User name and password, which may contain slashes: text after a colon that is not a port number.
_USERINFO = re.compile(r"(?<=://)(?:[^/?#]*|[^/:?#]*:(?!\d+/)[^?#]*)@")
# What Jinja, with which Intake renders the arguments and metadata of an entry, does not leave as it is.
_RENDERED = re.compile(r"\{[{%#]|[\r\n]")
_QUERY = re.compile(r"(?<=\?)[^#\s]+")
_FRAGMENT = re.compile(r"(?<=#)\S+")


def masked_options(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return storage options with `MASK` for every secret; templates of environment variables are kept.

    >>> masked_options({"key": "AKIA", "secret": "{{ env(MY_SECRET) }}", "anon": False})
    {'key': '****', 'secret': '{{ env(MY_SECRET) }}', 'anon': False}
    """
    if options is None:
        return None
    return {
        str(name): _masked(value, bool(_SECRET_NAME.search(str(name)))) for name, value in options.items()
    }


def masked_url(url: object) -> str:
    """Return a URL with `MASK` for user name, password and query, or for all of a mistyped URL.

    >>> masked_url("https://me:pass@host/a.nwb.zarr?X-Amz-Signature=0a1b")
    'https://****@host/a.nwb.zarr?****'
    """
    text = str(url)
    is_local = text.startswith(("file://", "local://"))
    without_userinfo = text if is_local else _USERINFO.sub(f"{MASK}@", text)
    if may_show_password(_TEMPLATE.sub("any", without_userinfo)):
        return MASK
    if "://" not in text or is_local:
        return text
    masked = _QUERY.sub(MASK, without_userinfo)
    # S3 keys may contain "#".
    return _FRAGMENT.sub(MASK, masked) if re.search("https?://", text) else masked


def saved_entry(
    driver: str, description: str | None, metadata: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an entry of a catalog file, whose values are exactly these when it is opened.

    Intake renders all texts in the arguments and the metadata as templates. Names in data may look like
    templates, and would then be run. Storage options are those of whoever opens the data, and stay templates.
    """
    return {
        "driver": driver,
        "description": description or "",
        "metadata": _literal(metadata),
        "args": {name: value if name in _OPTIONS else _literal(value) for name, value in arguments.items()},
    }


def _literal(value: Any) -> Any:
    """Return a value that Jinja renders as this one."""
    match value:
        case Mapping():
            return {name: _literal(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_literal(inner) for inner in value]
        case str() if _RENDERED.search(value):
            # A text of JSON is one of Jinja as well.
            return f"{{{{ {json.dumps(value, ensure_ascii=False)} }}}}"
        case _:
            return value


def masked_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an entry with `MASK` for every secret in its URL and storage options."""
    masked = {**arguments, "urlpath": masked_url(arguments["urlpath"])}
    for name in _OPTIONS:
        if isinstance(options := arguments.get(name), Mapping):
            masked[name] = masked_options(options)
    return masked


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


if TYPE_CHECKING:
    import pynwb

    from intake_nwbzarr.location.location import Location, Place
    from intake_nwbzarr.mapping.find import Group

# Options that would select another identity or server if an empty value were ignored.
_NEVER_EMPTY = frozenset(
    {"key", "secret", "token", "profile", "username", "password", "endpoint_url"}
    | {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
)
# `{{ env(NAME) }}`, which Intake replaces by an empty string when the variable is not set.
_WITHOUT_DEFAULT = re.compile(r"\{\{\s*env\(\s*['\"]?([^'\"),\s]+)['\"]?\s*\)\s*\}\}")
_VARIABLE = re.compile(r"env\(\s*['\"]?([^'\"),\s]+)")


def entry_location(
    urlpath: Place, storage_options: Mapping[str, Any] | None, templates: Mapping[str, Any] | None = None
) -> Location:
    """Return the location of a catalog entry after Intake has filled in its templates."""
    # Intake fills in an empty string, or the word None, for an environment variable that is not set. The
    # original templates, by argument, let errors name the variable.
    from intake_nwbzarr.location.location import locate

    storage_options = checked_options(storage_options)
    given = templates or {}
    check_url(urlpath, given.get("urlpath"))
    check_credentials(urlpath, storage_options, given.get("storage_options"))
    return locate(urlpath, storage_options)


def check_url(urlpath: Place, template: object) -> None:
    """Refuse a URL that an environment variable which is not set has left incomplete."""
    if not isinstance(urlpath, str):
        return
    variable = _unset_variable(template, urlpath) if isinstance(template, str) else None
    if variable is not None:
        raise LocationError(
            f"The environment variable {variable} in the urlpath {masked_url(template)!r} is not set.",
            found=variable,
            next_step=f"Set it, or give a default: env({variable!r}, '...').",
        )
    if re.match(r"\w+://None(/|$)", urlpath):
        raise LocationError(
            f"{masked_url(urlpath)} begins with the word None, which Intake fills in for an environment "
            "variable that is not set.",
            location=masked_url(urlpath),
            next_step="Set the environment variable that the catalog names.",
        )


def _unset_variable(template: str, filled: str) -> str | None:
    """Return the unset variable for which Intake filled in nothing, if that explains the result."""
    unset = []

    def pattern(part: str) -> str:
        variable = _WITHOUT_DEFAULT.fullmatch(part)
        if variable and variable[1] not in os.environ:
            unset.append(variable[1])
            return ""
        return ".*" if part.startswith("{{") else re.escape(part)

    made = "".join(pattern(part) for part in re.split(r"(\{\{.*?\}\})", template))
    return unset[0] if unset and re.fullmatch(made, filled) else None


def check_credentials(urlpath: Place, storage_options: Mapping[str, Any], templates: object) -> None:
    """Refuse storage options with an empty or masked secret."""
    for path, value in _leaves(storage_options):
        is_empty = value is None or (isinstance(value, str) and value in {"", "None", MASK})
        if path[-1] not in _NEVER_EMPTY or not is_empty:
            continue
        option, url = ".".join(path), masked_url(urlpath)
        option_of_entry = f"The storage option {option!r} of the entry for {url}"
        if value == MASK:
            raise CredentialsError(
                f"{option_of_entry} is {MASK!r}, which replaced a secret when the entry was saved.",
                location=url,
                path=option,
                found=MASK,
                next_step="Take it from an environment variable, {{ env(NAME) }} in Intake 1 and {env(NAME)} "
                "in Intake 2, or omit it to use the AWS_* variables or a profile.",
            )
        known = dict(_leaves(templates)) if isinstance(templates, Mapping) else {}
        variable = _VARIABLE.search(str(known.get(path, "")))
        cause = f"variable {variable[1]} is not set" if variable else "variable in it is probably not set"
        raise CredentialsError(
            f"{option_of_entry} is empty: the environment {cause}.",
            location=url,
            path=option,
            found=variable[1] if variable else None,
            next_step="Set it, or omit the option to use the AWS_* variables or a profile.",
        )


def open_raw(location: Location, keywords: Mapping[str, Any]) -> pynwb.NWBFile:
    """Open the session of an entry with pynwb; of the keywords, only ``consolidated`` is used."""
    from intake_nwbzarr.raw import open_nwb

    return open_nwb(location, consolidated=keywords.get("consolidated"))


def summary(location: Location, group: Group | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return shapes, dtypes and attributes of a session as a dict, without reading data."""
    import xarray as xr

    dataset = xr.open_dataset(location, engine="nwbzarr", group=group, **keywords)  # type: ignore[arg-type]
    variables = {
        str(name): {
            "dims": tuple(map(str, variable.dims)),
            "shape": variable.shape,
            "dtype": str(variable.dtype),
            "nbytes": variable.nbytes,
            "attrs": dict(variable.attrs),
        }
        for name, variable in dataset.variables.items()
    }
    return {
        "dims": {str(name): size for name, size in dataset.sizes.items()},
        "shape": {name: variable["shape"] for name, variable in variables.items()},
        "dtype": {name: variable["dtype"] for name, variable in variables.items()},
        "variables": variables,
        "nbytes": dataset.nbytes,
        "attrs": dict(dataset.attrs),
    }


def _leaves(options: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value
