"""Convert a session, HDF5 or Zarr, to consolidated, sharded Zarr 3 in the form of hdmf-zarr 0.14."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from zarr.abc.store import Store

from intake_nwbzarr.arguments import check_bool, invalid_argument, local_path, takes_storage_options
from intake_nwbzarr.checks.verify import VerifyProgress
from intake_nwbzarr.checks.verify import verify as verify_session
from intake_nwbzarr.conversion.journal import Journal
from intake_nwbzarr.conversion.layout import ArrayPlan, LayoutOptions, plan_array
from intake_nwbzarr.conversion.links import Relinked, mutual_links
from intake_nwbzarr.conversion.report import Conversion, ConvertProgress
from intake_nwbzarr.conversion.write import Writing
from intake_nwbzarr.copies.local_files import acquire, not_written, release
from intake_nwbzarr.errors import (
    AccessError,
    ConversionError,
    ConversionWarning,
    CredentialsError,
    ListingError,
    MetadataError,
    ObjectChangedError,
    UnconsolidatedWarning,
    UnreadableWarning,
    warn_caller,
)
from intake_nwbzarr.hierarchy.consolidate import zarr_3_document
from intake_nwbzarr.hierarchy.documents import Documents, load_json
from intake_nwbzarr.hierarchy.hierarchy import UNREACHABLE, Hierarchy, open_hierarchy
from intake_nwbzarr.hierarchy.nodes import GroupNode
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.answers import Listed
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import gather, run
from intake_nwbzarr.transport.open import open_transport

_FORM: Final = 1
"""Changes when other bytes are written for the same session and options."""

MOST_NAMED: Final = 5
"""Parts that cannot be read and are named in an error."""


@takes_storage_options
def convert(
    source: str | os.PathLike[str] | Location | Store,
    destination: str | os.PathLike[str] | Location,
    storage_options: Mapping[str, Any] | None = None,
    *,
    destination_options: Mapping[str, Any] | None = None,
    chunk_mib: float = 4,
    shard_mib: float = 64,
    compressor: str = "keep",
    skip_unreadable: bool = False,
    verify: bool = True,
    dry_run: bool = False,
    progress: Callable[[ConvertProgress], None] | None = None,
) -> Conversion:
    """Convert a session to consolidated, sharded Zarr 3, in the form that hdmf-zarr 0.14 writes.

    The source is not changed. The metadata of the root are written last, so that an unfinished destination
    cannot be opened; the same call then resumes the conversion, or begins it anew if the source has changed.
    Objects of the destination are read again and compared as they are written.

    Parameters
    ----------
    source
        The session: anything that can be opened, HDF5, Zarr 2 or Zarr 3.
    destination
        A local folder, or an ``s3`` URL, with nothing in it.
    storage_options
        Credentials and other options of the source, named as in s3fs and fsspec.
    destination_options
        The same of the destination.
    chunk_mib
        Decoded MiB of a chunk. Chunks of the source keep their shape from a sixteenth of that to eight times
        as many: 256 KiB to 32 MiB.
    shard_mib
        Decoded MiB of a shard, the stored object of a large array.
    compressor
        ``"keep"`` keeps the source's codecs where Zarr 3 has them, and is Zstandard otherwise;
        ``"zstd"``, ``"blosc-zstd"``, ``"blosc-lz4"``, ``"gzip"`` or ``"none"``. Chunks whose shape and codecs
        are kept are copied as they are stored.
    skip_unreadable
        Whether parts that cannot be read, such as region references of HDF5, are left out; they are an error
        otherwise.
    verify
        Whether all that is written is read again and compared, and `intake_nwbzarr.verify` is run at the end.
    dry_run
        Only return the plan; nothing is written.
    progress
        A function that is called with a `ConvertProgress`, from another thread.

    Returns
    -------
    Conversion
        How each array is stored, what was written, and what `verify` found.

    Raises
    ------
    ConversionError
        When the destination has other contents, the source has parts that cannot be read, or values are
        read from the destination that differ from the source.
    ObjectChangedError
        When the source changes during the conversion.
    LocationError
        When the destination cannot be written.
    OptionError
        When an argument is not valid.
    TransportError
        When requests fail after retries, or the disk is full. The same call resumes.
    NWBZarrError
        When the source cannot be read, as `intake_nwbzarr.open_hierarchy`.

    Examples
    --------
    >>> print(convert("sub-1.nwb", "s3://bucket/sub-1.nwb.zarr"))  # doctest: +SKIP
    file:///data/sub-1.nwb -> s3://bucket/sub-1.nwb.zarr
    """
    options = LayoutOptions(chunk_mib, shard_mib, compressor)
    for name, value in (("skip_unreadable", skip_unreadable), ("verify", verify), ("dry_run", dry_run)):
        check_bool(name, value)
    if progress is not None and not callable(progress):
        raise invalid_argument("progress", progress, "a function")
    where, target = (
        locate(source, storage_options).uncached,
        locate(destination, destination_options).uncached,
    )
    transport = open_transport(target)
    if not transport.writable:
        raise transport.unwritable()
    _check_place(where, target, destination)
    opened = _open(where, skip_unreadable=skip_unreadable)
    plan = _plan(opened, target, options)
    if dry_run:
        return plan.report
    journal = Journal(transport, plan.report.source, opened.state, plan.digest(verify=verify))
    with _lock(target):
        done = run(_Converting(opened, plan, transport, options, journal, verify, progress).run())
        if verify and not done.earlier:
            done = _verified(done, target, progress)
        # Of others, the next run tells again what was found.
        if done.is_equal and done.unverified is None and not done.earlier:
            run(journal.end())
    for text, problem in (done.problems or {}).items():
        warn_caller(f"A link to {text!r} in {done.destination} {problem}.", ConversionWarning)
    return done


def _check_place(source: Location, destination: Location, given: object) -> None:
    """Check that the destination can become a folder that is apart from the source."""
    path = destination.path
    if path is not None and not isinstance(given, Location):
        # Also of a home directory that does not exist.
        local_path(given, "The destination")
    if path is not None and os.path.lexists(path) and not path.is_dir():
        raise ConversionError(
            f"The destination {destination} is not a folder.",
            location=destination,
            found="a file, or a broken link",
            expected="nothing, or a folder",
            next_step="Pass another destination.",
        )
    one, other = (f"{each.url.rstrip('/')}/" for each in (source, destination))
    if one.startswith(other) or other.startswith(one):
        raise ConversionError(
            f"The destination {destination} is the source, or one is in the other.",
            location=destination,
            found=str(source),
            next_step="Pass another destination.",
        )


@dataclass(frozen=True)
class _Opened:
    """A session that is to be converted."""

    hierarchy: Hierarchy
    # All of its objects; None if they cannot be listed, or it is one file.
    listed: tuple[Listed, ...] | None
    # Parts that cannot be read, and why.
    unreadable: Mapping[str, str]

    @property
    def state(self) -> str:
        """Return a digest of the session as it is stored."""
        return _state(self.hierarchy, self.listed)


def _state(hierarchy: Hierarchy, listed: tuple[Listed, ...] | None) -> str:
    digest = hashlib.sha256(str(hierarchy.etag).encode())
    for entry in listed or ():
        digest.update(f"{entry.key}\t{entry.size}\t{entry.etag}\n".encode())
    return digest.hexdigest()


def _open(where: Location, *, skip_unreadable: bool) -> _Opened:
    """Open a session with all of its objects, also those that its consolidated metadata do not list."""
    listed: tuple[Listed, ...] | None = None
    with warnings.catch_warnings():
        # Conversion is how both are mended.
        warnings.simplefilter("ignore", UnconsolidatedWarning)
        warnings.simplefilter("ignore", UnreadableWarning)
        hierarchy = open_hierarchy(where)
        if not hierarchy.location.is_hdf5:
            try:
                listed = tuple(run(hierarchy.transport.list()))
                if hierarchy.consolidated:
                    hierarchy = open_hierarchy(where.read_consolidated(False))
            except CredentialsError:
                raise
            except (ListingError, AccessError):
                # As over https: what the consolidated metadata list, and the schemas, if they can be found.
                hierarchy.load_specifications()
    unreadable = dict(hierarchy.unreadable)
    for path in hierarchy:
        try:
            hierarchy[path]
        except MetadataError as error:
            unreadable[path] = str(error.args[0])
    if unreadable and not skip_unreadable:
        named = "; ".join(f"{path!r}: {reason}" for path, reason in list(unreadable.items())[:MOST_NAMED])
        more = f"; and {len(unreadable) - MOST_NAMED} more" if len(unreadable) > MOST_NAMED else ""
        raise ConversionError(
            f"{hierarchy.location} has parts that cannot be read: {named}{more}.",
            location=hierarchy.location,
            path=next(iter(unreadable)),
            found=unreadable,
            next_step="To leave them out, pass skip_unreadable=True, or --skip-unreadable.",
        )
    return _Opened(hierarchy, listed, unreadable)


@dataclass(frozen=True)
class _Plan:
    """What is to be written."""

    documents: Mapping[str, bytes]
    arrays: tuple[ArrayPlan, ...]
    relinked: Relinked
    report: Conversion

    def digest(self, *, verify: bool) -> str:
        """Return a digest of what is to be written, and of whether it is checked."""
        digest = hashlib.sha256(f"{_FORM} {verify}\n".encode())
        for path, document in self.documents.items():
            digest.update(f"{path}\n".encode() + document + b"\n")
        return digest.hexdigest()


def _plan(opened: _Opened, target: Location, options: LayoutOptions) -> _Plan:
    hierarchy = opened.hierarchy
    relinked = Relinked(hierarchy, target)
    documents: dict[str, bytes] = {}
    arrays: list[ArrayPlan] = []
    groups: set[str] = set()
    for path in hierarchy:
        parent = path.rpartition("/")[0]
        if path in opened.unreadable or (path and parent not in groups):
            continue
        node = hierarchy[path]
        attributes = relinked.attributes(node.attributes)
        if isinstance(node, GroupNode):
            groups.add(path)
            if path == "" and hierarchy.specifications in hierarchy:
                attributes[".specloc"] = hierarchy.specifications
            document: dict[str, Any] = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
        else:
            arrays.append(plan_array(node, options, attributes, is_hdf5=hierarchy.location.is_hdf5))
            document = dict(arrays[-1].target.metadata)
        documents[path] = json.dumps(document).encode()
    relinked.problems.update(mutual_links(hierarchy, sorted(groups), documents.keys() - groups))
    report = Conversion(
        source=str(hierarchy.location),
        destination=str(target),
        groups=len(groups),
        arrays=tuple(arrays),
        bytes=sum(array.nbytes for array in arrays),
        links={text: place for text, place in relinked.sources.items() if text not in {place, "./"}},
        problems=relinked.problems,
        skipped=dict(opened.unreadable),
    )
    return _Plan(_as_zarr_writes(documents, target), tuple(arrays), relinked, report)


def _as_zarr_writes(documents: Mapping[str, bytes], target: Location) -> dict[str, bytes]:
    """Return documents as zarr writes them, so that the consolidated ones, in that of the root, are equal."""
    nodes = {path: {"zarr.json": msgspec.Raw(document)} for path, document in documents.items()}
    root = zarr_3_document(Documents(target, 3, nodes, False, None, 0))
    consolidated = load_json(root)["consolidated_metadata"]["metadata"]
    arrays = {
        path: json.dumps(document).encode()
        for path, document in consolidated.items()
        if document["node_type"] == "array"
    }
    return {**documents, **arrays, "": root}


@contextmanager
def _lock(target: Location) -> Iterator[None]:
    """Let one process at a time write to a local folder; of a bucket, the journal's ETag tells."""
    if target.path is None:
        yield
        return
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire(Path(f"{target.path}.lock"))
    except OSError as error:
        raise not_written(target, error) from error
    if lock is None:
        raise ConversionError(
            f"Another process is converting to {target}.",
            location=target,
            next_step="Wait for it, or pass another destination.",
            transient=True,
        )
    try:
        yield
    finally:
        release(lock)


@dataclass
class _Converting:
    """One conversion."""

    opened: _Opened
    plan: _Plan
    destination: Transport
    options: LayoutOptions
    journal: Journal
    verify: bool
    progress: Callable[[ConvertProgress], None] | None
    done: int = 0

    async def run(self) -> Conversion:
        """Write metadata and arrays, and the root's metadata last."""
        plan = self.plan
        journal = self.journal
        if await journal.begin():
            return replace(plan.report, written=True, earlier=True)
        listed = self.opened.listed
        writing = Writing(
            hierarchy=self.opened.hierarchy,
            destination=self.destination,
            journal=journal,
            stored=None if listed is None else frozenset(entry.key for entry in listed),
            shard_bytes=self.options.shard_bytes,
            verify=self.verify,
            relinked=plan.relinked.text,
            told=self._told,
        )
        self._told("", 0)
        try:
            await gather(
                [
                    partial(writing.put_document, f"{path}/zarr.json", document)
                    for path, document in plan.documents.items()
                    if path
                ]
            )
            await writing.run(plan.arrays)
        finally:
            await journal.flush()
        await self._refuse_mixture()
        await writing.put_document("zarr.json", plan.documents[""])
        await journal.flush()
        return replace(
            plan.report,
            stored=writing.size,
            objects=writing.objects,
            kept=writing.kept,
            # Links in arrays are known only now.
            links={text: place for text, place in plan.relinked.sources.items() if text not in {place, "./"}},
            problems=dict(plan.relinked.problems),
            written=True,
        )

    async def _refuse_mixture(self) -> None:
        """Check that the source is still as it was: its chunks have been read one by one."""
        opened = self.opened
        if opened.listed is None:
            return
        listed = tuple(await opened.hierarchy.transport.list())
        if _state(opened.hierarchy, listed) != opened.state:
            raise ObjectChangedError(
                f"{opened.hierarchy.location} was changed while it was being converted.",
                location=opened.hierarchy.location,
                next_step="Run the conversion again; it begins anew.",
            )

    def _told(self, path: str, size: int) -> None:
        self.done += size
        if self.progress is not None:
            self.progress(ConvertProgress("converting", self.done, self.plan.report.bytes, path))


def _verified(
    done: Conversion, target: Location, progress: Callable[[ConvertProgress], None] | None
) -> Conversion:
    """Run `verify` on the destination."""

    def show(each: VerifyProgress) -> None:
        if progress is not None:
            progress(ConvertProgress("verifying", each.fields, each.of_fields, each.path))

    try:
        with warnings.catch_warnings():
            # Of what the source has, too.
            warnings.simplefilter("ignore")
            return replace(done, verification=verify_session(target, progress=show))
    except UNREACHABLE as error:
        # pynwb cannot read every session that can be converted: extensions may be unknown to it, or files
        # that are linked to out of reach.
        return replace(done, unverified=str(error))
