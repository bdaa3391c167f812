"""What both Intakes do with an entry: locate it, open it, summarise it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from intake_nwbzarr.catalog.masking import MASK, masked_url
from intake_nwbzarr.errors import CredentialsError

if TYPE_CHECKING:
    import pynwb
    import xarray as xr

    from intake_nwbzarr.location import Location, Place

# Options that, when empty, would silently mean another identity or another server.
_NEVER_EMPTY = frozenset(
    {"key", "secret", "token", "profile", "username", "password", "endpoint_url"}
    | {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
)
_INSTEAD = "to use the AWS_* variables or a profile"
_VARIABLE = re.compile(r"env\(\s*['\"]?([^'\"),\s]+)")


def entry_location(
    urlpath: Place, storage_options: Mapping[str, Any] | None, templates: Mapping[str, Any] | None = None
) -> Location:
    """The location of a catalog's entry, whose templates are filled in.

    Parameters
    ----------
    urlpath, storage_options
        As the catalog gives them.
    templates
        The storage options before Intake filled in their templates, where they are known, so that an error
        can name the variable.

    Raises
    ------
    CredentialsError
        When a credential, profile or endpoint is empty: Intake fills in nothing, or the word None, for an
        environment variable that is not set.
    """
    from intake_nwbzarr.location import locate

    for path, value in _leaves(storage_options or {}):
        if path[-1] not in _NEVER_EMPTY or value not in (None, "", "None", MASK):
            continue
        where = f"The storage option {'.'.join(path)!r} of the entry for {masked_url(urlpath)}"
        if value == MASK:
            raise CredentialsError(
                f"{where} is {MASK!r}, which took a secret's place when the entry was saved. Take it from an "
                "environment variable, {{ env(NAME) }} in Intake 1 and {env(NAME)} in Intake 2, or leave it "
                f"out {_INSTEAD}."
            )
        variable = _VARIABLE.search(str(dict(_leaves(templates or {})).get(path, "")))
        cause = (
            f"the environment variable {variable[1]}, which it comes from, is not set"
            if variable
            else "the environment variable it comes from is probably not set"
        )
        raise CredentialsError(f"{where} is empty: {cause}. Set it, or leave the option out {_INSTEAD}.")
    return locate(urlpath, storage_options)


def open_dask(location: Location, group: str | None, chunks: Any, keywords: Mapping[str, Any]) -> xr.Dataset:
    """The session, or one of its objects, as a Dataset of dask arrays.

    What `xarray.open_dataset` does with ``chunks``, except that coordinates with an index stay as they are (a
    time index computes or bisects its times, which tasks could only slow down), that smaller chunks than the
    preferred ones are no reason for a warning (those are multiples of the stored chunks), and that the names
    of tasks are the same wherever and whenever the session is opened.

    Parameters
    ----------
    location, group, keywords
        What to open, and how.
    chunks
        By dimension, or one size for all; dimensions not named get whole multiples of the stored chunks, and
        so do all with ``{}`` and ``"auto"``.
    """
    import xarray as xr
    from dask.base import tokenize

    dataset = xr.open_dataset(location, engine="nwbzarr", cache=False, group=group, **keywords)  # type: ignore[arg-type]
    opened = tokenize(location, dataset.encoding.get("etag"), group, dict(keywords))
    chunked = {}
    for name, variable in dataset.variables.items():
        preferred = variable.encoding.get("preferred_chunks")
        if preferred is None or variable.ndim == 0 or name in dataset.xindexes:
            continue
        match chunks:
            case Mapping():
                sizes = preferred | {dim: chunks[dim] for dim in variable.dims if dim in chunks}
            case None | "auto":
                sizes = preferred
            case _:
                sizes = dict.fromkeys(variable.dims, chunks)
        chunked[name] = variable.chunk(sizes, name=f"{name}-{tokenize(opened, name, str(sizes))}")
    return dataset.assign(chunked)


def open_raw(location: Location) -> pynwb.NWBFile:
    """The session as pynwb reads it."""
    from intake_nwbzarr.raw import open_nwb

    return open_nwb(location)


def summary(location: Location, group: str | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes, types and attributes, from metadata alone.

    Returns
    -------
    dict
        ``dims`` (name to length); ``shape`` and ``dtype`` (of each variable); ``variables`` (of each, its
        dims, shape, dtype, bytes and attributes); ``nbytes``; ``attrs``, the session's metadata.
    """
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
