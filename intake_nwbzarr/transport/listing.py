"""Listing a bucket over the S3 protocol: pages, and folders side by side where there are many."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

from intake_nwbzarr.errors import ResponseError
from intake_nwbzarr.transport.contract import Failure, Folder, Listed

# A folder with more folders than this is listed page by page: a request for each costs more than it saves.
MOST_FOLDERS = 64
# bucket.s3.amazonaws.com, bucket.s3.eu-west-1.amazonaws.com, s3.eu-west-1…, s3-eu-west-1…, s3.dualstack.…
_S3_HOST = re.compile(r"(?:(?P<bucket>[a-z0-9][a-z0-9.-]+)\.)?s3(?:[.-][a-z0-9-]+)*\.amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True)
class Page:
    """One answer to ListObjectsV2: objects, common prefixes, and where to go on."""

    objects: tuple[Listed, ...]
    folders: tuple[str, ...]
    token: str | None


type PageOutcome = Page | Failure
type Ask = Callable[[Mapping[str, str]], Awaitable[Page]]


async def list_pages(ask: Ask, root: str, prefix: str) -> list[Listed]:
    """Every object of `prefix`, with keys relative to `root`."""
    folder = "/".join(part for part in (root, prefix) if part)
    found = await _list_folder(ask, f"{folder}/" if folder else "")
    start = f"{root}/" if root else ""
    # A key that ends with a slash is the marker that consoles make of an empty folder.
    return [
        Listed(entry.key.removeprefix(start), entry.size, entry.etag)
        for entry in found
        if entry.key.startswith(start) and not entry.key.endswith("/")
    ]


async def list_level(ask: Ask, root: str, folder: str) -> Folder:
    """What is directly in `folder`; of a Zarr 2 array's only the first page, which names its documents."""
    path = "/".join(part for part in (root, folder) if part)
    query = {"prefix": f"{path}/" if path else "", "delimiter": "/"}
    start = len(query["prefix"])
    page = await ask(query)
    names = [entry.key[start:] for entry in page.objects]
    folders = [key[start:-1] for key in page.folders]
    while page.token is not None and ".zarray" not in names:
        page = await ask(query | {"continuation-token": page.token})
        names += [entry.key[start:] for entry in page.objects]
        folders += [key[start:-1] for key in page.folders]
    # The folder itself, where a console made a marker for it, is the empty name.
    return Folder(tuple(name for name in names if name), tuple(folders))


def page_query(query: Mapping[str, str]) -> str:
    """The query string of one page, encoded and sorted as signatures want it."""
    full = {"list-type": "2", "encoding-type": "url", **query}
    return "&".join(f"{quote(name, safe='-_.~')}={quote(full[name], safe='-_.~')}" for name in sorted(full))


def parse_page(document: bytes) -> Page | Failure:
    """Read a ListBucketResult document."""
    # Entities could make a small document a huge one; S3 writes none.
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        return Failure(ResponseError, "the listing is not one that an S3 server writes")
    try:
        tree = ET.fromstring(document)  # noqa: S314 (no document types, see above)
        if tree.tag.rpartition("}")[2] != "ListBucketResult":
            return Failure(ResponseError, "the answer is no listing of a bucket")
        space = tree.tag.rpartition("}")[0] + "}" if tree.tag.startswith("{") else ""
        decode = unquote if tree.findtext(f"{space}EncodingType") == "url" else str
        objects = tuple(
            Listed(
                decode(entry.findtext(f"{space}Key") or ""),
                int(entry.findtext(f"{space}Size") or 0),
                entry.findtext(f"{space}ETag"),
            )
            for entry in tree.iter(f"{space}Contents")
        )
        folders = tuple(
            decode(entry.findtext(f"{space}Prefix") or "") for entry in tree.iter(f"{space}CommonPrefixes")
        )
        truncated = tree.findtext(f"{space}IsTruncated") == "true"
        token = tree.findtext(f"{space}NextContinuationToken") if truncated else None
    except (ET.ParseError, ValueError):
        return Failure(ResponseError, "the listing cannot be parsed", attempts=None)
    if truncated and not token:
        return Failure(ResponseError, "the listing is cut off and does not say where to go on", attempts=None)
    return Page(objects, folders, token)


def public_bucket(url: str) -> tuple[str, str] | None:
    """Where a plain https URL of S3 is listed, as (bucket's address, key); None for other servers."""
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


async def _list_folder(ask: Ask, prefix: str) -> list[Listed]:
    first = await ask({"prefix": prefix})
    if first.token is None:
        return list(first.objects)
    level = await ask({"prefix": prefix, "delimiter": "/"})
    if level.token is not None or not 1 < len(level.folders) <= MOST_FOLDERS:
        return await _rest(ask, prefix, first)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_list_folder(ask, folder)) for folder in level.folders]
    return list(level.objects) + [entry for task in tasks for entry in task.result()]


async def _rest(ask: Ask, prefix: str, page: Page) -> list[Listed]:
    found = list(page.objects)
    while page.token is not None:
        page = await ask({"prefix": prefix, "continuation-token": page.token})
        found += page.objects
    return found
