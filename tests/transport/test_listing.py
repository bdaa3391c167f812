"""Listings over the S3 protocol that are not what they should be: one error of ours, and soon."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from intake_nwbzarr.errors import AccessError, LimitError, NWBZarrError, ResponseError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport import listing
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.listing import Page, parse_page
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from tests.servers.loopback import LoopbackServer, Response

type Query = dict[str, str]


def document(*keys: str, folders: tuple[str, ...] = (), token: str | None = None) -> bytes:
    entries = [f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys]
    entries += [f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in folders]
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        f"<ListBucketResult><IsTruncated>{'true' if token else 'false'}</IsTruncated>{more}"
        f"{''.join(entries)}</ListBucketResult>"
    ).encode()


class ListingServer(LoopbackServer):
    """Answers listings as `page` says."""

    page: Callable[[Query], bytes | Response]

    async def answer(self, request: web.Request) -> Response:
        found = self.page(dict(request.query))
        return found if isinstance(found, Response) else Response(200, found)


@pytest.fixture
def server() -> Iterator[ListingServer]:
    with ListingServer() as server:
        yield server


def source(server: ListingServer) -> Transport:
    options: dict[str, Any] = {"anon": True, "endpoint_url": server.url, "timeouts": {"attempts": 1}}
    return open_transport(locate("s3://bucket/a", options))


def listed_both_ways(server: ListingServer) -> Iterator[Callable[[], Any]]:
    yield lambda: run(source(server).list())
    yield lambda: run(source(server).list_folder(""))


def test_a_listing_that_repeats_itself_is_an_error(server: ListingServer) -> None:
    server.page = lambda query: document("a/x", token="again")
    for ask in listed_both_ways(server):
        with pytest.raises(ResponseError, match="does not end"):
            ask()


def test_a_listing_that_goes_round_in_a_circle_is_an_error(server: ListingServer) -> None:
    turn = {"1": "2", "2": "3", "3": "1"}
    server.page = lambda query: document("a/x", token=turn[query.get("continuation-token", "3")])
    for ask in listed_both_ways(server):
        with pytest.raises(ResponseError, match="does not end"):
            ask()


def test_empty_pages_without_end_are_an_error(server: ListingServer) -> None:
    numbers = count()
    server.page = lambda query: document(token=str(next(numbers)))
    for ask in listed_both_ways(server):
        with pytest.raises(ResponseError, match="does not end"):
            ask()


def test_a_listing_has_a_limit(server: ListingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_KEYS", 30)
    numbers = count()
    server.page = lambda query: document(f"a/{next(numbers)}", token=str(next(numbers)))
    for ask in listed_both_ways(server):
        with pytest.raises(LimitError) as raised:
            ask()
        assert (raised.value.location, raised.value.expected) == (str(source(server).location), 30)


def test_a_folder_that_fails_among_others_is_the_error_of_the_whole_listing(server: ListingServer) -> None:
    def page(query: Query) -> bytes | Response:
        if query["prefix"] == "a/two/":
            return Response(403, b"<Error><Code>AccessDenied</Code></Error>")
        if query["prefix"] == "a/" and "delimiter" not in query:
            return document("a/x", token="more")
        return document(folders=("a/one/", "a/two/", "a/three/") if query["prefix"] == "a/" else ())

    server.page = page
    with pytest.raises(AccessError, match="AccessDenied"):
        run(source(server).list())


@pytest.mark.parametrize(
    "page",
    [
        document("b/x"),
        document(folders=("b/",)),
        document(folders=("",)),
        document(folders=("a/",)),
        document(folders=("a/x",)),
        document("a/../../x"),
    ],
)
def test_what_was_not_asked_for_is_not_listed(page: bytes, server: ListingServer) -> None:
    server.page = lambda query: page
    for ask in listed_both_ways(server):
        if page.count(b"CommonPrefixes") and b"Contents" not in page:
            server.page = lambda query: page if "delimiter" in query else document("a/x", token="more")
        with pytest.raises(NWBZarrError):
            ask()


def test_a_page_is_read_with_or_without_a_namespace() -> None:
    page = document("a/x%2Fy", folders=("a/f/",), token="t").replace(
        b"<ListBucketResult>",
        b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Prefix>a/</Prefix><EncodingType>url</EncodingType>",
    )
    found = parse_page(page.replace(b"<Size>", b"<Owner><ID>1</ID></Owner><ETag>&quot;e&quot;</ETag><Size>"))
    assert isinstance(found, Page)
    assert [(entry.key, entry.size, entry.etag) for entry in found.objects] == [("a/x/y", 1, '"e"')]
    assert (found.folders, found.token) == (("a/f/",), "t")


_ENTITIES = (
    '<?xml version="1.0" encoding="{0}"?><!DOCTYPE a [<!ENTITY a "xx">]>'
    "<ListBucketResult><Contents><Key>&a;</Key></Contents></ListBucketResult>"
)


@pytest.mark.parametrize(
    "page",
    [
        _ENTITIES.format("utf-8").encode(),
        _ENTITIES.format("utf-16").encode("utf-16"),
        _ENTITIES.format("utf-16").encode("utf-16-le"),
        b"<a>" * 10**6,
        b"<ListBucketResult>" + b"<a>" * 10**6,
        b"<html><body>Not found</body></html>",
        b"",
        b"\0",
        document("x").replace(b"<Size>1<", b"<Size>" + b"9" * 5000 + b"<"),
        document("x").replace(b"<Size>1<", b"<Size>-1<"),
        document("x")[:-5],
        document("x", token="t").replace(b"NextContinuationToken", b"Other"),
    ],
)
def test_what_is_no_listing_is_refused(page: bytes) -> None:
    assert not isinstance(parse_page(page), Page)


def test_the_error_of_a_listing_says_where(server: ListingServer) -> None:
    server.page = lambda query: b"<html></html>"
    with pytest.raises(ResponseError, match=re.escape("s3://bucket/a")):
        run(source(server).list())
