"""What a scan reports: its progress, the sessions that failed, and its counts at the end."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from intake_nwbzarr.transport.request_log import counted


@dataclass(frozen=True)
class ScanProgress:
    """How far a scan is: first the sessions that were found, then those that were scanned."""

    # The prefix.
    source: str
    # Of `total` sessions; of an unknown number while they are found.
    sessions: int
    total: int | None = None
    failed: int = 0


@dataclass(frozen=True)
class ScanFailure:
    """A session, or a folder that could not be listed, and its error."""

    location: str
    error_type: str
    error: str
    transient: bool


@dataclass(frozen=True)
class ScanReport:
    """What a scan has found and done.

    Parameters
    ----------
    output
        The location of the tables.
    scanned, unchanged
        Sessions that were read, and sessions that were not, because they have not changed.
    failures
        Sessions and folders that could not be read, as they are in the table.
    unlisted
        How many failures are not sessions, but folders that do not exist or could not be listed. Failures of
        sessions are included in `scanned`.
    duplicates
        Assets and lines that were left out, because an earlier one has the same location.
    gone
        Sessions that were removed from the table, because they no longer exist.
    not_nwb, hdf5, other_assets
        Zarr stores and HDF5 files that are not NWB, and assets of dandisets that are neither, which are
        skipped.
    incomplete
        Scanned sessions with columns that were not filled, mostly because they would have taken more
        requests; see the column `not_read`.
    not_read
        These columns.
    requests_for_all
        The `requests` that would fill the columns of all of them; 0 if more requests would not fill them.
    unconsolidated
        Scanned sessions without consolidated metadata, which take a request per group and array.
    stale
        With `check`, sessions whose consolidated metadata differ from the stored ones.
    requests
        Requests that were sent to find and scan sessions.
    seconds
        How long it took.
    opened_with
        The call that opens the tables; in it, ``...`` stands for your own storage options.
    """

    output: str
    scanned: int = 0
    unchanged: int = 0
    failures: tuple[ScanFailure, ...] = ()
    unlisted: int = 0
    duplicates: int = 0
    gone: int = 0
    not_nwb: int = 0
    hdf5: int = 0
    other_assets: int = 0
    incomplete: int = 0
    not_read: tuple[str, ...] = ()
    requests_for_all: int = 0
    unconsolidated: int = 0
    stale: tuple[str, ...] = ()
    requests: int = 0
    seconds: float = 0.0
    opened_with: str = ""

    @property
    def sessions(self) -> int:
        """Return the number of sessions that were found."""
        return self.scanned + self.unchanged

    def __add__(self, other: ScanReport) -> ScanReport:
        """Return the report of two scans, or of two parts of a scan, to the same tables."""
        names = [each.name for each in fields(self) if each.name not in {"output", "opened_with"}]
        added = {name: getattr(self, name) + getattr(other, name) for name in names}
        added["not_read"] = tuple(dict.fromkeys(added["not_read"]))
        added["requests_for_all"] = max(self.requests_for_all, other.requests_for_all)
        return replace(self, **added)

    def __str__(self) -> str:
        return self.summary("requests={}")

    def summary(self, argument: str) -> str:
        """Return the report as text; `argument` is how requests are set, such as ``--requests {}``."""
        failed = len(self.failures) - self.unlisted
        scanned = f"{self.scanned:,} scanned" + (f", of which {failed:,} failed" if failed else "")
        needed = f"; {argument.format(self.requests_for_all)} reads all" if self.requests_for_all else ""
        lines = {
            self.output: f"{counted(self.sessions, 'session')} ({self.unchanged:,} unchanged, {scanned}), "
            f"{counted(self.requests, 'request')}, {self.seconds:.1f} s",
            "No longer found, and removed from the tables": _counts((self.gone, "session", "")),
            "Not found, or not listed completely": _counts((self.unlisted, "folder", "")),
            "Left out": _counts((self.duplicates, "session", " at the location of another one")),
            "Skipped": _counts(
                (self.not_nwb, "Zarr store", " without NWB data"),
                (self.hdf5, "HDF5 file", " without NWB data"),
                (self.other_assets, "asset", " other than NWB"),
            ),
            "Without consolidated metadata": _counts(
                (self.unconsolidated, "session", "; nwbzarr consolidate writes them")
            ),
            f"Not read for {counted(self.incomplete, 'session')}": ", ".join(self.not_read) + needed,
            "Open the tables with": self.opened_with,
        }
        return "\n".join(f"{name}: {text}" for name, text in lines.items() if text)


def _counts(*counts: tuple[int, str, str]) -> str:
    """Return the counts that are not zero, with their nouns and what follows these."""
    return ", ".join(f"{counted(count, noun)}{after}" for count, noun, after in counts if count)
