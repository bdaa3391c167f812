"""URLs and local paths: parsing, checks, and redaction of secrets."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import PurePath, PureWindowsPath
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from intake_nwbzarr.errors import LocationError, LocationNotFoundError, did_you_mean

PLAIN = frozenset({"file", "local", "http", "https", "s3", "s3a", "store"})
"""Schemes that are opened without fsspec; their URLs are never chains, even with `::` in a path."""

# An S3 bucket name. Errors do not show other strings: they may be part of a password.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
# As in botocore and s3fs, with slashes or colons between the parts of the resource.
_ACCESS_POINT = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):(?P<service>s3|s3-object-lambda|s3-outposts):(?P<region>[a-z0-9-]+):"
    r"(?P<account>\d{12}):(?:outpost[:/](?P<outpost>[A-Za-z0-9-]{1,63})[:/])?"
    r"accesspoint[:/](?P<name>[a-z0-9-]{1,63})(?:/|$)"
)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*://")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)(://|::)")
_DRIVE = re.compile(r"/[A-Za-z]:(?:[/\\]|$)")
_USERINFO = re.compile(r"://[^/]*@")
# A query or fragment, up to the next link of a chain.
_QUERY = re.compile(r"[?#](?:(?!::[A-Za-z][A-Za-z0-9+.-]*(?:://|::)).)*", re.DOTALL)
# A host with a colon but no port number: probably a password with a slash in it. ARNs have colons.
_HOST_WITHOUT_PORT = re.compile(r"://(?!arn:)[^/:\[]*:(?!\d+(?:/|::|$)|:|/)")
_IPV6 = re.compile(r"(?<=://)\[([0-9A-Fa-f:.]+)\]")
# Typical of URLs and rare in paths: a colon and later an @, a colon before a slash, a query, //me@host.
_LIKE_A_URL = re.compile(
    r":[^@]*@|[^/]{2}:[/\\]|\?.*=|^//[^/]*@|https?:?[/\\]+[^/\\]*@|(?:^|/)arn:aws", re.DOTALL
)
_DANDI = re.compile(r"(?:^|[/\\])dandi:", re.IGNORECASE)
PATH_SAFE = "/%:@!$&'()*+,;=~-._"

_PAGES = re.compile(
    r"(?:www\.|gui\.|gui-[a-z-]+\.|sandbox\.|api\.|api-[a-z-]+\.|api\.sandbox\.)?dandiarchive\.org"
)
_VIEWERS = re.compile(r"neurosift\.app|neuroglancer[a-z0-9.-]*")
_DANDI_ZARR = re.compile(r"https?://api\.dandiarchive\.org/api/zarr/([0-9a-f-]{36})\b")
# Redirects to the bucket of the archive.
_DANDI_DOWNLOAD = re.compile(r"/api/(?:.*/)?assets/[0-9a-f-]{36}/download/?")
_DANDI_ADVICE = (
    "Open an HDF5 asset of DANDI at https://api.dandiarchive.org/api/assets/<asset id>/download/, and a Zarr "
    "asset at https://dandiarchive.s3.amazonaws.com/zarr/{}/, the contentUrl in its "
    "metadata: see 'View asset metadata' beside the file on the page of the dandiset, or "
    "https://api.dandiarchive.org/api/assets/<asset id>/."
)


def redact(url: str) -> str:
    """Return a URL without userinfo, query and fragment, in every link of a chain."""
    return _QUERY.sub("", _USERINFO.sub("://", url))


def protocol_of(text: str) -> str | None:
    """Return the scheme of a URL, or of the first link of a chain; None for a local path."""
    match = _PROTOCOL.match(text)
    if match is None:
        return None
    scheme = match[1].lower()
    if match[2] == "://":
        return scheme
    is_chain = scheme not in PLAIN and ("://" in text or _is_known(scheme))
    return scheme if is_chain and not os.path.lexists(text) else None


def _is_mistyped_url(path: str) -> bool:
    """Return whether a local path that does not exist looks like a mistyped URL, maybe with a password."""
    return bool(_LIKE_A_URL.search(path) or _DANDI.search(path)) and not os.path.lexists(path)


def check_path(path: str) -> None:
    """Refuse a local path that is probably a mistyped URL, without showing it."""
    if not _is_mistyped_url(path):
        return
    advice = (
        _DANDI_ADVICE.format("<zarr id>") if _DANDI.search(path) else "URLs begin with https:// or s3://."
    )
    raise LocationNotFoundError(
        "The local path does not exist. It looks like a mistyped URL, and is not shown because it may "
        "contain a password.",
        next_step=advice,
    )


def is_encodable(text: str) -> bool:
    """Return whether a string can be a file name: surrogates escape bytes that are not UTF-8."""
    try:
        return "\0" not in text and bool(text.encode("utf-8", "surrogateescape") or True)
    except UnicodeEncodeError:
        return False


def check_page(url: str) -> None:
    """Refuse the URL of a web page about a session."""
    host = urlsplit(url).hostname or ""
    if _PAGES.fullmatch(host) and not _DANDI_DOWNLOAD.fullmatch(urlsplit(url).path):
        known = _DANDI_ZARR.match(url)
        raise LocationError(
            f"{url} is a page or an API response of the DANDI archive, not a session.",
            location=url,
            next_step=_DANDI_ADVICE.format(known[1] if known else "<zarr id>"),
        )
    if _VIEWERS.fullmatch(host):
        raise LocationError(
            f"{url} is the page of a viewer, not a session.",
            location=url,
            next_step="Pass the URL of the data that it shows.",
        )


def canonical_chain(url: str) -> str:
    """Return an fsspec URL with IPv6 addresses in full, since ``::`` separates the links of a chain."""
    url = _IPV6.sub(_exploded, url)
    public = redact(url)
    if _HOST_WITHOUT_PORT.search(public):
        raise LocationError(
            "The location has a port that is not a number.", next_step="Write / in a password as %2F."
        )
    last = public.rpartition("::")[2]
    if "://" not in last:
        check_path(last)
    return url


def check_schemes(chain: str) -> None:
    """Refuse a chain with an unknown scheme, and suggest the closest known one."""
    links = redact(chain).split("::")
    for number, link in enumerate(links, 1):
        scheme, separator, rest = link.partition("://")
        if (separator or number < len(links)) and not _is_known(scheme):
            raise _unknown_scheme(scheme, rest)


def may_show_password(text: str) -> bool:
    """Return whether a location is so mistyped that any part of it may be a password, or not encodable."""
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
    """Return an http(s) URL as (canonical URL without secrets, secrets: ``userinfo`` and ``query``)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        # A query or fragment with an @, right after the host, is the rest of a password. An empty port is
        # that of https://https://...
        mistyped = not parts.path and "@" in parts.query + parts.fragment
        mistyped = mistyped or parts.netloc.endswith(":")
    except ValueError:
        host, port, mistyped = None, None, False
    if not host or not host.isprintable() or "\\" in url or mistyped:
        # Not shown: an invalid host may be part of a password.
        raise LocationError(
            "The location is not a valid URL: http:// and https:// need a host, and a port must be a number.",
            next_step="In a password, write / as %2F, ? as %3F and # as %23.",
        )
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    # Colons are valid in a path, and not all servers decode %3A.
    path = re.sub("%3a", ":", quote(parts.path, safe=PATH_SAFE), flags=re.IGNORECASE).rstrip("/")
    secret: dict[str, Any] = {}
    if parts.username is not None or parts.password is not None:
        secret["userinfo"] = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    if parts.query:
        secret["query"] = parts.query
    scheme = parts.scheme.lower()
    return f"{scheme}://{authority}{path}", secret


def plain_server_url(text: str) -> str | None:
    """Return the http(s) URL of a server without trailing slashes; None if it is not valid or has secrets."""
    try:
        parts = urlsplit(text)
        usable = parts.port != 0
    except ValueError:
        return None
    is_server = usable and parts.scheme in {"http", "https"} and bool(parts.hostname)
    has_more = parts.username is not None or parts.query or parts.fragment
    return parts.geturl().rstrip("/") if is_server and not has_more else None


class AccessPoint(NamedTuple):
    """The parts of the ARN of an S3 access point that requests need."""

    # Overrides the configured region.
    region: str
    # The service name in signatures.
    service: str
    # The part of the host name before the endpoint.
    prefix: str
    # The default endpoint.
    host: str


def access_point(bucket: str) -> AccessPoint | None:
    """Return the access point that an ARN in place of a bucket names, None for a bucket."""
    match = _ACCESS_POINT.fullmatch(bucket)
    if match is None or (match["outpost"] is None) == (match["service"] == "s3-outposts"):
        return None
    service = "s3-accesspoint" if match["service"] == "s3" else match["service"]
    domain = "amazonaws.com.cn" if match["partition"] == "aws-cn" else "amazonaws.com"
    prefix = f"{match['name']}-{match['account']}" + (f".{match['outpost']}" if match["outpost"] else "")
    return AccessPoint(match["region"], match["service"], prefix, f"{service}.{match['region']}.{domain}")


def canonical_bucket(rest: str) -> tuple[str, str]:
    """Return the rest of an ``s3://`` URL as (bucket or access point ARN with colons only, key)."""
    if not rest.startswith("arn:"):
        bucket, _, key = rest.partition("/")
        if _BUCKET.fullmatch(bucket):
            return bucket, key
        raise LocationError(
            "The location is not a valid s3://bucket/key URL: the bucket name is not valid.",
            expected="s3://bucket/key",
            next_step="Pass access keys as storage_options={'key': ..., 'secret': ...}.",
        )
    match = _ACCESS_POINT.match(rest)
    arn = match[0].rstrip("/") if match is not None else ""
    if match is None or access_point(arn) is None:
        raise LocationError(
            "The location is an ARN that cannot be opened. Access points of a region, of an Outpost and of "
            "Object Lambda can (s3://arn:aws:s3:us-west-2:123456789012:accesspoint/name/key), Multi-Region "
            "access points cannot.",
            next_step="Pass the name of a bucket, or an access point of one region.",
        )
    return arn.replace("/", ":"), rest[match.end() :]


def file_url(path: PurePath) -> str:
    r"""Return a local path as a ``file://`` URL, without percent-encoding.

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
    """Return the local path of a ``file://`` URL, the inverse of `file_url`.

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
    """Return a URL as (scheme and authority, path parts); of a chain, those of its last link."""
    parted = url.partition("://")
    start, separator, rest = parted if parted[0] in PLAIN else url.rpartition("://")
    authority, _, path = rest.partition("/")
    return f"{start}{separator}{authority}", [part for part in path.split("/") if part]


def normalized(parts: list[str]) -> list[str] | None:
    """Return path parts with ``.`` and ``..`` resolved, None where they lead above the root."""
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
    """Return whether fsspec or a package that extends it has a filesystem of that name, installed or not."""
    import fsspec

    return protocol in fsspec.registry or protocol in fsspec.available_protocols()


def _unknown_scheme(scheme: str, rest: str) -> LocationError:
    import fsspec

    if scheme.lower() == "dandi":
        return LocationError(
            "dandi:// URLs cannot be opened.", found=scheme, next_step=_DANDI_ADVICE.format("<zarr id>")
        )
    known = ["https", "http", "s3", "file", *fsspec.available_protocols()]
    advice = did_you_mean(scheme.lower(), known) or "Supported are https, s3, file and those of fsspec."
    if "://" in rest:
        advice = "Pass only the URL after it."
    return LocationError(
        f"Unknown URL scheme {scheme[:40]!r}.", found=scheme[:40], expected=known, next_step=advice
    )


def _exploded(match: re.Match[str]) -> str:
    try:
        return f"[{ipaddress.IPv6Address(match[1]).exploded}]"
    except ValueError:
        return match[0]
