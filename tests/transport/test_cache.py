"""The chunk cache: what is fetched once, how long it is trusted, and what is never kept."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from intake_nwbzarr import track_requests
from intake_nwbzarr.errors import NWBZarrError, TransportError
from intake_nwbzarr.transport.open import fetch_many
from tests.servers.http_server import StaticServer
from tests.transport.cached import DATA, cache_files, cached_transport, get_object, store_object


def test_an_object_is_fetched_once_for_a_state_of_the_session(web: StaticServer, folder: Path) -> None:
    with track_requests() as log:
        assert get_object(cached_transport(web, folder)) == DATA
    assert (log.requests, log.bytes, log.bytes_cached) == (1, len(DATA), 0)
    with track_requests() as log:
        assert get_object(cached_transport(web, folder)) == DATA
    assert (log.requests, log.bytes, log.bytes_used, log.bytes_cached) == (0, 0, 0, len(DATA))
    assert str(log).splitlines()[0].split()[-1] == "cached"
    assert web.count() == 1


def test_in_another_state_it_is_asked_about_and_not_sent(web: StaticServer, folder: Path) -> None:
    get_object(cached_transport(web, folder))
    for state in ("another", None):
        with track_requests() as log:
            assert get_object(cached_transport(web, folder, state)) == DATA
        assert (log.requests, log.bytes, log.bytes_cached) == (1, 0, len(DATA))
    assert [seen.status for seen in web.requests] == [200, 304, 304]
    # What was found unchanged belongs to the state that it was asked in.
    with track_requests() as log:
        assert get_object(cached_transport(web, folder, "another")) == DATA
    assert log.requests == 0


def test_an_object_that_has_changed_is_fetched_anew_and_its_copies_are_gone(
    web: StaticServer, folder: Path
) -> None:
    get_object(cached_transport(web, folder), start=0, stop=10)
    store_object(web, "a/0", DATA[::-1])
    assert get_object(cached_transport(web, folder, "later"), start=0, stop=10) == DATA[::-1][:10]
    assert get_object(cached_transport(web, folder, "later")) == DATA[::-1]
    store_object(web, "a/0", DATA)
    assert get_object(cached_transport(web, folder, "latest")) == DATA
    assert len(cache_files(folder)) == 1


def test_a_chunk_replaced_without_the_metadata_is_seen_on_request_only(
    web: StaticServer, folder: Path
) -> None:
    get_object(cached_transport(web, folder))
    store_object(web, "a/0", b"replaced")
    assert get_object(cached_transport(web, folder)) == DATA
    assert get_object(cached_transport(web, folder, revalidate=True)) == b"replaced"
    assert get_object(cached_transport(web, folder)) == b"replaced"


def test_without_revalidation_nothing_is_asked_in_any_state(web: StaticServer, folder: Path) -> None:
    get_object(cached_transport(web, folder))
    store_object(web, "a/0", b"replaced")
    with track_requests() as log:
        assert get_object(cached_transport(web, folder, None, revalidate=False)) == DATA
    assert log.requests == 0


@pytest.mark.parametrize("key", ["zarr.json", ".zmetadata", "a/.zarray", "a/zarr.json"])
def test_a_metadata_document_is_asked_about_every_time(key: str, web: StaticServer, folder: Path) -> None:
    store_object(web, key, b"{}")
    for expected in ([200], [200, 304], [200, 304, 304]):
        assert get_object(cached_transport(web, folder), key) == b"{}"
        assert [seen.status for seen in web.requests] == expected


def test_what_is_asked_for_at_once_is_fetched_once(web: StaticServer, folder: Path) -> None:
    web.latency = 0.05
    found = fetch_many(cached_transport(web, folder), ["a/0"] * 20)
    assert all(fetched is not None and fetched.data == DATA for fetched in found)
    assert web.count() == 1


def test_views_of_one_state_are_equal_and_stay_in_their_process(web: StaticServer, folder: Path) -> None:
    one = cached_transport(web, folder)
    assert one == cached_transport(web, folder)
    assert hash(one) == hash(cached_transport(web, folder))
    assert one != cached_transport(web, folder, "another")
    with pytest.raises(TypeError, match="pickle its location"):
        pickle.dumps(one)


def test_a_missing_object_is_never_cached_and_ends_its_copy(web: StaticServer, folder: Path) -> None:
    for count in (1, 2):
        assert get_object(cached_transport(web, folder, None), "a/1") is None
        assert web.count("a/1") == count
    store_object(web, "a/1", b"now there")
    assert get_object(cached_transport(web, folder), "a/1") == b"now there"
    (web.root / "a/1").unlink()
    assert get_object(cached_transport(web, folder, None), "a/1") is None
    assert cache_files(folder) == []
    assert get_object(cached_transport(web, folder, None), "a/1") is None


@pytest.mark.parametrize("status", [403, 400, 503])
def test_an_error_is_never_cached_and_never_answered_from_a_copy(
    status: int, web: StaticServer, folder: Path
) -> None:
    web.fault("status", times=math.inf, status=status)
    with pytest.raises(NWBZarrError, match=str(status)):
        get_object(cached_transport(web, folder))
    assert cache_files(folder) == []
    web.reset()
    get_object(cached_transport(web, folder))
    web.fault("status", times=math.inf, status=status)
    with pytest.raises(NWBZarrError, match=str(status)):
        get_object(cached_transport(web, folder, "another"))


@pytest.mark.parametrize("fault", ["truncate", "stall", "reset"])
def test_what_was_cut_short_is_repeated_or_an_error_and_nothing_is_kept_of_it(
    fault: Any, web: StaticServer, folder: Path
) -> None:
    web.fault(fault, times=math.inf)
    with pytest.raises(TransportError):
        get_object(cached_transport(web, folder))
    assert cache_files(folder) == []
    web.reset()
    web.fault(fault)
    with track_requests() as log:
        assert get_object(cached_transport(web, folder)) == DATA
    assert (log.requests, log.retries) == (2, 1)
    assert get_object(cached_transport(web, folder)) == DATA
    assert web.count() == 2


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_what_has_no_strong_etag_is_not_kept(etag: str, web: StaticServer, folder: Path) -> None:
    web.fault("etag", times=math.inf, headers={"ETag": etag})
    for count in (1, 2):
        assert get_object(cached_transport(web, folder)) == DATA
        assert web.count() == count
    assert cache_files(folder) == []
