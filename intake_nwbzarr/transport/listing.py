"""Listing of S3 buckets: pages, and the folders of large listings in parallel."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote, unquote, urlsplit
from xml.parsers import expat

from intake_nwbzarr.errors import LimitError, ResponseError
from intake_nwbzarr.transport.answers import Failure, Folder, Listed, tells_versions_apart
from intake_nwbzarr.untrusted_input import DEEPEST_PAGE, DEEPEST_PATH, MOST_EMPTY, MOST_KEYS, MOST_PAGES

# A folder with more folders than this is listed page by page: a request for each costs more than it saves.
MOST_FOLDERS = 64
# bucket.s3.amazonaws.com, bucket.s3.eu-west-1.amazonaws.com, s3.eu-west-1…, s3-eu-west-1…, s3.dualstack.…
_S3_HOST = re.compile(r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]+)\.)?s3(?:[.-][a-z0-9-]+)*\.amazonaws\.com(?:\.cn)?")
_SIZE = re.compile(r"\d{1,15}")


@dataclass(frozen=True)
class Page:
    """One page of ListObjectsV2: objects, common prefixes, and the continuation token."""

    objects: tuple[Listed, ...]
    folders: tuple[str, ...]
    token: str | None


type PageOutcome = Page | Failure
type Ask = Callable[[Mapping[str, str]], Awaitable[Page]]


async def list_pages(ask: Ask, root: str, prefix: str, where: str) -> list[Listed]:
    """Return every object under `prefix`, with keys relative to `root`."""
    folder = "/".join(part for part in (root, prefix) if part)
    found = await _list_folder(_Listing(ask, where), f"{folder}/" if folder else "", 0)
    start = f"{root}/" if root else ""
    # A key that ends with a slash is the marker that consoles make of an empty folder.
    return [
        Listed(entry.key.removeprefix(start), entry.size, entry.etag)
        for entry in found
        if entry.key.startswith(start) and not entry.key.endswith("/")
    ]


async def list_level(ask: Ask, root: str, folder: str, where: str) -> Folder:
    """Return what is directly in `folder`; of a Zarr 2 array, only the first page, which has its metadata."""
    path = "/".join(part for part in (root, folder) if part)
    query = {"prefix": f"{path}/" if path else "", "delimiter": "/"}
    start = len(query["prefix"])
    listing = _Listing(ask, where)
    page = await listing.page(query)
    objects, folders = list(page.objects), list(page.folders)
    while page.token is not None and not any(entry.key[start:] == ".zarray" for entry in page.objects):
        page = await listing.page(query, page)
        objects += page.objects
        folders += page.folders
    # The folder itself, where a console made a marker for it, is the empty name.
    etags = {entry.key[start:]: entry.etag for entry in objects if entry.key[start:]}
    return Folder(
        tuple(etags),
        tuple(key[start:-1] for key in folders),
        {name: etag for name, etag in etags.items() if etag and tells_versions_apart(name)},
    )


@dataclass
class _Listing:
    """Reads the pages of one listing, within the limits."""

    ask: Ask
    where: str
    pages: int = 0
    keys: int = 0
    empty: int = 0
    tokens: set[int] = field(default_factory=set)

    async def page(self, query: Mapping[str, str], after: Page | None = None) -> Page:
        """Return the first page of a query, or the page after another one."""
        asked = query if after is None else {**query, "continuation-token": after.token or ""}
        found = await self.ask(asked)
        prefix = query["prefix"]
        keys = [entry.key for entry in found.objects]
        if not all(key.startswith(prefix) for key in keys) or not all(
            folder.startswith(prefix) and folder.endswith("/") and len(folder) > len(prefix)
            for folder in found.folders
        ):
            raise ResponseError(
                f"Cannot list {self.where}: the server returned keys without the requested prefix.",
                location=self.where,
                expected=prefix,
            )
        self.pages += 1
        self.keys += len(keys) + len(found.folders)
        self.empty = 0 if after is None or keys or found.folders else self.empty + 1
        place = hash((prefix, "delimiter" in query, found.token))
        if self.empty > MOST_EMPTY or (found.token is not None and place in self.tokens):
            raise ResponseError(
                f"Cannot list {self.where}: the server's listing does not end.", location=self.where
            )
        self.tokens.add(place)
        if self.pages > MOST_PAGES or self.keys > MOST_KEYS:
            raise LimitError(
                f"Cannot list {self.where}: it has more than {MOST_KEYS:,} keys or {MOST_PAGES:,} pages.",
                location=self.where,
                found=self.keys,
                expected=MOST_KEYS,
            )
        return found


def page_query(query: Mapping[str, str]) -> str:
    """Return the query string of one page, encoded and sorted as signatures require."""
    full = {"list-type": "2", "encoding-type": "url", **query}
    return "&".join(f"{quote(name, safe='-_.~')}={quote(full[name], safe='-_.~')}" for name in sorted(full))


def parse_page(document: bytes) -> Page | Failure:
    """Read a ListBucketResult document."""
    reader = _PageReader()
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.texts.append
    # Entities could make a small document a huge one; S3 writes none.
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, ValueError):
        return Failure(ResponseError, "the listing cannot be parsed", attempts=None)
    except _NoListingError:
        return Failure(ResponseError, "the response is not a listing of an S3 server")
    return reader.page()


class _NoListingError(Exception):
    """The document is not a listing."""


class _PageReader:
    """Reads a ListBucketResult, and rejects other documents at their first element."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._path: list[str] = []
        self._entry: dict[str, str] = {}
        self._fields: dict[str, str] = {}
        self._objects: list[dict[str, str]] = []
        self._folders: list[str] = []

    def refuse(self, *_declared: object) -> None:
        """Reject the document."""
        raise _NoListingError

    def begin(self, tag: str, _attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        self._path.append(tag.rpartition(":")[2])
        if self._path[0] != "ListBucketResult" or len(self._path) > DEEPEST_PAGE:
            self.refuse()
        self.texts.clear()

    def end(self, _tag: str) -> None:
        """End an element."""
        text = "".join(self.texts)
        self.texts.clear()
        match self._path[1:]:
            case ["Contents"]:
                self._objects.append(self._entry)
                self._entry = {}
            case ["Contents", name]:
                self._entry[name] = text
            case ["CommonPrefixes", "Prefix"]:
                self._folders.append(text)
            case [name]:
                self._fields[name] = text
        self._path.pop()

    def page(self) -> Page | Failure:
        """Return the page that was read."""
        decode = unquote if self._fields.get("EncodingType") == "url" else str
        sizes = [entry.get("Size") or "0" for entry in self._objects]
        if not all(map(_SIZE.fullmatch, sizes)):
            return Failure(ResponseError, "the listing cannot be parsed", attempts=None)
        truncated = self._fields.get("IsTruncated") == "true"
        token = self._fields.get("NextContinuationToken") if truncated else None
        if truncated and not token:
            return Failure(
                ResponseError, "the listing is truncated and has no continuation token", attempts=None
            )
        objects = tuple(
            Listed(decode(entry.get("Key", "")), int(size), entry.get("ETag"))
            for entry, size in zip(self._objects, sizes, strict=True)
        )
        return Page(objects, tuple(map(decode, self._folders)), token)


def public_bucket(url: str) -> tuple[str, str] | None:
    """Return the bucket address and the key of a plain https URL of S3; None for other servers."""
    parts = urlsplit(url)
    match = _S3_HOST.fullmatch(parts.hostname or "")
    if match is None:
        return None
    path = unquote(parts.path.lstrip("/"))
    origin = f"{parts.scheme}://{parts.netloc}"
    if match["bucket"] is not None:
        return f"{origin}/", path
    bucket, _, key = path.partition("/")
    return (f"{origin}/{quote(bucket)}", key) if bucket else None


def s3_url(url: str) -> str | None:
    """Return the s3:// URL of a plain https URL of S3; None for other servers.

    Examples
    --------
    >>> s3_url("https://dandiarchive.s3.amazonaws.com/zarr/c8c6b848/")
    's3://dandiarchive/zarr/c8c6b848'
    >>> s3_url("https://s3.us-east-2.amazonaws.com/bucket/key")
    's3://bucket/key'
    """
    parts = urlsplit(url)
    match = _S3_HOST.fullmatch(parts.hostname or "")
    if match is None:
        return None
    bucket = f"{match['bucket']}/" if match["bucket"] is not None else ""
    return f"s3://{bucket}{unquote(parts.path).strip('/')}"


async def _list_folder(listing: _Listing, prefix: str, depth: int) -> list[Listed]:
    from intake_nwbzarr.transport.loop import gather

    first = await listing.page({"prefix": prefix})
    if first.token is None:
        return list(first.objects)
    level = await listing.page({"prefix": prefix, "delimiter": "/"})
    if level.token is not None or not 1 < len(level.folders) <= MOST_FOLDERS or depth > DEEPEST_PATH:
        return await _rest(listing, prefix, first)
    inner = await gather([partial(_list_folder, listing, folder, depth + 1) for folder in level.folders])
    return list(level.objects) + [entry for entries in inner for entry in entries]


async def _rest(listing: _Listing, prefix: str, page: Page) -> list[Listed]:
    found = list(page.objects)
    while page.token is not None:
        page = await listing.page({"prefix": prefix}, page)
        found += page.objects
    return found
