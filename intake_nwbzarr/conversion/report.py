"""What a conversion did, or would do, and its progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intake_nwbzarr.checks.compare import Verification
from intake_nwbzarr.conversion.layout import ArrayPlan
from intake_nwbzarr.transport.request_log import counted, readable_size


@dataclass(frozen=True)
class ConvertProgress:
    """The progress of a conversion, as passed to its function `progress`.

    Parameters
    ----------
    doing
        ``"converting"`` or ``"verifying"``.
    done, total
        Decoded bytes of arrays that are written; or fields that are compared, and how many there are.
    path
        The array that was written last, or the object that is compared.
    """

    doing: str
    done: int
    total: int
    path: str


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion, or with `dry_run` its plan.

    Parameters
    ----------
    source, destination
        Their locations, without secrets.
    groups
        The number of groups.
    arrays
        How each array is stored: `ArrayPlan`.
    bytes
        Decoded bytes of all arrays; a string counts as 64.
    stored
        Bytes of chunks and metadata that were written this time.
    objects
        Objects that were written this time.
    kept
        Objects that an earlier, interrupted run had written.
    links
        External links whose source was written anew: from the source's text to the destination's.
    problems
        Links that readers of the destination may not be able to follow, and why.
    skipped
        Parts of the source that cannot be read and were left out, and why.
    written
        Whether the destination is complete: False of a dry run.
    earlier
        Whether an earlier run had completed the same conversion, so that nothing was left to do.
    verification
        What `verify` found in the destination; None if it was not asked for.
    unverified
        Why `verify` could not read the destination, if it could not.
    """

    source: str
    destination: str
    groups: int
    arrays: tuple[ArrayPlan, ...]
    bytes: int
    stored: int = 0
    objects: int = 0
    kept: int = 0
    links: dict[str, str] | None = None
    problems: dict[str, str] | None = None
    skipped: dict[str, str] | None = None
    written: bool = False
    earlier: bool = False
    verification: Verification | None = None
    unverified: str | None = None

    @property
    def copied(self) -> int:
        """Return how many arrays have their encoded chunks copied."""
        return sum(array.copied for array in self.arrays)

    @property
    def chunks(self) -> int:
        """Return how many chunks the arrays have room for."""
        return sum(array.chunks for array in self.arrays)

    @property
    def possible_objects(self) -> int:
        """Return how many objects, shards or single chunks, the arrays have room for."""
        return sum(array.objects for array in self.arrays)

    @property
    def is_equal(self) -> bool:
        """Return whether no field of the destination differs for xarray and pynwb."""
        return self.verification is None or not self.verification.different

    @property
    def document(self) -> dict[str, Any]:
        """Return what ``nwbzarr convert --json`` prints."""
        return {
            "document": "nwbzarr-convert 1.0",
            "location": self.source,
            "source": self.source,
            "destination": self.destination,
            "written": self.written,
            "earlier": self.earlier,
            "groups": self.groups,
            "bytes": self.bytes,
            "stored": self.stored,
            "objects": self.objects,
            "kept": self.kept,
            "links": self.links or {},
            "problems": self.problems or {},
            "skipped": self.skipped or {},
            "verified": None if self.verification is None else self.verification.document,
            "unverified": self.unverified,
            "arrays": [array.document for array in self.arrays],
        }

    def __str__(self) -> str:
        lines = [
            f"{self.source} {'->' if self.written else 'would become'} {self.destination}",
            f"  {counted(self.groups, 'group')}, {counted(len(self.arrays), 'array')}, "
            f"{readable_size(self.bytes)} decoded, {counted(self.chunks, 'chunk')} in at most "
            f"{counted(self.possible_objects, 'object')}; chunks of {counted(self.copied, 'array')} "
            f"{'were' if self.written else 'are'} copied as they are",
        ]
        if self.earlier:
            lines.append("  complete since an earlier run")
        elif self.written:
            kept = f", {self.kept:,} kept from an earlier run" if self.kept else ""
            lines.append(f"  {counted(self.objects, 'object')}, {readable_size(self.stored)} written{kept}")
        else:
            lines += map(_planned, self.arrays)
        for text, place in (self.links or {}).items():
            lines.append(f"  link to {text} -> {place}")
        lines += [f"  link to {text}: it {problem}" for text, problem in (self.problems or {}).items()]
        lines += [f"  left out: {path}: {reason}" for path, reason in (self.skipped or {}).items()]
        if self.unverified is not None:
            lines.append(f"  Not compared with pynwb, which cannot read it: {self.unverified}")
        if self.verification is not None:
            # Not its lines on chunks that are not stored: the source has none of them either.
            lines.append(self.verification.fields_report)
        return "\n".join(lines)


def _planned(array: ArrayPlan) -> str:
    """Return a line of a dry run about an array."""
    own = " x ".join(map(str, array.chunk_shape)) or "scalar"
    shards = (
        f", shards of {' x '.join(map(str, array.target.chunks))}"
        if array.layout.sharding is not None
        else ""
    )
    codecs = ", ".join(stage.name for stage in array.layout.chain.stages)
    how = "copied" if array.copied else "encoded anew"
    return f"  {array.target.path}: {readable_size(array.nbytes)}, chunks of {own}{shards}; {codecs}; {how}"
