"""URLs and local paths: how they are read, checked and shown without secrets."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from pathlib import PurePath, PureWindowsPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from intake_nwbzarr.errors import LocationError, LocationNotFoundError

PLAIN = frozenset({"file", "local", "http", "https", "s3", "s3a", "store"})
"""Schemes that need no fsspec: their URLs are never chains, whatever their paths hold."""

# The whole of a bucket's name; what is none is not echoed, it may be half of a password.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
# As botocore and s3fs take them, with slashes or colons between the parts of the resource.
_ACCESS_POINT = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):(?P<service>s3|s3-object-lambda|s3-outposts):(?P<region>[a-z0-9-]+):"
    r"(?P<account>\d{12}):(?:outpost[:/](?P<outpost>[A-Za-z0-9-]{1,63})[:/])?"
    r"accesspoint[:/](?P<name>[a-z0-9-]{1,63})(?:/|$)"
)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*://")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)(://|::)")
_DRIVE = re.compile(r"/[A-Za-z]:(?:[/\\]|$)")
_USERINFO = re.compile(r"://[^/]*@")
# Up to the next link of a chain.
_QUERY = re.compile(r"[?#](?:(?!::[A-Za-z][A-Za-z0-9+.-]*(?:://|::)).)*", re.DOTALL)
# A host with a colon that no port follows: most likely a password with a slash. ARNs have colons.
_ODD_HOST = re.compile(r"://(?!arn:)[^/:\[]*:(?!\d+(?:/|::|$)|:|/)")
_IPV6 = re.compile(r"(?<=://)\[([0-9A-Fa-f:.]+)\]")
# What an address has and a path hardly: a colon and later an @, a colon before a slash, a query; //me@host.
_LIKE_AN_ADDRESS = re.compile(
    r":[^@]*@|[^/]{2}:[/\\]|\?.*=|^//[^/]*@|https?:?[/\\]+[^/\\]*@|(?:^|/)arn:aws", re.DOTALL
)
_DANDI = re.compile(r"(?:^|[/\\])dandi:", re.IGNORECASE)
PATH_SAFE = "/%:@!$&'()*+,;=~-._"

_PAGES = re.compile(
    r"(?:www\.|gui\.|gui-[a-z-]+\.|sandbox\.|api\.|api-[a-z-]+\.|api\.sandbox\.)?dandiarchive\.org"
)
_VIEWERS = re.compile(r"neurosift\.app|neuroglancer[a-z0-9.-]*")
_DANDI_ZARR = re.compile(r"https?://api\.dandiarchive\.org/api/zarr/([0-9a-f-]{36})\b")
_OF_DANDI = (
    "A Zarr asset of DANDI is opened at https://dandiarchive.s3.amazonaws.com/zarr/{}/, which its metadata "
    "name as contentUrl: see 'View asset metadata' beside the file on the page of the dandiset, or "
    "https://api.dandiarchive.org/api/assets/<asset id>/."
)


def redact(url: str) -> str:
    """A URL without userinfo, query and fragment, in every link of a chain."""
    return _QUERY.sub("", _USERINFO.sub("://", url))


def protocol_of(text: str) -> str | None:
    """The scheme of a URL, or of a chain's first link; None for what is a local path."""
    match = _PROTOCOL.match(text)
    if match is None:
        return None
    scheme = match[1].lower()
    if match[2] == "://":
        return scheme
    is_chain = scheme not in PLAIN and ("://" in text or _is_known(scheme))
    return scheme if is_chain and not os.path.lexists(text) else None


def resembles_an_address(path: str) -> bool:
    """Whether a local path, at which nothing is, looks like a mistyped URL: it may hold a password."""
    return bool(_LIKE_AN_ADDRESS.search(path) or _DANDI.search(path)) and not os.path.lexists(path)


def check_path(path: str) -> None:
    """Refuse a local path that is most likely a mistyped URL.

    Raises
    ------
    LocationNotFoundError
        Without an echo of the path.
    """
    if not resembles_an_address(path):
        return
    advice = _OF_DANDI.format("<zarr id>") if _DANDI.search(path) else "URLs begin with https:// or s3://."
    raise LocationNotFoundError(
        "Nothing is stored at the local path that was given, which looks like a mistyped URL and is not "
        f"repeated here, because it may hold a password. {advice}"
    )


def is_encodable(text: str) -> bool:
    """Whether an operating system can hold a text: local names may be any bytes, given as surrogates."""
    try:
        return "\0" not in text and bool(text.encode("utf-8", "surrogateescape") or True)
    except UnicodeEncodeError:
        return False


def check_page(url: str) -> None:
    """Refuse the address of a web page about a session.

    Raises
    ------
    LocationError
        With the way to the session's own address.
    """
    host = urlsplit(url).hostname or ""
    if _PAGES.fullmatch(host):
        known = _DANDI_ZARR.match(url)
        raise LocationError(
            f"{url} is a page or an answer of the DANDI archive, not a session. "
            + _OF_DANDI.format(known[1] if known else "<zarr id>")
        )
    if _VIEWERS.fullmatch(host):
        raise LocationError(
            f"{url} is the page of a viewer, not a session; give the URL of the data that it shows."
        )


def canonical_chain(url: str) -> str:
    """A URL of fsspec's with addresses of IPv6 in full, since ``::`` separates the links of a chain.

    Raises
    ------
    LocationError
        When a part of it may be a password in the wrong place.
    """
    url = _IPV6.sub(_in_full, url)
    shown = redact(url)
    if _ODD_HOST.search(shown):
        raise LocationError(
            "The location has a host with a port that is no number; a / in a password is %2F."
        )
    last = shown.rpartition("::")[2]
    if "://" not in last:
        check_path(last)
    return url


def check_schemes(chain: str) -> None:
    """Refuse a chain with a link whose scheme nobody knows.

    Raises
    ------
    LocationError
        With the closest scheme that is known.
    """
    links = redact(chain).split("::")
    for number, link in enumerate(links, 1):
        scheme, separator, rest = link.partition("://")
        if (separator or number < len(links)) and not _is_known(scheme):
            raise _unknown(scheme, rest)


def is_misplaced(text: str) -> bool:
    """Whether a location is so mistyped that any part of it may be a password; or no text at all."""
    try:
        text.encode()
        match protocol_of(text):
            case None:
                check_path(text)
            case "file" | "local":
                check_path(text.partition("://")[2])
            case "http" | "https":
                canonical_http(text)
            case "s3" | "s3a":
                canonical_bucket(redact(text).partition("://")[2])
            case "store":
                pass
            case _:
                canonical_chain(text)
                if "@" in redact(text):
                    check_schemes(text)
    except (LocationError, UnicodeEncodeError):
        return True
    return False


def canonical_http(url: str) -> tuple[str, dict[str, Any]]:
    """An http(s) URL as (canonical and without secrets, its secrets: ``userinfo`` and ``query``)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        # What follows a host at once and holds an @ is the rest of a password; https://https://... is a slip.
        cut = not parts.path and "@" in parts.query + parts.fragment
        cut = cut or parts.netloc.endswith(":")
    except ValueError:
        host, port, cut = None, None, False
    if not host or not host.isprintable() or "\\" in url or cut:
        # Not echoed: what is no host may be half of a password.
        raise LocationError(
            "The location is not a URL: http:// or https:// needs a host, and a port is a number. In a "
            "password, / is written %2F, ? is %3F, and # is %23."
        )
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    # A colon may stand in a path as it is; servers differ in whether they decode it.
    path = re.sub("%3a", ":", quote(parts.path, safe=PATH_SAFE), flags=re.IGNORECASE).rstrip("/")
    hidden: dict[str, Any] = {}
    if parts.username is not None or parts.password is not None:
        hidden["userinfo"] = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    if parts.query:
        hidden["query"] = parts.query
    scheme = parts.scheme.lower()
    return f"{scheme}://{authority}{path}", hidden


class AccessPoint(NamedTuple):
    """What the ARN of an access point of S3 says of its requests.

    Parameters
    ----------
    region
        Where it is, whatever else is configured.
    service
        Whose requests they are, in signatures.
    prefix
        What comes before the endpoint in its host's name.
    host
        The endpoint, unless another is given.
    """

    region: str
    service: str
    prefix: str
    host: str


def access_point(bucket: str) -> AccessPoint | None:
    """What stands in the place of a bucket, if that is an access point."""
    match = _ACCESS_POINT.fullmatch(bucket)
    if match is None or (match["outpost"] is None) == (match["service"] == "s3-outposts"):
        return None
    service = "s3-accesspoint" if match["service"] == "s3" else match["service"]
    domain = "amazonaws.com.cn" if match["partition"] == "aws-cn" else "amazonaws.com"
    prefix = f"{match['name']}-{match['account']}" + (f".{match['outpost']}" if match["outpost"] else "")
    return AccessPoint(match["region"], match["service"], prefix, f"{service}.{match['region']}.{domain}")


def canonical_bucket(place: str) -> tuple[str, str]:
    """What follows ``s3://`` as (bucket or access point, key); the point's ARN has colons only.

    Raises
    ------
    LocationError
        When it begins with neither.
    """
    if not place.startswith("arn:"):
        bucket, _, key = place.partition("/")
        if _BUCKET.fullmatch(bucket):
            return bucket, key
        raise LocationError(
            "An s3:// location is s3://bucket/key, and what follows s3:// here is no bucket's name; a key "
            "pair goes into storage_options={'key': ..., 'secret': ...}."
        )
    match = _ACCESS_POINT.match(place)
    arn = match[0].rstrip("/") if match is not None else ""
    if match is None or access_point(arn) is None:
        raise LocationError(
            "The location is an ARN that cannot be opened; access points of a region, of an Outpost and of "
            "Object Lambda can (s3://arn:aws:s3:us-west-2:123456789012:accesspoint/name/key). Multi-Region "
            "access points cannot; give the name of a bucket, or of one region's access point."
        )
    return arn.replace("/", ":"), place[match.end() :]


def file_url(path: PurePath) -> str:
    r"""A local path as a location's URL, its characters as they are.

    Examples
    --------
    >>> file_url(PureWindowsPath(r"C:\data\a b.nwb.zarr"))
    'file:///C:/data/a b.nwb.zarr'
    >>> file_url(PureWindowsPath(r"\\server\share\a.nwb.zarr"))
    'file://server/share/a.nwb.zarr'
    """
    text = path.as_posix()
    if text.startswith("//") and isinstance(path, PureWindowsPath):
        return f"file:{text}"
    return f"file://{text}" if text.startswith("/") else f"file:///{text}"


def path_of(url: str, *, windows: bool = os.name == "nt") -> str:
    """The inverse of `file_url`, by the rules of this system.

    Examples
    --------
    >>> path_of("file:///data/a b.nwb.zarr", windows=False)
    '/data/a b.nwb.zarr'
    >>> path_of("file:///C:/data/a b.nwb.zarr", windows=True)
    'C:/data/a b.nwb.zarr'
    >>> path_of("file://server/share/a.nwb.zarr", windows=True)
    '//server/share/a.nwb.zarr'
    """
    text = url.removeprefix("file://")
    if not windows:
        return text
    if _DRIVE.match(text):
        return text[1:]
    return text if text.startswith("/") or PureWindowsPath(text).drive else f"//{text}"


def split_url(url: str) -> tuple[str, list[str]]:
    """A URL as (scheme and authority, parts of its path); of a chain, those of its last link."""
    parted = url.partition("://")
    start, separator, rest = parted if parted[0] in PLAIN else url.rpartition("://")
    authority, _, path = rest.partition("/")
    return f"{start}{separator}{authority}", [part for part in path.split("/") if part]


def normalise(parts: list[str]) -> list[str] | None:
    """Parts of a path without ``.`` and ``..``; None where it leads above its root."""
    result: list[str] = []
    for part in parts:
        if part == "..":
            if not result:
                return None
            result.pop()
        elif part not in {"", "."}:
            result.append(part)
    return result


def _is_known(protocol: str) -> bool:
    """Whether fsspec, or a package that adds to it, has a filesystem of that name, installed or not."""
    import fsspec

    return protocol in fsspec.registry or protocol in fsspec.available_protocols()


def _unknown(scheme: str, rest: str) -> LocationError:
    import fsspec

    if scheme.lower() == "dandi":
        return LocationError(f"dandi:// is not a scheme that can be opened. {_OF_DANDI.format('<zarr id>')}")
    known = ["https", "http", "s3", "file", *fsspec.available_protocols()]
    close = difflib.get_close_matches(scheme.lower(), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "https, s3, file, and those of fsspec are."
    if "://" in rest:
        hint = "give the URL that follows it alone."
    return LocationError(f"The location's scheme {scheme[:40]!r} is not known; {hint}")


def _in_full(match: re.Match[str]) -> str:
    try:
        return f"[{ipaddress.IPv6Address(match[1]).exploded}]"
    except ValueError:
        return match[0]
