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
    ├── ConversionError (ValueError)              a session cannot be converted, or not to that destination
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
    found : object
        The value that was found or passed.
    expected : object
        What is allowed instead.
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
    """A location, or one of its storage options, is not valid.

    Cause: the location is not a string, path, store or `Location`; its URL cannot be read; or a storage
    option is unknown, contradicts another one, or does not apply to this kind of location.

    Next step: correct the URL or option that the message names; it suggests the closest name.
    `locations.md` lists all options.
    """


class LocationNotFoundError(LocationError, FileNotFoundError):
    """Nothing is stored at the location.

    Cause: the path, URL or bucket is misspelled; the session was moved or deleted; or a relative path is
    read in another folder than the one that was meant.

    Next step: check the spelling, and in which folder the process runs. For S3, `nwbzarr info
    s3://bucket/prefix` names what is wrong with the bucket.
    """

    def __new__(cls, *arguments: object, **_fields: object) -> Self:
        """Create an OSError: `ValueError.__new__`, first in the MRO, fails when distributed unpickles."""
        return OSError.__new__(cls, *arguments)


class NotZarrError(LocationError):
    """The location exists, but is neither a Zarr store nor an HDF5 file.

    Cause: the location is a folder or an object of another kind, such as the parent folder of a session,
    a web page, or a zip file of something else.

    Next step: pass the folder that contains `zarr.json`, `.zmetadata` or `.zgroup`, or an HDF5 file.
    """


class HDF5FileError(NotZarrError):
    """The location is an HDF5 file, and only a Zarr store can be used.

    Cause: an HDF5 file was passed to something that works on Zarr stores, such as `consolidate`, or with
    `storage_options={"hdf5": False}`.

    Next step: open it as it is, without that option. HDF5 files need no consolidated metadata.
    """


class NotNWBError(LocationError):
    """The location is a Zarr store or an HDF5 file, but not an NWB file.

    Cause: its root has not the neurodata type NWBFile: it is a group inside a session, the output of
    `ds.to_zarr()`, an OME-Zarr image or the like.

    Next step: pass the root of the NWB file, or open it with `engine="zarr"`.
    """


class AccessError(NWBZarrError, PermissionError):
    """The server or the operating system denied access.

    Cause: the response was 401 or 403, or file permissions do not allow reading. Buckets that deny
    listing also answer 403 for objects that do not exist.

    Next step: check the URL and your permissions; pass credentials (`profile`, keys, the environment), or
    `anon=True` for a public bucket whose owner refuses signed requests.
    """


class CredentialsError(AccessError):
    """Credentials are missing, incomplete, expired or wrong.

    Cause: a profile does not exist, only one of `key` and `secret` was passed, a token has expired, or a
    worker did not get the keys that stayed in the process that opened the session.

    Next step: log in again or name another profile; on clusters, give workers credentials of their own,
    or pass `ship_credentials=True`.
    """


class TransportError(NWBZarrError, OSError):
    """A request failed: all retries were used, or a retry could not help.

    Cause: the connection was reset, truncated or stalled, or the server answered with an error status.
    `transient` says whether it may work later.

    Next step: try again if `transient` is true; for slow servers, raise `timeouts` or lower
    `set_limits(requests=...)`. Otherwise see the status in the message.
    """


class HostNotFoundError(TransportError, ConnectionError):
    """The host name does not resolve.

    Cause: the host name is misspelled, or this machine has no network, no name server, or needs a proxy.

    Next step: check the URL and the network; proxies are set with `https_proxy`.
    """


class ResponseError(TransportError):
    """A response contradicts its request: its length, range or content is wrong.

    Cause: the server ignores range requests, a proxy changes responses, or the response is a page of a
    portal instead of the object.

    Next step: open the URL in a browser to see what is sent. For servers without range requests, use
    `simplecache::https://...`.
    """


class ObjectChangedError(TransportError):
    """An object was replaced while it was being read.

    Cause: somebody uploads or edits the session, so that ranges of one object have different ETags.

    Next step: open the session again; if it is still being uploaded, wait until that is complete.
    """


class CacheError(NWBZarrError, OSError):
    """A folder cannot, or must not, be used as a chunk cache.

    Cause: the folder of a `chunk_cache` belongs to another user, can be accessed by others, is a symbolic
    link, or has other contents.

    Next step: pass a folder of your own, or delete the one that the message names.
    """


class DownloadError(NWBZarrError, OSError):
    """A download could not be written or completed; existing files are unchanged.

    Cause: the disk is full, the target exists and is not an earlier download of this session, or another
    process downloads to it.

    Next step: make room or pass another folder, then run the same command again: it resumes.
    """


class ConversionError(NWBZarrError, ValueError):
    """A session cannot be converted as it is, or not to that destination.

    Cause: the destination has something else, or is the source; the source has parts that cannot be read;
    another process converts to the same place; or what was written is read back differently.

    Next step: pass an empty destination, or `skip_unreadable=True` to leave unreadable parts out.
    """


class ForkError(NWBZarrError, RuntimeError):
    """Connections that were opened before this process was forked are used in the child process.

    Cause: `multiprocessing` with the start method fork, or `os.fork()`, after the first read.

    Next step: start processes with `spawn` or `forkserver`, and open sessions in them.
    """


class LimitError(NWBZarrError, ValueError):
    """Data exceed a limit on size, depth or count.

    Cause: an array, chunk, document or number of objects is larger than real sessions need: the file is
    very large, damaged or malicious.

    Next step: if you trust the file and the message names a limit that can be set, raise it with
    `set_limits(...)`; otherwise compare it with the original.
    """


class MetadataError(NWBZarrError, ValueError):
    """A metadata document is not valid.

    Cause: a `zarr.json`, `.zarray` or `.zattrs`, or a header of an HDF5 file, is truncated or contradicts
    the specification.

    Next step: compare the file with its original, and copy or convert it again.
    """


class UnsafePathError(MetadataError):
    """A name in the data would lead outside the file.

    Cause: a name has `..`, an empty part, a backslash or a percent-encoded dot, or is absolute. No
    library writes such names by accident.

    Next step: do not trust the file; get it from its author.
    """


class ListingError(NWBZarrError, OSError):
    """A store without consolidated metadata cannot be listed.

    Cause: there are no consolidated metadata, and the server offers no listing (an ordinary web server)
    or denies it.

    Next step: ask the owner to run `nwbzarr consolidate`, or to allow listing (`s3:ListBucket`); use the
    `s3://` URL where there is one.
    """


class NodeNotFoundError(NWBZarrError, KeyError):
    """The file has no group or array of that name.

    Cause: the path in `group=` is misspelled, belongs to another session, or is not in consolidated
    metadata that are out of date.

    Next step: see `nwbzarr info LOCATION` for the paths; the message suggests close ones.
    """


class LinkError(NodeNotFoundError):
    """A link or reference has no target, is circular, or leads to a location that is not allowed.

    Cause: the target of a link was renamed or deleted, links lead in a circle, or an external link leaves
    the folder of the file.

    Next step: repair the link in the file; for files that you trust, pass
    `storage_options={"allow_external": True}`.
    """


class ChunkError(NWBZarrError, OSError):
    """Stored bytes cannot be decoded as part of their array.

    Cause: a chunk is damaged or truncated, its codec is not installed, or its metadata do not fit it.

    Next step: install the codec that the message names (`pip install "intake-nwbzarr[hdf5plugin]"`), or
    compare the chunk with the original; `nwbzarr verify` lists all damaged chunks.
    """


class LegacyObjectError(ChunkError):
    """A pickled chunk contains values other than strings, numbers and object references.

    Cause: the chunk was not written by hdmf-zarr, or somebody put code into it. It was not run.

    Next step: do not trust the file; get it from its author, or convert the original again.
    """


class SnapshotError(NWBZarrError, ValueError):
    """A snapshot is damaged, or its format is not supported.

    Cause: the file is truncated, is not a snapshot, or was written by a newer version of this package.

    Next step: make the snapshot again with `nwbzarr snapshot`, or update the package.
    """


class StaleSnapshotError(SnapshotError):
    """A session has changed since its snapshot was made.

    Cause: the ETag of the session's metadata differs from the one in the snapshot.

    Next step: make the snapshot again with the command in the message, or open without `snapshot=`.
    """


class NotInSnapshotError(SnapshotError, KeyError):
    """The session is not in the snapshot.

    Cause: the snapshot was made of other sessions, or from another URL of the same session.

    Next step: pass the URL that the snapshot was made from, or add the session: `nwbzarr snapshot
    LOCATION --add -o FILE`.
    """


class TableError(NWBZarrError, ValueError):
    """A table of sessions is damaged, was replaced while it was used, or has a newer format.

    Cause: a Parquet file was changed by hand, half of a pair is missing, a scan replaced the tables while
    they were read, or a newer version wrote them.

    Next step: open the tables again; if that does not help, scan again (`nwbzarr catalog scan`).
    """


class SessionNotFoundError(NWBZarrError, KeyError):
    """The tables, or the result of a search, have no such session.

    Cause: the key is spelled differently than in `list(catalog)`, or the search leaves the session out.

    Next step: use a key from `list(catalog)`, or scan the session into the tables.
    """


class StaleTableError(TableError):
    """A session has changed since it was scanned.

    Cause: the session was edited or uploaded again after the scan.

    Next step: scan again: only sessions that have changed are read.
    """


class MapError(NWBZarrError, RuntimeError):
    """Mapping a function over sessions ended early; results that are stored are kept.

    Cause: the map was stopped, or its folder cannot be read or written. `result` has what was done.

    Next step: run the same map again with the same `folder` and `name`: it resumes.

    Attributes
    ----------
    result : MapResult or None
        What was done until then, None where nothing had begun.
    """

    result: Any = None


class SessionFailedError(MapError):
    """A session failed, and `on_error="raise"` ends everything then.

    Cause: the function, or reading the session, raised an error, which is the `__cause__`.

    Next step: see `result.failures`; correct the function, and run the map again. Without
    `on_error="raise"`, failures are collected.
    """


class ClusterError(MapError):
    """The cluster has no workers left, lost its scheduler, or was closed.

    Cause: workers were stopped by the batch system, ran out of memory, or never started; or the client
    was closed.

    Next step: start workers, and run the same map again: with `folder=` it resumes.
    """


class SessionTimeoutError(NWBZarrError, TimeoutError):
    """A session was not finished, or an HDF5 file not read, in time, so its process was ended.

    Cause: the function hangs, or needs more time than `timeout=`; or an HDF5 file is constructed so that
    decoding it takes very long.

    Next step: pass a longer `timeout=`, or look at that session alone.
    """


class SessionCrashError(NWBZarrError, RuntimeError):
    """The process that worked on a session, or read an HDF5 file, crashed, or the system ended it.

    Cause: compiled code crashed, the system ended the process because memory ran out, or the function
    called `os._exit`.

    Next step: open that session alone; for HDF5 files of unknown origin, keep `isolate`.
    """


class SessionMemoryError(SessionCrashError):
    """The process of a session, or of an HDF5 file, took more memory than allowed, so it was ended.

    Cause: the function loads more than `memory_limit` allows, or a file expands to more than it should.

    Next step: read less at once, or pass a larger `memory_limit`.
    """


class ResultError(NWBZarrError, TypeError):
    """The result of a function cannot be stored as a table, or combined with those of other sessions.

    Cause: values have a type that Parquet cannot store, names occur twice, or sessions return different
    columns.

    Next step: return numbers, texts, DataFrames or xarray objects of the same form for all sessions.
    """


class BoundsError(NWBZarrError, IndexError):
    """An index is outside the shape of an array, or has the wrong number of dimensions.

    Cause: an index of a stored array is too large, or a selection has more dimensions than the array.

    Next step: compare the selection with `shape`.
    """


class OptionError(NWBZarrError, ValueError):
    """An argument has an invalid value.

    Cause: a keyword has a value of another type, out of range, or misspelled.

    Next step: see the message, which names the allowed values.
    """


class SessionMismatchError(OptionError):
    """An argument, such as events, belongs to another session than the Dataset it is used with.

    Cause: objects of two sessions are combined, whose times have different zeros.

    Next step: open both from the same session. For files that share one clock, drop the attributes:
    `events.drop_attrs(deep=False)`.
    """


class ClosedError(NWBZarrError, ValueError):
    """A closed file is read, or a file open for reading only is written.

    Cause: data of an `NWBFile` are read after its `with` block, or something writes to a store of this
    package.

    Next step: read inside the block, or open the session again. Write to a copy of the file.
    """


class SelectionError(NWBZarrError, KeyError, ValueError):
    """A selection along time, or of rows, has no exact result.

    Cause: no sample has that time, labels are not unique, or times are not sorted.

    Next step: pass `method="nearest"` and a tolerance, or select by position with `isel`.
    """


class AccessorError(NWBZarrError, AttributeError):
    """`ds.nwb` was used on a Dataset whose attributes do not name its session.

    Cause: the Dataset was not opened by this package, or arithmetic dropped its attributes.

    Next step: keep attributes (`xr.set_options(keep_attrs=True)`), or use the Dataset as it was opened.
    """


class MissingPackageError(NWBZarrError, ImportError):
    """An optional package is not installed.

    Cause: a feature needs a package that is not a dependency.

    Next step: install it with the `pip install` command in the message.
    """


class DemoUnavailableError(MissingPackageError):
    """A package that the demo needs is not installed.

    Cause: the demonstration's S3 server needs moto.

    Next step: `pip install "intake-nwbzarr[demo]"`.
    """


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
    """A store has no consolidated metadata, so opening it takes a request per group and array.

    Cause: hdmf-zarr before 0.5 wrote the session, or it was written without consolidating.

    Next step: its owner can run `nwbzarr consolidate LOCATION`.
    """


class StaleMetadataWarning(NWBZarrWarning):
    """The consolidated metadata of a session do not list an object that is stored.

    Cause: the session was edited after its metadata were consolidated.

    Next step: its owner can run `nwbzarr consolidate LOCATION`; meanwhile pass `consolidated=False` to
    see everything.
    """


class UnreadableWarning(NWBZarrWarning):
    """An HDF5 file has objects or attributes of kinds that cannot be read, such as region references.

    Cause: the file uses features of HDF5 that are not read here; `hdf5.md` lists them.

    Next step: all other objects can be used; read these with h5py or pynwb.
    """


class SnapshotWarning(NWBZarrWarning):
    """A session is opened from a snapshot that cannot be compared with the stored session.

    Cause: the storage has no ETags, and cannot be listed.

    Next step: open without `snapshot=` if the session may have changed.
    """


class CacheWarning(NWBZarrWarning):
    """A chunk cache cannot be written; chunks that are read are not cached.

    Cause: the disk is full, or the folder became read-only.

    Next step: free space, or set a smaller `chunk_cache`. Nothing is lost: data are read from the server.
    """


class DownloadWarning(NWBZarrWarning):
    """A download may be incomplete, because not all of the session could be inspected.

    Cause: the server offers no listing, and the consolidated metadata do not name everything.

    Next step: download from an `s3://` URL that can be listed, or run `nwbzarr verify` on the copy.
    """


class ConversionWarning(NWBZarrWarning):
    """A converted session has links that readers may not be able to follow, or lacks unreadable parts.

    Cause: the source links to other files, or has arrays that cannot be read here.

    Next step: convert the files that are linked as well, to the same places relative to each other; look at
    the parts that the message names in the source.
    """


class MapWarning(NWBZarrWarning):
    """Results of a changed function are kept, or the outcome of map() over sessions cannot be stored.

    Cause: code of the function has changed under the same name, or the folder cannot be written.

    Next step: pass another `name=`, or `resume=False`.
    """


class SessionsWarning(NWBZarrWarning):
    """Some of many sessions could not be read or lack data, or none has a value that is searched for.

    Cause: a session is damaged, lacks the table or column, or a text in a condition is misspelled.

    Next step: see `attrs["failures"]` and `attrs["missing"]` of the frame, and the value that the message
    suggests.
    """


class MappingWarning(NWBZarrWarning):
    """A session departs from the NWB schema in a way that changes how it is mapped to xarray.

    Cause: for example, axes are swapped, times are missing or have another length than the data, or an
    object is damaged.

    Next step: the message says what was done instead. Correct the file if you can; `nwbzarr verify`
    compares it with pynwb.
    """


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
