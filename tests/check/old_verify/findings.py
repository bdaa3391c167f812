"""Findings: what comparing one field of one object came to, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from intake_nwbzarr.check.chunks import ChunkCounts

# What is shown of a value in a finding.
_LONGEST = 120


@dataclass(frozen=True)
class Equal:
    """A field that pynwb and xarray give alike.

    Parameters
    ----------
    path
        The object, by its path in the file; the session itself is ``""``.
    name
        The field, as pynwb calls it; a table's column by its name.
    neurodata_type
        The object's type.
    """

    path: str
    name: str
    neurodata_type: str


@dataclass(frozen=True)
class Difference:
    """A field that xarray shows otherwise than pynwb does.

    Parameters
    ----------
    path, name, neurodata_type
        As of `Equal`.
    raw, shown
        What pynwb has and what xarray has, shortened; of arrays, the first elements that differ, and where.
    """

    path: str
    name: str
    neurodata_type: str
    raw: str
    shown: str


@dataclass(frozen=True)
class Unshown:
    """A field, or a whole object where `name` is empty, that xarray does not show.

    Parameters
    ----------
    path, name, neurodata_type
        As of `Equal`.
    raw
        What pynwb has, shortened.
    """

    path: str
    name: str
    neurodata_type: str
    raw: str


type Finding = Equal | Difference | Unshown


@dataclass(frozen=True)
class Verification:
    """What comparing a file's raw object with its DataTree found.

    Parameters
    ----------
    location
        The file.
    equal, different, unshown
        One record for each field of each object.
    chunks
        How many chunks its arrays may have, and how many are stored; None where the storage cannot be listed.
        Both sides read what is not stored as fill values, so that it is no difference.
    """

    location: str
    equal: tuple[Equal, ...]
    different: tuple[Difference, ...]
    unshown: tuple[Unshown, ...]
    chunks: ChunkCounts | None = None

    @classmethod
    def of(cls, location: str, findings: Iterable[Finding]) -> Verification:
        """Findings, sorted by their kind."""
        found = list(findings)
        return cls(
            location,
            tuple(each for each in found if isinstance(each, Equal)),
            tuple(each for each in found if isinstance(each, Difference)),
            tuple(each for each in found if isinstance(each, Unshown)),
        )

    def by_type(self) -> dict[str, tuple[int, int, int]]:
        """How many fields of each neurodata type are equal, different and not shown, sorted by type."""
        counts: dict[str, list[int]] = {}
        sorts: tuple[tuple[Finding, ...], ...] = (self.equal, self.different, self.unshown)
        for sort, findings in enumerate(sorts):
            for finding in findings:
                counts.setdefault(finding.neurodata_type, [0, 0, 0])[sort] += 1
        return {name: (one, two, three) for name, (one, two, three) in sorted(counts.items())}

    def __str__(self) -> str:
        return (
            f"{self.location}: {len(self.equal)} fields equal, {len(self.different)} different, "
            f"{len(self.unshown)} not shown."
        )


def shortened(value: object) -> str:
    """A value as text that fits a line."""
    shape = getattr(value, "shape", ())
    if shape:
        text = f"array of {getattr(value, 'dtype', 'objects')}, shape {tuple(shape)}"
    else:
        text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
