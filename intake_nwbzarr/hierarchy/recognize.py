"""Which of both is stored at a location: a Zarr store or an HDF5 file."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Final

from intake_nwbzarr.errors import (
    AccessError,
    CredentialsError,
    LocationNotFoundError,
    NotZarrError,
    ResponseError,
)
from intake_nwbzarr.hdf5.objects import SIGNATURE
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.transport.answers import HDF5_NAMES
from intake_nwbzarr.transport.base import Transport, begin_session

# Files of the DANDI archive, in its bucket and as its API redirects to them; its Zarr stores have other URLs.
_DANDI_FILE: Final = re.compile(
    r"/blobs/[0-9a-f]{3}/[0-9a-f]{3}/[0-9a-f-]{36}|/assets/[0-9a-f-]{36}/download/?"
)
_DANDI_STORE: Final = re.compile(r"/zarr/[0-9a-f-]{36}$")
# Where an HDF5 file can begin: after a user block of so many bytes.
_STARTS: Final = (0, *(512 * 2**power for power in range(12)))
MOST_FORMS: Final = 10_000
# Whether locations that this process has opened are HDF5 files.
forms: OrderedDict[Hashable, bool] = OrderedDict()


def load_recognized[T](
    location: Location, opener: Callable[[Location], Transport], load: Callable[[Transport], T]
) -> tuple[Transport, T]:
    """Return the transport of the Zarr store or HDF5 file at a location, and what is loaded by it.

    The contents decide which of them it is; a name, and what this process has found there before, only decide
    what is tried first. The transport's location has the option `hdf5` of a file that is HDF5.
    """
    first, *others = _candidates(location)
    try:
        return _load_as(first, opener, load)
    except CredentialsError:
        raise
    except (LocationNotFoundError, NotZarrError, AccessError, ResponseError) as error:
        # Where nothing is stored at the location itself, there is no file either.
        if not others or (not first.is_hdf5 and isinstance(error, LocationNotFoundError | ResponseError)):
            raise
        problem = error
    try:
        return _load_as(others[0], opener, load)
    except CredentialsError:
        raise
    except (LocationNotFoundError, NotZarrError, AccessError, ResponseError) as error:
        as_hdf5, as_zarr = (problem, error) if first.is_hdf5 else (error, problem)
    # That nothing was found is reported only where nothing else went wrong.
    nothing = LocationNotFoundError | NotZarrError
    if isinstance(as_zarr, nothing):
        raise as_zarr if isinstance(as_hdf5, nothing) else as_hdf5
    raise as_zarr if isinstance(problem, nothing) else problem


def _load_as[T](
    location: Location, opener: Callable[[Location], Transport], load: Callable[[Transport], T]
) -> tuple[Transport, T]:
    begin_session(location)
    transport = opener(location)
    loaded = load(transport)
    if location.store is None:
        key = _form_key(location)
        forms[key] = transport.location.is_hdf5
        forms.move_to_end(key)
        if len(forms) > MOST_FORMS:
            forms.popitem(last=False)
    return transport, loaded


def _candidates(location: Location) -> Sequence[Location]:
    """Return the location as a Zarr store and as an HDF5 file, the likelier one first."""
    if location.option("hdf5") is not None or location.store is not None:
        return [location]
    if location.path is not None and not location.url.endswith(".zip"):
        return [location.as_hdf5 if _is_hdf5(location.path) else location]
    known = forms.get(_form_key(location))
    both = [location.as_hdf5, location]
    return both if (_is_named_hdf5(location) if known is None else known) else both[::-1]


def _is_named_hdf5(location: Location) -> bool:
    name = location.url.partition("::")[0]
    return name.lower().endswith(HDF5_NAMES) or _DANDI_FILE.search(name) is not None


def is_undecided(location: Location) -> bool:
    """Return whether neither options nor the name, nor this process, tell what a location on a server is."""
    if location.option("hdf5") is not None or location.store is not None or location.path is not None:
        return False
    name = location.url.partition("::")[0].rstrip("/").lower()
    # What is named like an HDF5 file was asked for as one before.
    is_named_zarr = name.endswith((".zarr", ".zip")) or _DANDI_STORE.search(name) is not None
    return not is_named_zarr and not _is_named_hdf5(location) and _form_key(location) not in forms


def _form_key(location: Location) -> Hashable:
    return location.url, location.secrets


def _is_hdf5(path: Path) -> bool:
    """Return whether a local file is HDF5, perhaps with a user block before it."""
    try:
        # Opening a pipe would wait until another process writes to it.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            for start in _STARTS:
                file.seek(start)
                found = file.read(len(SIGNATURE))
                if found == SIGNATURE or not found:
                    return bool(found)
    except OSError:
        pass
    return False
