"""How a session can be reached: by whom, by which URLs, in which region."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from intake_nwbzarr.checks.report import Access
from intake_nwbzarr.errors import AccessError, NWBZarrError
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.listing import s3_url
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport

# Options that say where and how requests go, and not as whom.
_OF_SERVER: Final = frozenset(
    {"endpoint_url", "region", "addressing_style", "use_ssl", "verify", "timeouts", "requester_pays"}
)
# A key has no escapes: its % is one, and servers may take + for a space.
_KEY_SAFE: Final = "/:@!$&'()*,;=~-._"
_REGION_OF_HOST: Final = re.compile(r"[/.]s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com")


def access_of(hierarchy: Hierarchy, unchecked: list[str]) -> Access:
    """Return how a session can be reached, after a request without credentials if it was opened with some."""
    location = hierarchy.location
    transport = open_transport(location)
    match location.scheme:
        case "s3":
            region = location.option("region") or transport.region
            return Access(
                anonymous=_is_public(location, hierarchy, transport, unchecked),
                https=_https_url(location, transport, region),
                s3=location.url,
                region=region,
            )
        case "http" | "https":
            named = _REGION_OF_HOST.search(location.url)
            return Access(
                anonymous=_is_public(location, hierarchy, transport, unchecked),
                https=location.url,
                s3=s3_url(location.url),
                region=named[1] if named else None,
            )
    return Access()


def _is_public(
    location: Location, hierarchy: Hierarchy, transport: Transport, unchecked: list[str]
) -> bool | None:
    """Return whether anybody can read the session; None if that cannot be told."""
    if location.secrets is None and run(transport.identity()).secret is None:
        return True
    public = {name: value for name, value in location.public.items() if name in _OF_SERVER}
    anonymous = {**public, "anon": True} if location.scheme == "s3" else public
    plain = replace(locate(location.url, anonymous), secrets=None)
    if location.is_hdf5:
        plain = plain.as_hdf5
    names = ("zarr.json",) if hierarchy.zarr_format == 3 else (".zmetadata", ".zgroup")
    try:
        if location.is_hdf5:
            return run(open_transport(plain.as_file).get("", start=0, stop=8)) is not None
        return any(run(open_transport(plain).get(name)) is not None for name in names)
    except AccessError:
        return False
    except NWBZarrError as error:
        unchecked.append(f"whether everybody can read it: {error.args[0] if error.args else error}")
        return None


def _https_url(location: Location, transport: Transport, region: str | None) -> str | None:
    """Return the https URL of an s3 one; None for access points."""
    bucket, _, key = location.url.removeprefix("s3://").partition("/")
    if bucket.startswith("arn:"):
        return None
    path = quote(key, safe=_KEY_SAFE)
    endpoint = run(transport.identity()).endpoint
    if endpoint:
        return f"{endpoint.rstrip('/')}/{bucket}/{path}"
    host = f"s3.{region or 'us-east-1'}.amazonaws.com"
    # A certificate for *.s3.amazonaws.com covers no name with further dots.
    return f"https://{host}/{bucket}/{path}" if "." in bucket else f"https://{bucket}.{host}/{path}"
