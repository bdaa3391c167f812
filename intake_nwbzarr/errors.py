"""Errors and warnings of this package.

Every error derives from `NWBZarrError` and from the built-in that a caller would catch::

    NWBZarrError
    ├── LocationError (ValueError)                a location or its options make no sense
    │   ├── LocationNotFoundError (FileNotFoundError)
    │   ├── NotZarrError                          something is there, but it is not Zarr
    │   │   └── HDF5FileError                     it is an HDF5 file
    │   └── NotNWBError                           Zarr, but not an NWB file
    ├── AccessError (PermissionError)             the server, or the operating system, refused
    │   └── CredentialsError                      missing, incomplete, expired or wrong credentials
    ├── TransportError (OSError)                  the wire, after retries
    │   ├── HostNotFoundError (ConnectionError)
    │   ├── ResponseError                         a response that contradicts its request
    │   └── ObjectChangedError                    replaced while it was being read
    ├── CacheError (OSError)                      a folder that no chunk cache may be kept in
    ├── DownloadError (OSError)                   a download that could not be written or completed
    ├── ForkError (RuntimeError)                  connections used in a forked child
    ├── LimitError (ValueError)                   larger, deeper or more than allowed
    ├── MetadataError (ValueError)                a metadata document that cannot be understood
    │   └── UnsafePathError                       a name that would leave the file
    ├── ListingError (OSError)                    a store without consolidated metadata cannot be listed
    ├── NodeNotFoundError (KeyError)              no such object in the file
    │   └── LinkError                             a link or reference that leads nowhere, or not where allowed
    ├── ChunkError (OSError)                      stored bytes that cannot be read as the array they belong to
    │   └── LegacyObjectError                     a pickled chunk that holds anything but inert values
    ├── SnapshotError (ValueError)                a snapshot that is damaged, or of a form that is not known
    │   ├── StaleSnapshotError                    the session has changed since it was made
    │   └── NotInSnapshotError (KeyError)         it holds other sessions
    ├── BoundsError (IndexError)                  a position outside of an array
    ├── OptionError (ValueError)                  a keyword has a value that means nothing
    │   └── SessionMismatchError                  what is given is of another session
    ├── ClosedError (ValueError)                  a file that was closed, or is only open for reading
    ├── SelectionError (KeyError, ValueError)     a selection that has no exact answer
    ├── AccessorError (AttributeError)            `ds.nwb` on a Dataset that does not say where it came from
    └── MissingPackageError (ImportError)         an optional package that is not installed
        └── DemoUnavailableError                  `nwbzarr demo` without the package that it needs
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Self


class NWBZarrError(Exception):
    """Base class of all errors of this package.

    The message says what was wrong, and where; `str` of an error adds the next step. What the message says is
    in the attributes too, for programs; they are kept when an error comes back from another process.

    Attributes
    ----------
    location : str or None
        The session or file, without secrets.
    path : str or None
        The path of the group, array or stored object inside the file.
    found, expected : object
        The value that was found or passed, and what is allowed instead.
    next_step : str or None
        What to do about it, as a sentence.
    transient : bool
        Whether trying the same again may help: after a reset or stalled connection, a timeout, a response of
        status 408, 429 or 5xx. Not after a refusal, and not for what is missing, damaged or has changed.
    """

    location: str | None = None
    path: str | None = None
    found: object = None
    expected: object = None
    next_step: str | None = None
    transient: bool = False

    def __init__(
        self,
        *arguments: object,
        location: object = None,
        path: str | None = None,
        found: object = None,
        expected: object = None,
        next_step: str | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(*arguments)
        self.location = None if location is None else str(location)
        self.path, self.found, self.expected = path, found, expected
        self.next_step, self.transient = next_step, transient

    def __str__(self) -> str:
        # KeyError shows the repr of its message; a sentence should read as one.
        parts = (*self.args, self.next_step)
        return " ".join(str(part) for part in parts if part is not None)


class LocationError(NWBZarrError, ValueError):
    """A location, or the options given with it, cannot be understood."""


class LocationNotFoundError(LocationError, FileNotFoundError):
    """Nothing is stored at the location."""

    def __new__(cls, *arguments: object, **_fields: object) -> Self:
        """Create one, also where a worker's error is rebuilt: ValueError, which comes first, cannot."""
        return OSError.__new__(cls, *arguments)


class NotZarrError(LocationError):
    """Something is stored at the location, but it is not a Zarr store."""


class HDF5FileError(NotZarrError):
    """The location is an HDF5 file."""


class NotNWBError(LocationError):
    """The location is a Zarr store, but not an NWB file."""


class AccessError(NWBZarrError, PermissionError):
    """The server or the operating system refused access."""


class CredentialsError(AccessError):
    """Credentials are missing, incomplete, expired or wrong."""


class TransportError(NWBZarrError, OSError):
    """A request failed for good: retries were spent, or none could help."""


class HostNotFoundError(TransportError, ConnectionError):
    """The host's name does not resolve."""


class ResponseError(TransportError):
    """A response contradicts its request: wrong length, wrong range, or not what was asked for."""


class ObjectChangedError(TransportError):
    """An object was replaced while it was being read."""


class CacheError(NWBZarrError, OSError):
    """A folder cannot, or must not, hold a chunk cache."""


class DownloadError(NWBZarrError, OSError):
    """A download could not be written or completed; what was there before is as it was."""


class ForkError(NWBZarrError, RuntimeError):
    """Connections were opened before this process was forked."""


class LimitError(NWBZarrError, ValueError):
    """Something is larger, deeper or more numerous than allowed."""


class MetadataError(NWBZarrError, ValueError):
    """A metadata document cannot be understood."""


class UnsafePathError(MetadataError):
    """A name in the data would lead out of the file."""


class ListingError(NWBZarrError, OSError):
    """A store without consolidated metadata cannot be listed."""


class NodeNotFoundError(NWBZarrError, KeyError):
    """No group or array of that name in the file."""


class LinkError(NodeNotFoundError):
    """A link or reference that leads nowhere, in a circle, or to a place that is not allowed."""


class ChunkError(NWBZarrError, OSError):
    """Stored bytes that cannot be read as the array they belong to."""


class LegacyObjectError(ChunkError):
    """A pickled chunk that holds anything but strings, numbers and object references."""


class SnapshotError(NWBZarrError, ValueError):
    """A snapshot is damaged, or has a form that is not known here."""


class StaleSnapshotError(SnapshotError):
    """A session has changed since its snapshot was made."""


class NotInSnapshotError(SnapshotError, KeyError):
    """A snapshot holds other sessions than the one that is opened."""


class BoundsError(NWBZarrError, IndexError):
    """A position, or a number of axes, outside of an array's shape."""


class OptionError(NWBZarrError, ValueError):
    """A keyword has a value that means nothing."""


class SessionMismatchError(OptionError):
    """What is given, such as events, is of another session than what it is given for."""


class ClosedError(NWBZarrError, ValueError):
    """A file that was closed is read, or one that is only open for reading is written."""


class SelectionError(NWBZarrError, KeyError, ValueError):
    """A selection, along time or of rows, that has no exact answer."""


class AccessorError(NWBZarrError, AttributeError):
    """`ds.nwb` was used on a Dataset that does not say where it came from."""


class MissingPackageError(NWBZarrError, ImportError):
    """Something needs an optional package that is not installed."""


class DemoUnavailableError(MissingPackageError):
    """The demo needs a package that is not installed."""


class NWBZarrWarning(UserWarning):
    """What every warning of this package derives from."""


class UnconsolidatedWarning(NWBZarrWarning):
    """A store has no consolidated metadata, so opening it takes a request for every object."""


class StaleMetadataWarning(NWBZarrWarning):
    """A session's consolidated metadata do not list an object that is stored."""


class SnapshotWarning(NWBZarrWarning):
    """A session is opened from a snapshot that cannot be compared with what is stored."""


class CacheWarning(NWBZarrWarning):
    """A chunk cache cannot be written for now; what is read is not kept."""


class DownloadWarning(NWBZarrWarning):
    """A download may lack what could not be found out about."""


class MappingWarning(NWBZarrWarning):
    """A session departs from the NWB schema in a way that changes how it is shown."""


def warn_caller(message: str, category: type[NWBZarrWarning] = MappingWarning) -> None:
    """Warn at the line of the caller's own code that led here, past this package, xarray and Intake.

    Parameters
    ----------
    message
        Names what was found, where, and what it means.
    category
        One of this module's warnings.
    """
    warnings.warn(message, category, stacklevel=2, skip_file_prefixes=_not_the_caller())


@cache
def _not_the_caller() -> tuple[str, ...]:
    found = (find_spec(name) for name in ("intake_nwbzarr", "xarray", "intake"))
    return tuple(str(Path(spec.origin).parent) for spec in found if spec and spec.origin)
