"""A chunk cache on disk: damage, death, and little room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import CacheWarning
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.cache import CacheEntry
from intake_nwbzarr.transport.disk_cache import CacheStore
from intake_nwbzarr.transport.open import open_transport
from tests.servers.http_server import StaticServer
from tests.transport.cached import DATA, cache_files, cached_transport, get_object, little_room, store_object


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "longer", "swapped"])
def test_a_damaged_copy_is_as_good_as_none(damage: str, web: StaticServer, folder: Path) -> None:
    store_object(web, "a/1", DATA[::-1])
    for key in ("a/0", "a/1"):
        get_object(cached_transport(web, folder), key)
    one, other = cache_files(folder)
    content = one.read_bytes()
    match damage:
        case "bit":
            one.write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
        case "cut":
            one.write_bytes(content[: len(content) // 2])
        case "empty":
            one.write_bytes(b"")
        case "longer":
            one.write_bytes(content + b"more")
        case "swapped":
            other.write_bytes(content)
    with track_requests() as log:
        assert get_object(cached_transport(web, folder), "a/0") == DATA
        assert get_object(cached_transport(web, folder), "a/1") == DATA[::-1]
    assert log.requests == 1
    with track_requests() as log:
        assert get_object(cached_transport(web, folder), "a/0") == DATA
        assert get_object(cached_transport(web, folder), "a/1") == DATA[::-1]
    assert log.requests == 0


def test_a_cache_that_an_earlier_release_has_filled_is_read(folder: Path) -> None:
    shutil.unpack_archive(Path(__file__).parents[1] / "data" / "written_by_0_1" / "chunk-cache.zip", folder)
    folder.chmod(0o700)
    location = locate("https://example.org/a.nwb.zarr", {"chunk_cache": folder})
    transport = open_transport(location).at('"state"')
    with track_requests() as log:
        assert get_object(transport, "a/0") == bytes(range(256))
        assert get_object(transport, "a/1", start=120, stop=200) == bytes(range(120, 200))
    assert (log.requests, log.bytes_cached) == (0, 336)


def test_a_link_in_the_place_of_a_copy_is_not_followed(web: StaticServer, folder: Path) -> None:
    get_object(cached_transport(web, folder))
    (copy,) = cache_files(folder)
    outside = folder.parent / "outside"
    copy.rename(outside)
    copy.symlink_to(outside)
    with track_requests() as log:
        assert get_object(cached_transport(web, folder)) == DATA
    assert log.requests == 1


_WRITER = """
import sys
from pathlib import Path
from intake_nwbzarr.transport.cache import CacheEntry
from intake_nwbzarr.transport.disk_cache import CacheStore

store = CacheStore(Path(sys.argv[1]), int(sys.argv[2]))
number = 0
print("ready", flush=True)
while True:
    number += 1
    name = f"{number % 40:064x}"
    size = 1 + number * 7919 % 200_000
    data = bytes([number % 256]) * size
    store.write(name, CacheEntry(str(number), size, 0, None, data))
    found = store.read(name)
    assert found is None or found.data == found.data[:1] * len(found.data)
"""


def _writer(folder: Path, size: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), str(size)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_readers_are_intact_and_the_bound_holds_when_writers_are_killed(folder: Path) -> None:
    size = 2 * 10**6
    store = CacheStore(folder, size)
    for _ in range(2):
        writers = [_writer(folder, size) for _ in range(2)]
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            for number in range(40):
                found = store.read(f"{number:064x}")
                assert found is None or found.data == bytes([int(found.etag) % 256]) * found.size
        for writer in writers:
            writer.kill()
            writer.wait(timeout=30)
            assert writer.stdout is not None
            writer.stdout.close()
    # A file that was being written may be left over from each of four writers.
    held = sum(path.stat().st_size for path in cache_files(folder))
    assert 0 < held <= size
    # Written on without an error, and the account is right again once it is counted anew.
    for number in range(60):
        store.write(f"{number:064x}", CacheEntry("e", 100_000, 0, None, bytes(100_000)))
    assert sum(path.stat().st_size for path in cache_files(folder)) <= size
    abandoned = list(folder.glob("*.partial"))
    for path in abandoned:
        os.utime(path, (0, 0))
    for number in range(60):
        store.write(f"{number:064x}", CacheEntry("e", 100_000, 0, None, bytes(100_000)))
    assert list(folder.glob("*.partial")) == []


def test_what_was_read_least_recently_is_removed_first(folder: Path) -> None:
    store = CacheStore(folder, 10**6)
    for number in range(8):
        store.write(f"{number:064x}", CacheEntry("e", 100_000, 0, None, bytes(100_000)))
    for number, path in enumerate(cache_files(folder)):
        os.utime(path, (1000 + number, 1000 + number))
    assert store.read(f"{0:064x}") is not None
    assert store.read(f"{3:064x}") is not None
    for number in range(8, 11):
        store.write(f"{number:064x}", CacheEntry("e", 100_000, 0, None, bytes(100_000)))
    kept = [number for number in range(11) if store.read(f"{number:064x}") is not None]
    assert {0, 3, 8, 9, 10} <= set(kept)
    assert not {1, 2} & set(kept)
    assert kept == sorted({0, 3, 8, 9, 10} | {number for number in (4, 5, 6, 7) if number >= min(kept[2:])})


def test_a_copy_removed_while_it_is_read_is_read_to_its_end_and_fetched_next_time(
    web: StaticServer, folder: Path
) -> None:
    transport = cached_transport(web, folder)
    get_object(transport)
    stop = threading.Event()

    def remove() -> None:
        while not stop.is_set():
            for path in cache_files(folder):
                path.unlink(missing_ok=True)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for _ in range(40):
            assert get_object(transport) == DATA
            assert get_object(transport, start=5, stop=500) == DATA[5:500]
    finally:
        stop.set()
        thread.join()


def test_what_would_displace_too_much_is_not_kept(web: StaticServer, folder: Path) -> None:
    store_object(web, "a/large", bytes(300_000))
    transport = cached_transport(web, folder, chunk_cache={"folder": folder, "size": 10**6})
    assert get_object(transport, "a/large") == bytes(300_000)
    assert cache_files(folder) == []


def test_a_disk_that_takes_no_more_means_uncached_with_one_warning(web: StaticServer, folder: Path) -> None:
    store_object(web, "a/1", DATA)
    transport = cached_transport(web, folder)
    get_object(transport, start=0, stop=10)
    with little_room(50_000), pytest.warns(CacheWarning, match="cannot be written") as warned:
        found = [get_object(transport, key) for key in ("a/0", "a/0", "a/1")]
    assert found == [DATA] * 3
    assert len(warned) == 1
    assert not list(folder.glob("*.partial"))
    # What was kept before is served, but for what the object that was fetched since replaces.
    assert web.count() == 4


def test_a_disk_without_room_for_the_folder_itself_means_uncached(web: StaticServer, folder: Path) -> None:
    with little_room(0), pytest.warns(CacheWarning, match="cannot be written"):
        assert get_object(cached_transport(web, folder)) == DATA
