"""Errors and warnings of this package.

Every error derives from `NWBZarrError` and from the built-in exception that a caller would catch::

    NWBZarrError
    ├── LocationError (ValueError)                a location or storage option is not valid
    │   ├── LocationNotFoundError (FileNotFoundError)
    │   ├── NotZarrError                          the location exists, but is neither Zarr nor HDF5
    │   │   └── HDF5FileError                     it is an HDF5 file where only a Zarr store will do
    │   └── NotNWBError                           it is Zarr or HDF5, but not an NWB file
    ├── AccessError (PermissionError)             the server or the operating system denied access
    │   └── CredentialsError                      credentials are missing, incomplete, expired or wrong
    ├── TransportError (OSError)                  a request failed, after retries
    │   ├── HostNotFoundError (ConnectionError)
    │   ├── ResponseError                         a response contradicts its request
    │   └── ObjectChangedError                    an object was replaced while it was being read
    ├── CacheError (OSError)                      a folder cannot be used as a chunk cache
    ├── DownloadError (OSError)                   a download could not be written or completed
    ├── ForkError (RuntimeError)                  connections were used in a forked child process
    ├── LimitError (ValueError)                   data exceed a size, depth or count limit
    ├── MetadataError (ValueError)                a metadata document is not valid
    │   └── UnsafePathError                       a name would lead outside the file
    ├── ListingError (OSError)                    a store without consolidated metadata cannot be listed
    ├── NodeNotFoundError (KeyError)              no such object in the file
    │   └── LinkError                             a link or reference that cannot or must not be followed
    ├── ChunkError (OSError)                      stored bytes cannot be decoded as part of their array
    │   └── LegacyObjectError                     a pickled chunk contains more than inert values
    ├── SnapshotError (ValueError)                a snapshot is damaged, or its format is not supported
    │   ├── StaleSnapshotError                    the session has changed since the snapshot was made
    │   └── NotInSnapshotError (KeyError)         the session is not in the snapshot
    ├── TableError (ValueError)                   a table of sessions is damaged, replaced, or too new
    │   └── StaleTableError                       a session has changed since it was scanned
    ├── SessionNotFoundError (KeyError)           no such session in the tables
    ├── MapError (RuntimeError)                   map() over many sessions ended early
    │   ├── SessionFailedError                    a session failed, with on_error="raise"
    │   └── ClusterError                          the cluster has no workers left, or was closed
    ├── SessionTimeoutError (TimeoutError)        a session, or an HDF5 file, took too long
    ├── SessionCrashError (RuntimeError)          the process of a session, or of a file, ended
    │   └── SessionMemoryError                    it took more memory than allowed
    ├── ResultError (TypeError)                   a function's result cannot be stored or combined
    ├── BoundsError (IndexError)                  a position outside an array
    ├── OptionError (ValueError)                  an argument has an invalid value
    │   └── SessionMismatchError                  an argument belongs to another session
    ├── ClosedError (ValueError)                  a closed file is read, or a read-only file is written
    ├── SelectionError (KeyError, ValueError)     a selection has no exact result
    ├── AccessorError (AttributeError)            `ds.nwb` on a Dataset of unknown origin
    └── MissingPackageError (ImportError)         an optional package is not installed
        └── DemoUnavailableError                  `nwbzarr demo` without a package that it needs
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self


class NWBZarrError(Exception):
    """Base class of all errors of this package.

    The message says what is wrong and where; `str()` of an error appends the next step. The attributes hold
    the same facts for programs, and survive pickling between processes.

    Attributes
    ----------
    location : str or None
        The session or file, without secrets.
    path : str or None
        The path of the group, array or stored object inside the file.
    found, expected : object
        The value that was found or passed, and what is allowed instead.
    next_step : str or None
        How to fix it, as a sentence.
    transient : bool
        Whether a retry may succeed: True after a reset or stalled connection, a timeout, or a response with
        status 408, 429 or 5xx; False where access was denied or data are missing, damaged or changed.
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

    def __reduce__(self) -> tuple[object, ...]:
        # Whatever a caller passed may not be picklable; errors come back from workers all the same.
        fields = dict(self.__dict__)
        for name in ("found", "expected"):
            if not isinstance(fields.get(name), str | int | float | None):
                fields[name] = repr(fields[name])
        return type(self), self.args, fields

    def __str__(self) -> str:
        # str() of a KeyError is the repr of its message.
        parts = (*self.args, self.next_step)
        return " ".join(str(part) for part in parts if part is not None)


class LocationError(NWBZarrError, ValueError):
    """A location, or one of its storage options, is not valid."""


class LocationNotFoundError(LocationError, FileNotFoundError):
    """Nothing is stored at the location."""

    def __new__(cls, *arguments: object, **_fields: object) -> Self:
        """Create an OSError: `ValueError.__new__`, first in the MRO, fails when distributed unpickles."""
        return OSError.__new__(cls, *arguments)


class NotZarrError(LocationError):
    """The location exists, but is neither a Zarr store nor an HDF5 file."""


class HDF5FileError(NotZarrError):
    """The location is an HDF5 file, and only a Zarr store can be used."""


class NotNWBError(LocationError):
    """The location is a Zarr store or an HDF5 file, but not an NWB file."""


class AccessError(NWBZarrError, PermissionError):
    """The server or the operating system denied access."""


class CredentialsError(AccessError):
    """Credentials are missing, incomplete, expired or wrong."""


class TransportError(NWBZarrError, OSError):
    """A request failed: all retries were used, or a retry could not help."""


class HostNotFoundError(TransportError, ConnectionError):
    """The host name does not resolve."""


class ResponseError(TransportError):
    """A response contradicts its request: its length, range or content is wrong."""


class ObjectChangedError(TransportError):
    """An object was replaced while it was being read."""


class CacheError(NWBZarrError, OSError):
    """A folder cannot, or must not, be used as a chunk cache."""


class DownloadError(NWBZarrError, OSError):
    """A download could not be written or completed; existing files are unchanged."""


class ForkError(NWBZarrError, RuntimeError):
    """Connections that were opened before this process was forked are used in the child process."""


class LimitError(NWBZarrError, ValueError):
    """Data exceed a limit on size, depth or count."""


class MetadataError(NWBZarrError, ValueError):
    """A metadata document is not valid."""


class UnsafePathError(MetadataError):
    """A name in the data would lead outside the file."""


class ListingError(NWBZarrError, OSError):
    """A store without consolidated metadata cannot be listed."""


class NodeNotFoundError(NWBZarrError, KeyError):
    """The file has no group or array of that name."""


class LinkError(NodeNotFoundError):
    """A link or reference has no target, is circular, or leads to a location that is not allowed."""


class ChunkError(NWBZarrError, OSError):
    """Stored bytes cannot be decoded as part of their array."""


class LegacyObjectError(ChunkError):
    """A pickled chunk contains values other than strings, numbers and object references."""


class SnapshotError(NWBZarrError, ValueError):
    """A snapshot is damaged, or its format is not supported."""


class StaleSnapshotError(SnapshotError):
    """A session has changed since its snapshot was made."""


class NotInSnapshotError(SnapshotError, KeyError):
    """The session is not in the snapshot."""


class TableError(NWBZarrError, ValueError):
    """A table of sessions is damaged, was replaced while it was used, or has a newer format."""


class SessionNotFoundError(NWBZarrError, KeyError):
    """The tables, or the result of a search, have no such session."""


class StaleTableError(TableError):
    """A session has changed since it was scanned."""


class MapError(NWBZarrError, RuntimeError):
    """Mapping a function over sessions ended early; results that are stored are kept.

    Attributes
    ----------
    result : MapResult or None
        What was done until then, None where nothing had begun.
    """

    result: Any = None


class SessionFailedError(MapError):
    """A session failed, and `on_error="raise"` ends everything then."""


class ClusterError(MapError):
    """The cluster has no workers left, lost its scheduler, or was closed."""


class SessionTimeoutError(NWBZarrError, TimeoutError):
    """A session was not finished, or an HDF5 file not read, in time, so its process was ended."""


class SessionCrashError(NWBZarrError, RuntimeError):
    """The process that worked on a session, or read an HDF5 file, crashed, or the system ended it."""


class SessionMemoryError(SessionCrashError):
    """The process of a session, or of an HDF5 file, took more memory than allowed, so it was ended."""


class ResultError(NWBZarrError, TypeError):
    """The result of a function cannot be stored as a table, or combined with those of other sessions."""


class BoundsError(NWBZarrError, IndexError):
    """An index is outside the shape of an array, or has the wrong number of dimensions."""


class OptionError(NWBZarrError, ValueError):
    """An argument has an invalid value."""


class SessionMismatchError(OptionError):
    """An argument, such as events, belongs to another session than the Dataset it is used with."""


class ClosedError(NWBZarrError, ValueError):
    """A closed file is read, or a file open for reading only is written."""


class SelectionError(NWBZarrError, KeyError, ValueError):
    """A selection along time, or of rows, has no exact result."""


class AccessorError(NWBZarrError, AttributeError):
    """`ds.nwb` was used on a Dataset whose attributes do not name its session."""


class MissingPackageError(NWBZarrError, ImportError):
    """An optional package is not installed."""


class DemoUnavailableError(MissingPackageError):
    """A package that the demo needs is not installed."""


def import_optional(name: str, extra: str, use: str) -> Any:
    """Import a module of an optional package, or raise `MissingPackageError` with its extra."""
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
    raise MissingPackageError(
        f"{use} needs the package {package}, which is not installed.",
        found=package,
        next_step=f'Install it with: pip install "intake-nwbzarr[{extra}]".',
    )


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str | None:
    """Return a question that suggests the known names closest to a misspelled one, None without any."""
    names = list(known)
    in_other_case = [each for each in names if each.lower() == name.lower()][:most]
    close = in_other_case or get_close_matches(name, names, n=most, cutoff=0.7)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else None


@contextmanager
def with_advice(advice: str | None) -> Iterator[None]:
    """Put advice before the next step of errors about locations that are not found or not accessible."""
    try:
        yield
    except (AccessError, HostNotFoundError, LocationNotFoundError) as error:
        if advice is not None and advice not in (error.next_step or ""):
            error.next_step = advice if error.next_step is None else f"{advice} {error.next_step}"
        raise


class NWBZarrWarning(UserWarning):
    """Base class of all warnings of this package.

    Attributes
    ----------
    code : str
        What is warned of, as ``nwbzarr check`` reports it and ``nwbzarr explain`` explains it; empty for
        warnings of operations such as ``restrict`` or ``map``.
    path : str or None
        The path of the object in the file, where the warning is about one.
    """

    code: str = ""
    path: str | None = None


class UnconsolidatedWarning(NWBZarrWarning):
    """A store has no consolidated metadata, so opening it takes a request per group and array."""


class StaleMetadataWarning(NWBZarrWarning):
    """The consolidated metadata of a session do not list an object that is stored."""


class UnreadableWarning(NWBZarrWarning):
    """An HDF5 file has objects or attributes of kinds that cannot be read, such as region references."""


class SnapshotWarning(NWBZarrWarning):
    """A session is opened from a snapshot that cannot be compared with the stored session."""


class CacheWarning(NWBZarrWarning):
    """A chunk cache cannot be written; chunks that are read are not cached."""


class DownloadWarning(NWBZarrWarning):
    """A download may be incomplete, because not all of the session could be inspected."""


class MapWarning(NWBZarrWarning):
    """Results of a changed function are kept, or the outcome of map() over sessions cannot be stored."""


class SessionsWarning(NWBZarrWarning):
    """Some of many sessions could not be read or lack data, or none has a value that is searched for."""


class MappingWarning(NWBZarrWarning):
    """A session departs from the NWB schema in a way that changes how it is mapped to xarray."""


def warn_caller(
    message: str,
    category: type[NWBZarrWarning] = MappingWarning,
    *,
    code: str = "",
    path: str | None = None,
) -> None:
    """Issue a warning at the line that called this package, skipping frames of xarray and Intake."""
    warning = category(message)
    warning.code, warning.path = code, path
    warnings.warn(warning, stacklevel=2, skip_file_prefixes=_skipped_prefixes())


def code_of_skipped(error: Exception) -> str:
    """Return the code of a warning that an object is skipped: it is damaged, or out of a link's reach."""
    unreachable = (LocationError, AccessError, TransportError, ListingError, NodeNotFoundError)
    return "dangling-link" if isinstance(error, unreachable) else "damaged-object"


@cache
def _skipped_prefixes() -> tuple[str, ...]:
    found = (find_spec(name) for name in ("intake_nwbzarr", "xarray", "intake"))
    return tuple(str(Path(spec.origin).parent) for spec in found if spec and spec.origin)
