"""Locations: paths and URLs, storage options, attributes, and external links."""

import copy
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import dask.base
import pytest
import zarr.storage

from intake_nwbzarr.errors import CredentialsError, LinkError, LocationError
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.location.options import Timeouts, timeouts


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://host/a.nwb.zarr", "https://host/a.nwb.zarr"),
        ("HTTPS://Host:8443/a.nwb.zarr///", "https://host:8443/a.nwb.zarr"),
        ("http://[::1]:80/a b", "http://[::1]:80/a%20b"),
        ("http://host/a%20b+c", "http://host/a%20b+c"),
        ("https://host/a?versionId=1#part", "https://host/a"),
        ("s3://bucket/a b/+c/", "s3://bucket/a b/+c"),
        ("s3a://bucket", "s3://bucket"),
        ("file:///data/a/", "file:///data/a"),
        ("file://localhost/data/a", "file:///data/a"),
        ("memory://a/b/", "memory://a/b"),
        ("simplecache::s3://bucket/a/", "simplecache::s3://bucket/a"),
        ("simplecache::https://me:pw@host:80/a?b=c::d", "simplecache::https://host:80/a"),
        ("simplecache::https://me:s::sec@host/x", "simplecache::https://host/x"),
        ("zip://x?y::https://me@host/a@b.zip#z", "zip://x::https://host/a@b.zip"),
        ("http://me:pw@[::1]/a?b::c", "http://[::1]/a"),
        ("/data/x/../a.nwb.zarr/", "file:///data/a.nwb.zarr"),
    ],
)
def test_a_location_has_one_canonical_url(given: str, url: str) -> None:
    assert locate(given).url == str(locate(given)) == url


def test_local_paths_are_absolute_and_may_start_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = f"file://{tmp_path}/lick rate.nwb.zarr"
    for given in (
        "lick rate.nwb.zarr",
        "./lick rate.nwb.zarr/",
        "~/lick rate.nwb.zarr",
        Path("lick rate.nwb.zarr"),
    ):
        assert locate(given).url == expected
    assert locate(expected).path == tmp_path / "lick rate.nwb.zarr"
    (tmp_path / "lick rate.nwb.zarr").mkdir()
    assert locate(expected.replace(" ", "%20")).url == expected


def test_a_location_is_its_own_location() -> None:
    location = locate("s3://bucket/a", {"anon": True})
    assert locate(location) is location
    with pytest.raises(LocationError, match=r"a Location .* has its own"):
        locate(location, {"anon": True})


def test_open_stores_are_locations(tmp_path: Path) -> None:
    assert locate(zarr.storage.LocalStore(tmp_path)).url == f"file://{tmp_path}"
    store = zarr.storage.MemoryStore()
    assert locate(store) == locate(store) != locate(zarr.storage.MemoryStore())
    assert locate(store).url.startswith("store://")
    assert copy.deepcopy(locate(store)).store is store
    with pytest.raises(LocationError, match="not sent to other processes"):
        pickle.dumps(locate(store))
    with pytest.raises(LocationError, match="Pass the zarr Store itself"):
        locate(locate(store).url)


@pytest.mark.parametrize(
    "given",
    ["", "a\0b", "http://", "https:///a", "http://host:port/", "s3://", "s3:///key", "s3://b/k?X-Amz-Signature=1",
     "s3://AKIA:sec/ret@bucket/key", "https://me:sec/ret@host/", "simplecache::https://me:sec/ret@host/x",
     "http://host\\@evil/", 17, None, {"url": "x"}],
)  # fmt: skip
def test_an_invalid_location_is_an_error_that_shows_no_secret(given: Any) -> None:
    with pytest.raises(LocationError) as caught:
        locate(given)
    assert "sec" not in str(caught.value).replace("'secret'", "")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("s3://bucket/a", {"anno": True}, "is not an option for S3. Did you mean 'anon'"),
        ("s3://bucket/a", {"client_kwargs": {"endpoint": "x"}}, "Did you mean 'endpoint_url'"),
        ("s3://bucket/a", {"endpoint_url": "localhost:9000"}, "endpoint_url must be"),
        ("s3://bucket/a", {"endpoint_url": "http://me:canary@host"}, "endpoint_url must be"),
        ("s3://bucket/a", {"endpoint_url": "http://:canary@host"}, "endpoint_url must be"),
        ("s3://bucket/a", {"endpoint_url": "http://host:99999"}, "endpoint_url must be"),
        ("s3://bucket/a", {"endpoint_url": "http://host:x"}, "endpoint_url must be"),
        ("s3://bucket/a", {"timeouts": {"connect": 0}}, "positive numbers"),
        ("s3://bucket/a", {"timeouts": {"conect": 1}}, "positive numbers"),
        ("https://host/a", {"key": "canary", "secret": "canary"}, "such as s3://bucket/key"),
        ("https://host/a", {"headers": {"X": "a\r\nb: c"}}, "line break"),
        ("/data/a", {"profile": "lab"}, "is not an option for a local folder"),
    ],
)
def test_invalid_options_are_errors(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LocationError, match=message) as caught:
        locate(url, options)
    assert "canary" not in str(vars(caught.value))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "canary"}, "s3://bucket/a are incomplete: secret missing"),
        ({"secret": "canary", "token": "canary"}, "s3://bucket/a are incomplete: key missing"),
        ({"key": "k", "secret": "s", "profile": "lab"}, "Two identities"),
        ({"key": "k", "secret": "s", "anon": True}, "Two identities"),
    ],
)
def test_credentials_are_one_set(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        locate("s3://bucket/a", options)
    assert "canary" not in str(caught.value)


def test_the_names_of_s3fs_and_botocore_are_aliases() -> None:
    plain = locate(
        "s3://bucket/a", {"endpoint_url": "http://host:1", "region": "eu-west-1", "key": "k", "secret": "s"}
    )
    nested = {"endpoint_url": "http://host:1/", "region_name": "eu-west-1"}
    assert plain == locate("s3://bucket/a", {"client_kwargs": nested, "username": "k", "password": "s"})
    assert plain == locate(
        "s3://k:s@bucket/a", {"client_kwargs": nested, "default_block_size": 5, "token": None}
    )
    assert locate("s3://bucket/a", {"anon": False}) == locate("s3://bucket/a")


def test_timeouts_are_an_option() -> None:
    location = locate("https://host/a", {"timeouts": {"stall": 1.5}})
    assert timeouts(location.public) == Timeouts(stall=1.5)
    assert timeouts(locate("https://host/a").public) == Timeouts()


def test_locations_pickle_compare_and_hash() -> None:
    location = locate("s3://bucket/a", {"key": "k", "secret": "s", "endpoint_url": "http://host"})
    again = pickle.loads(pickle.dumps(location))
    assert again == location
    assert hash(again) == hash(location)
    assert location != locate("s3://bucket/a", {"key": "k", "secret": "other", "endpoint_url": "http://host"})
    assert location.cache_key != locate("s3://bucket/a", {"endpoint_url": "http://host"}).cache_key


def test_dask_tokens_are_stable_and_know_no_secret() -> None:
    first = locate("s3://bucket/a", {"key": "k", "secret": "s", "endpoint_url": "http://host"})
    other = locate("s3://bucket/a", {"key": "k", "secret": "t", "endpoint_url": "http://host"})
    elsewhere = locate("s3://bucket/a", {"key": "k", "secret": "s", "endpoint_url": "http://other"})
    assert dask.base.tokenize(first) == dask.base.tokenize(other) != dask.base.tokenize(elsewhere)


class TestAttributes:
    def test_they_lead_back_in_the_same_process(self) -> None:
        for given in (
            locate("s3://bucket/a", {"key": "k", "secret": "canary", "endpoint_url": "http://host"}),
            locate("s3://bucket/a", {"profile": "lab"}),
            locate("https://me:canary@host/a?canary=1"),
            locate("/data/a"),
            locate("s3://bucket/a", {"anon": True, "endpoint_url": "http://127.0.0.1:5000"}),
            locate("simplecache::https://me:canary@host/a", {"https": {"headers": {"a": "canary"}}}),
        ):
            attributes = given.attributes()
            assert Location.from_attributes(attributes) == given
            assert "canary" not in str(attributes)
            assert all(isinstance(value, str) for value in attributes.values())

    def test_an_open_store_is_found_again(self) -> None:
        store = zarr.storage.MemoryStore()
        assert Location.from_attributes(locate(store).attributes()).store is store

    @pytest.mark.parametrize(
        "options",
        [
            None,
            '{"profile": "admin"}',
            '{"anon": true, "endpoint_url": "http://127.0.0.1:1"}',
            '{"credentials": "0123"}',
            '{"credentials": []}',
        ],
    )
    @pytest.mark.parametrize("url", ["s3://of-data/a", "https://of-data/a?canary", "file:///of-data/a"])
    def test_data_alone_opens_nothing(self, url: str, options: str | None) -> None:
        attributes = {"nwb_location": url} | ({"nwb_storage_options": options} if options else {})
        with pytest.raises(LocationError, match="not opened in this process") as caught:
            Location.from_attributes(attributes)
        assert caught.value.location == url.partition("?")[0]
        assert f"intake_nwbzarr.open_nwb('{caught.value.location}')" in str(caught.value.next_step)
        assert "canary" not in str(caught.value)

    def test_a_known_location_vouches_for_no_other_options(self) -> None:
        attributes = locate("s3://known/a").attributes()
        with pytest.raises(LocationError, match="not opened in this process"):
            Location.from_attributes(attributes | {"nwb_storage_options": '{"requester_pays": true}'})

    def test_a_handle_does_not_open_another_location(self) -> None:
        handle = locate("s3://mine/a", {"key": "k", "secret": "s"}).attributes()["nwb_storage_options"]
        stolen = {"nwb_location": "https://evil.example/a", "nwb_storage_options": handle}
        with pytest.raises(LocationError, match="not opened in this process"):
            Location.from_attributes(stolen)

    def test_what_a_file_links_to_without_permission_stays_unknown(self) -> None:
        with pytest.raises(LinkError):
            locate("s3://bucket/day/a.nwb.zarr").sibling("s3://linked-by-a-file/raw")
        with pytest.raises(LocationError, match="not opened in this process"):
            Location.from_attributes({"nwb_location": "s3://linked-by-a-file/raw"})

    def test_a_bounded_number_of_locations_is_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("intake_nwbzarr.location.location._KNOWN", OrderedDict())
        monkeypatch.setattr("intake_nwbzarr.location.location.MOST_KNOWN", 2)
        first, second = locate("s3://bucket/1"), locate("s3://bucket/2")
        assert Location.from_attributes(first.attributes()) == first
        locate("s3://bucket/3")
        assert Location.from_attributes(first.attributes()) == first
        with pytest.raises(LocationError, match="not opened in this process"):
            Location.from_attributes(second.attributes())

    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"nwb_location": 5},
            {"nwb_location": "s3://b/a", "nwb_storage_options": "{"},
            {"nwb_location": "s3://b/a", "nwb_storage_options": "[]"},
            {"nwb_location": "ssh://host/a"},
            {"nwb_location": "simplecache::file:///etc"},
        ],
    )
    def test_damaged_or_foreign_ones_are_errors(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(LocationError):
            Location.from_attributes(attributes)


class TestSiblings:
    @pytest.mark.parametrize(
        ("location", "source", "url"),
        [
            ("s3://bucket/day/a.nwb.zarr", "../raw.nwb.zarr", "s3://bucket/day/raw.nwb.zarr"),
            ("s3://bucket/day/a.nwb.zarr", "../x/raw b.nwb.zarr", "s3://bucket/day/x/raw b.nwb.zarr"),
            ("s3://bucket/day/a.nwb.zarr", "s3://bucket/day/raw.nwb.zarr", "s3://bucket/day/raw.nwb.zarr"),
            ("https://host/day/a.nwb.zarr", "../raw b.nwb.zarr", "https://host/day/raw%20b.nwb.zarr"),
            ("https://host/a.nwb.zarr", "../raw.nwb.zarr", "https://host/raw.nwb.zarr"),
            ("/data/day/a.nwb.zarr", "../raw.nwb.zarr", "file:///data/day/raw.nwb.zarr"),
            ("/data/day/a.nwb.zarr", "/data/day/raw.nwb.zarr", "file:///data/day/raw.nwb.zarr"),
            ("/data/day/a.nwb.zarr.zip", "../raw.nwb.zarr", "file:///data/day/raw.nwb.zarr"),
            ("memory://day/a.nwb.zarr", "../raw.nwb.zarr", "memory://day/raw.nwb.zarr"),
        ],
    )
    def test_neighbours_are_reached(self, location: str, source: str, url: str) -> None:
        assert locate(location).sibling(source).url == url

    @pytest.mark.parametrize("source", ["", ".", "./", "../a.nwb.zarr"])
    def test_a_file_is_its_own_sibling(self, source: str) -> None:
        location = locate("s3://bucket/day/a.nwb.zarr")
        assert location.sibling(source) is location

    @pytest.mark.parametrize(
        ("location", "source"),
        [
            ("s3://bucket/day/a.nwb.zarr", "../../other/raw.nwb.zarr"),
            ("s3://bucket/day/a.nwb.zarr", ".."),
            ("s3://bucket/day/a.nwb.zarr", "s3://other/day/raw.nwb.zarr"),
            ("s3://bucket/day/a.nwb.zarr", "https://evil.example/raw"),
            ("https://host/day/a.nwb.zarr", "http://host/day/raw"),
            ("/data/day/a.nwb.zarr", "/etc/passwd"),
            ("/data/day/a.nwb.zarr", "../../../etc"),
        ],
    )
    def test_what_lies_outside_needs_permission(self, location: str, source: str) -> None:
        with pytest.raises(LinkError, match="outside its parent folder") as caught:
            locate(location).sibling(source)
        assert caught.value.location == locate(location).url
        assert caught.value.found == source
        assert "allow_external" in str(caught.value.next_step)
        assert locate(location, {"allow_external": True}).sibling(source).url

    @pytest.mark.parametrize(
        ("location", "source"),
        [
            ("s3://bucket/day/a.nwb.zarr", "../../../../x"),
            ("s3://bucket/day/a.nwb.zarr", "/etc/passwd"),
            ("https://host/day/a.nwb.zarr", "file:///etc/passwd"),
            ("https://host/day/a.nwb.zarr", "../%2e%2e/x"),
            ("https://host/day/a.nwb.zarr", "simplecache::s3://b/x"),
            ("https://host/day/a.nwb.zarr", "ssh://host/x"),
            ("/data/a.nwb.zarr", "..\\x"),
            ("/data/a.nwb.zarr", "x\0y"),
        ],
    )
    def test_some_places_are_never_reached(self, location: str, source: str) -> None:
        with pytest.raises(LinkError):
            locate(location, {"allow_external": True}).sibling(source)

    def test_credentials_stay_with_their_bucket_and_host(self) -> None:
        keys = {"key": "k", "secret": "s", "endpoint_url": "http://host:1", "allow_external": True}
        location = locate("s3://bucket/day/a.nwb.zarr", keys)
        assert location.sibling("../raw.nwb.zarr").secrets == location.secrets
        other = location.sibling("s3://other/raw.nwb.zarr")
        assert other.secrets is None
        assert other.public == {"allow_external": True, "anon": True}
        assert location.sibling("https://host/raw").secrets is None

    def test_a_symbolic_link_does_not_lead_out(self, tmp_path: Path) -> None:
        (tmp_path / "inside").mkdir()
        (tmp_path / "outside").mkdir()
        (tmp_path / "inside" / "raw.nwb.zarr").symlink_to(tmp_path / "outside")
        with pytest.raises(LinkError):
            locate(tmp_path / "inside" / "a.nwb.zarr").sibling("../raw.nwb.zarr")


@pytest.mark.parametrize("value", [True, "true", "True"])
def test_booleans_may_be_strings_as_catalog_templates_make_them(value: object) -> None:
    assert locate("s3://bucket/a", {"anon": value}).option("anon") is True
    assert locate("s3://bucket/a", {"anon": "false"}).option("anon") is None


@pytest.mark.parametrize(
    "options",
    [{"anon": "maybe"}, {"requester_pays": "no"}, {"addressing_style": "x"}, {"use_ssl": "no"}, "anon"],
    ids=str,
)
def test_an_invalid_value_is_an_error(options: Any) -> None:
    with pytest.raises(LocationError):
        locate("s3://bucket/a", options)


def test_a_nested_url_with_a_query_is_a_secret() -> None:
    signed = locate("zip://", {"fo": "https://host/a.zip?X-Amz-Signature=canary"})
    assert "canary" not in f"{signed!r}{signed.attributes()}{pickle.dumps(signed)!r}"
    assert signed.secrets is not None
    assert locate("zip://", {"fo": "https://host/a.zip"}).option("fo") == "https://host/a.zip"
