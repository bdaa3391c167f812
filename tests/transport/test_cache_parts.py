"""Parts of objects in the chunk cache: put together, and never of two versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import ObjectChangedError
from intake_nwbzarr.transport.cache import CachedRange, split_range
from intake_nwbzarr.transport.loop import run
from tests.servers.http_server import StaticServer
from tests.transport.cached import DATA, cached_transport, get_object, store_object


def test_overlapping_parts_are_put_together_and_only_gaps_are_fetched(
    web: StaticServer, folder: Path
) -> None:
    transport = cached_transport(web, folder)
    assert get_object(transport, start=1000, stop=5000) == DATA[1000:5000]
    assert get_object(transport, start=8000, stop=9000) == DATA[8000:9000]
    with track_requests() as log:
        assert get_object(transport, start=500, stop=10_000) == DATA[500:10_000]
    assert (log.requests, log.bytes, log.bytes_cached) == (3, 4500, 5000)
    with track_requests() as log:
        assert get_object(transport, start=600, stop=9900) == DATA[600:9900]
    assert (log.requests, log.bytes_cached) == (0, 9300)


def test_the_end_of_an_object_is_a_part_like_others(web: StaticServer, folder: Path) -> None:
    transport = cached_transport(web, folder)
    assert get_object(transport, suffix=1000) == DATA[-1000:]
    with track_requests() as log:
        assert get_object(transport, suffix=500) == DATA[-500:]
        assert get_object(transport, start=len(DATA) - 800, stop=len(DATA) - 700) == DATA[-800:-700]
    assert log.requests == 0
    assert get_object(transport, start=len(DATA) - 2000) == DATA[-2000:]


def test_parts_of_a_whole_copy_need_no_request(web: StaticServer, folder: Path) -> None:
    transport = cached_transport(web, folder)
    get_object(transport)
    with track_requests() as log:
        assert get_object(transport, start=7, stop=99) == DATA[7:99]
        assert get_object(transport, suffix=9) == DATA[-9:]
        assert get_object(transport, start=102_000) == DATA[102_000:]
    assert log.requests == 0


def test_parts_of_two_versions_are_never_mixed(web: StaticServer, folder: Path) -> None:
    transport = cached_transport(web, folder)
    get_object(transport, start=0, stop=100)
    store_object(web, "a/0", DATA[::-1])
    # The gap that is fetched shows that what is kept is of another version.
    assert get_object(transport, start=50, stop=200) == DATA[::-1][50:200]
    assert get_object(transport, start=0, stop=100) == DATA[::-1][:100]


def test_a_part_of_the_version_that_is_known_needs_no_state(web: StaticServer, folder: Path) -> None:
    transport = cached_transport(web, folder, None)
    index = run(transport.get("a/0", suffix=100))
    assert index is not None
    get_object(transport, start=0, stop=50, etag=index.etag)
    with track_requests() as log:
        assert get_object(transport, start=10, stop=50, etag=index.etag) == DATA[10:50]
    assert log.requests == 0
    with pytest.raises(ObjectChangedError):
        get_object(transport, start=10, stop=50, etag='"of another version"')


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.tuples(st.integers(0, 60), st.integers(1, 40)),
    kept=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)), max_size=8),
)
def test_segments_cover_exactly_what_is_wanted_and_gaps_exactly_what_is_missing(
    wanted: tuple[int, int], kept: list[tuple[int, int]]
) -> None:
    start, stop = wanted[0], sum(wanted)
    ranges = [CachedRange(first, first + length, 100, "a") for first, length in kept]
    segments = split_range(start, stop, ranges)
    assert [segment.start for segment in segments] == [start, *(segment.stop for segment in segments[:-1])]
    assert segments[-1].stop == stop
    assert all(segment.start < segment.stop for segment in segments)
    held = {position for first, length in kept for position in range(first, first + length)}
    for segment in segments:
        positions = set(range(segment.start, segment.stop))
        if segment.cached is None:
            assert not positions & held
        else:
            assert segment.cached.start <= segment.start
            assert segment.stop <= segment.cached.stop


@settings(max_examples=25, deadline=None)
@given(spans=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 1500)), min_size=1, max_size=6))
def test_any_parts_in_any_order_are_those_of_the_object(
    spans: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = np.random.default_rng(1).bytes(5000)
    # Not the fixtures, which would be shared by all examples.
    with StaticServer(tmp_path_factory.mktemp("served")) as server:
        store_object(server, "a/0", data)
        transport = cached_transport(server, tmp_path_factory.mktemp("cache") / "c")
        for first, length in spans:
            with track_requests() as log:
                assert get_object(transport, start=first, stop=first + length) == data[first : first + length]
            assert log.bytes_used + log.bytes_cached == length
        with track_requests() as log:
            for first, length in spans:
                get_object(transport, start=first, stop=first + length)
        assert log.requests == 0
