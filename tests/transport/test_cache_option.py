"""The storage options of the chunk cache: a folder, a size, and how copies are trusted."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import zarr

from intake_nwbzarr.errors import LocationError
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.location.options import default_folder
from intake_nwbzarr.transport.disk_cache import open_store
from intake_nwbzarr.transport.open import open_transport
from tests.servers.http_server import StaticServer
from tests.transport.cached import DATA, cache_files, get_object


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (True, {}),
        ("true", {}),
        ("2GB", {"size": 2 * 10**9}),
        ("2.5 GiB", {"size": 5 * 2**29}),
        (5_000_000, {"size": 5_000_000}),
        ("5000000", {"size": 5_000_000}),
        (Path("/x/../y"), {"folder": "/y"}),
        ("~/chunks", {"folder": "~/chunks"}),
        ({"folder": "/y", "size": "1 TB"}, {"folder": "/y", "size": 10**12}),
        ({}, {}),
        (False, None),
        ("false", None),
        (None, None),
    ],
)
def test_the_option_is_a_folder_or_a_size_and_travels_as_it_is(given: Any, kept: Any) -> None:
    for url in ("https://example.org/a.nwb.zarr", "s3://bucket/a.nwb.zarr"):
        location = locate(url, {"chunk_cache": given})
        assert location.option("chunk_cache") == kept
        assert pickle.loads(pickle.dumps(location)) == location
        assert Location.from_attributes(location.attributes()) == location
        assert location.uncached == locate(url)
    assert locate("/a.nwb.zarr", {"chunk_cache": given}).public == {}


def test_a_relative_folder_is_that_of_the_process_that_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    location = locate("s3://bucket/a", {"chunk_cache": "chunks"})
    assert location.option("chunk_cache") == {"folder": str(tmp_path / "chunks")}


@pytest.mark.parametrize("given", ["", "10", 999, -1, math.inf, math.nan, [], {"path": "x"}, "s3://bucket/x"])
def test_an_invalid_option_is_an_error(given: Any) -> None:
    with pytest.raises(LocationError, match="chunk"):
        locate("https://example.org/a.nwb.zarr", {"chunk_cache": given})
    with pytest.raises(LocationError, match="revalidate"):
        locate("https://example.org/a.nwb.zarr", {"revalidate": "sometimes"})


def test_a_filesystem_without_etags_has_no_such_cache(folder: Path) -> None:
    for place in ("memory://a.nwb.zarr", zarr.storage.MemoryStore()):
        with pytest.raises(LocationError, match="needs ETags") as caught:
            locate(place, {"chunk_cache": folder})
        assert caught.value.expected == ("http", "https", "s3")
        assert "simplecache" in str(caught.value.next_step)


def test_a_size_alone_means_the_users_cache_directory(
    web: StaticServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder().is_relative_to(tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder().is_relative_to(tmp_path / "home")
    assert get_object(open_transport(locate(web.url, {"chunk_cache": "3 MB"})), "a/0") == DATA
    assert len(cache_files(default_folder())) == 1
    assert open_store(default_folder(), 3 * 10**6).size == 3 * 10**6
