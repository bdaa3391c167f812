"""The short form: requests and round trips, which are exact, counted on small sessions by a server in rounds.

No time is taken, so that it says the same on any machine; nothing but the project itself is needed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pynwb import NWBHDF5IO

from benchmarks import measure_shards as shards
from benchmarks.operations import ours
from benchmarks.servers.in_python import PythonServer
from benchmarks.write_hdf5 import SERIES as HDF5_SERIES
from benchmarks.write_hdf5 import series_name, write_chunks, write_series
from benchmarks.write_reading import SERIES, write_hour, write_shards
from intake_nwbzarr.demo.sessions import imaging_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import write_zarr2

LICK = "processing/behavior/BehavioralTimeSeries/lick"

RECORD: dict[str, tuple[int, int]] = {
    "one series, Zarr 3": (8, 2),
    "session, flat, Zarr 3": (46, 2),
    "session, tree, Zarr 3": (46, 2),
    "open_nwb, Zarr 3": (45, 2),
    "one series, Zarr 2": (8, 2),
    "session, flat, Zarr 2": (46, 2),
    "session, tree, Zarr 2": (46, 2),
    "open_nwb, Zarr 2": (45, 2),
    "one series, HDF5": (2, 1),
    "session, flat, HDF5": (2, 1),
    "session, tree, HDF5": (2, 1),
    "open_nwb, HDF5": (2, 1),
    "one of 400 series, HDF5": (7, 4),
    "400 series, tree, HDF5": (9, 4),
    "opening again, HDF5": (1, 1),
    "a sample in 20,000 chunks, HDF5": (1, 1),
    "opening again": (1, 1),
    "opening again, revalidate=False": (0, 0),
    "10 s of 384 channels": (66, 1),
    "one unit's spikes": (1, 1),
    "a worker's first chunk": (30, 1),
    "24 chunks of one shard": (3, 2),
    "24 chunks of two shards": (4, 2),
    "every 8th chunk": (18, 2),
}
"""Requests and round trips of each; lowered when the package learns to do with fewer."""

LARGE = {"10 s of 384 channels", "a worker's first chunk", *shards.PARTS}
"""What takes a second, and imports nothing that the others do not."""

MANY = 400
"""Series of an HDF5 file."""

CHUNKS = 20_000
"""Chunks of a series of an HDF5 file."""

SHARDS_SIZE = 45_000_000
"""Decoded bytes of two shards."""

PATIENCE = (0.06, 0.3, 1.0)
"""Seconds that the server waits for further requests of a round trip; more when one seemed to be too many.

A busy machine may hold a client up for longer than the first; a further round trip takes any of them.
"""


@dataclass(frozen=True)
class Counted:
    """What one operation took."""

    name: str
    requests: int
    round_trips: int
    metadata_requests: int
    received: int

    @property
    def verdict(self) -> str:
        """Beside the record."""
        now, record = (self.requests, self.round_trips), RECORD[self.name]
        if self.regressed:
            return f"MORE than {record[0]} requests in {record[1]} round trips"
        return "" if now == record else f"fewer than {record[0]} in {record[1]}: lower the record"

    @property
    def regressed(self) -> bool:
        """Whether it took more than it has."""
        return self.requests > RECORD[self.name][0] or self.round_trips > RECORD[self.name][1]


def make_sessions(folder: Path) -> None:
    """Write the small sessions that are counted on."""
    write_zarr3(imaging_session(frames=240, rois=6, pixels=16), folder / "ophys-zarr3.nwb.zarr")
    write_zarr2(folder / "ophys-zarr3.nwb.zarr", folder / "ophys-zarr2.nwb.zarr")
    with NWBHDF5IO(folder / "ophys-hdf5.nwb", "w") as io:
        io.write(imaging_session(frames=240, rois=6, pixels=16))
    write_series(folder / "many-hdf5.nwb", series=MANY)
    write_chunks(folder / "chunks-hdf5.nwb", CHUNKS)
    write_hour(folder / "hour-zarr3.nwb.zarr", spikes=200 * 200, timestamps=20_000)
    write_shards(folder / "shards-zarr3.nwb.zarr", size=SHARDS_SIZE)


def count(folder: Path) -> Iterator[Counted]:
    """Do everything once, each at an address where nothing has been opened before."""
    pickled = str(folder / "array.pickle")
    _warm_up(folder)
    for name, session, prepare in _operations(folder, pickled):
        for quiet in PATIENCE:
            counted = _count(name, folder, session, prepare, quiet)
            if not counted.regressed:
                break
        yield counted


def _count(name: str, folder: Path, session: str, prepare: Callable[..., ours.Run], quiet: float) -> Counted:
    with PythonServer(folder, quiet=quiet) as server:
        run = prepare(f"{server.url()}/{session}", None)
        server.forget()
        run()
        seen = server.exchanges()
        metadata = sum(exchange.is_metadata for exchange in seen)
        received = sum(exchange.size for exchange in seen)
        return Counted(name, len(seen), server.rounds, metadata, received)


def _operations(folder: Path, pickled: str) -> Iterator[tuple[str, str, Callable[..., ours.Run]]]:
    for form in ("Zarr 3", "Zarr 2"):
        session = f"ophys-{form.lower().replace(' ', '')}.nwb.zarr"
        yield f"one series, {form}", session, _with(ours.open_group, group=LICK)
        yield f"session, flat, {form}", session, ours.open_flat
        yield f"session, tree, {form}", session, ours.open_tree
        yield f"open_nwb, {form}", session, ours.open_raw
    ophys, many, table = "ophys-hdf5.nwb", "many-hdf5.nwb", "chunks-hdf5.nwb"
    yield "one series, HDF5", ophys, _with(ours.open_group, group=LICK)
    yield "session, flat, HDF5", ophys, ours.open_flat
    yield "session, tree, HDF5", ophys, ours.open_tree
    yield "open_nwb, HDF5", ophys, ours.open_raw
    one = f"acquisition/{series_name(MANY // 2)}"
    yield "one of 400 series, HDF5", many, _with(ours.open_group, group=one)
    yield "400 series, tree, HDF5", many, ours.open_tree
    yield "opening again, HDF5", many, _with(ours.open_again, group=one)
    yield (
        "a sample in 20,000 chunks, HDF5",
        table,
        _with(ours.read_rows, group=HDF5_SERIES, start=0, stop=1, step=None),
    )
    hour = "hour-zarr3.nwb.zarr"
    yield "opening again", "ophys-zarr2.nwb.zarr", _with(ours.open_again, group=LICK)
    yield (
        "opening again, revalidate=False",
        "ophys-zarr2.nwb.zarr",
        _with(ours.open_again, group=LICK, revalidate=False),
    )
    yield "10 s of 384 channels", hour, _with(ours.read_window, group=SERIES, start=100.0, stop=110.0)
    yield "one unit's spikes", hour, _with(ours.read_spikes, unit=50)
    yield "a worker's first chunk", hour, _sent_to_a_worker(pickled)
    for name, chunks in shards.PARTS.items():
        samples = shards.samples_of(folder / "shards-zarr3.nwb.zarr" / shards.DATA, chunks)
        yield name, "shards-zarr3.nwb.zarr", _with(ours.read_rows, group=SERIES, **samples)


def _sent_to_a_worker(pickled: str) -> Callable[..., ours.Run]:
    def prepare(url: str, options: ours.Options) -> ours.Run:
        ours.pickled_series(url, options, SERIES, pickled)()
        return ours.first_chunk(url, options, pickled)

    return prepare


def _with(prepare: Callable[..., ours.Run], **arguments: object) -> Callable[..., ours.Run]:
    return lambda url, options: prepare(url, options, **arguments)


def _warm_up(folder: Path) -> None:
    """Import what is imported late: a client that stops to import is no further round trip."""
    with PythonServer(folder) as server:
        for name, session, prepare in _operations(folder, str(folder / "array.pickle")):
            if name not in LARGE:
                prepare(f"{server.url()}/{session}", None)()


def main() -> int:
    """Count, print, and return 1 if anything takes more than the record."""
    with tempfile.TemporaryDirectory() as folder:
        make_sessions(Path(folder))
        found = list(count(Path(folder)))
    width = max(len(counted.name) for counted in found)
    for counted in found:
        sys.stdout.write(
            f"{counted.name:{width}}  {counted.requests:4} requests in {counted.round_trips:3} round trips  "
            f"{counted.verdict}\n"
        )
    return int(any(counted.regressed for counted in found))
