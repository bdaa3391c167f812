"""Sessions of the DANDI archive: the NWB assets of dandisets, listed by the dandi client and scanned."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from intake_nwbzarr.arguments import describe_value, invalid_argument, takes_storage_options
from intake_nwbzarr.errors import AccessError, OptionError, ResponseError
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.sessions.scan.dandi_client import Archive, connect
from intake_nwbzarr.sessions.scan.find import Findings
from intake_nwbzarr.sessions.scan.harvest import FoundSession
from intake_nwbzarr.sessions.scan.part_rows import ScanOptions
from intake_nwbzarr.sessions.scan.scan import how_to_open, output_tables, scan_part
from intake_nwbzarr.sessions.scan.scan_report import ScanProgress, ScanReport
from intake_nwbzarr.transport.listing import s3_url

_DANDISET = re.compile(r"(?P<identifier>\d{6})(?:@(?P<version>draft|\d+\.\d+\.\d+))?", re.ASCII)
# Zarr stores that by their names are images of the OME-Zarr format.
_IMAGES = (".ome.zarr", ".ngff")


@takes_storage_options
def scan_dandi(
    *dandisets: str,
    output: str | os.PathLike[str],
    glob: str | None = None,
    api_url: str | None = None,
    token: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    output_options: Mapping[str, Any] | None = None,
    storage: str | None = "dandi",
    threads: int = 16,
    requests: int = 10,
    snapshots: bool = False,
    check: bool = False,
    progress: Callable[[ScanProgress], None] | None = None,
) -> ScanReport:
    """Scan the NWB assets of dandisets, Zarr and HDF5, into the two tables that `scan` writes.

    The client of the package dandi lists the assets, and the sessions are read from S3. Each dandiset is a
    part of the tables, ``dandi-000719``, which has the assets that the last scan of that dandiset has listed.
    Otherwise the tables are written as by `scan`: only what is new, has changed or failed before is read.

    Parameters
    ----------
    *dandisets
        Identifiers such as ``000719``, for the last published version or, if there is none, the draft; or
        with a version, ``000719@0.240409.1542`` or ``000719@draft``.
    output
        ``NAME.parquet``, local or on S3, for one pair of files; otherwise a folder with a pair of files for
        each dandiset.
    glob
        Only assets whose path matches this pattern, such as ``sub-1/*``: ``*`` matches any characters,
        including ``/``, and case is ignored. The archive evaluates it.
    api_url
        The API of the archive, https://api.dandiarchive.org/api by default.
    token
        An API key, for embargoed dandisets. By default that of the environment variable ``DANDI_API_KEY`` or,
        if a dandiset is not public, of the keyring in which the dandi client keeps it. It is sent to
        `api_url` only, and not stored.
    storage_options
        Credentials and other options, for the sessions. By default they are read without credentials. With
        ``endpoint_url``, assets may also be on that S3 server.
    output_options
        Those for an `output` on S3. Default: the `storage_options`.
    storage
        Name of the options, which is stored in the column `storage`. Public sessions are opened without any
        options of that name.
    threads, requests, snapshots, check, progress
        As in `scan`.

    Returns
    -------
    ScanReport
        Counts, and the sessions that failed.

    Raises
    ------
    MissingPackageError
        When the package dandi is not installed, or too old for the archive.
    LocationNotFoundError
        When a dandiset or version does not exist.
    CredentialsError, AccessError
        When the token is not accepted, or a dandiset is embargoed and the user is not one of its owners.
    TransportError
        When the archive does not answer after retries. Nothing is written.
    OptionError
        When an argument is not valid.

    Examples
    --------
    >>> report = scan_dandi("000719", output="sessions.parquet")  # doctest: +SKIP
    """
    options = ScanOptions(threads, requests, snapshots, check, progress)
    tables = output_tables(output, storage_options, output_options, storage)
    if not isinstance(glob, str | None):
        raise invalid_argument("glob", glob, "a string or None")
    _check_dandisets(dandisets)
    with connect(api_url, token) as archive:
        all_listed = [list_dandiset(archive, each, glob, storage_options, storage) for each in dandisets]
    report = ScanReport(str(tables.place))
    for listed in all_listed:
        source = f"{archive.url}/dandisets/{listed.identifier}"
        found = Findings(listed.sessions)
        done = scan_part(tables, f"dandi-{listed.identifier}", source, found, options)
        report += replace(done, not_nwb=done.not_nwb + listed.images, other_assets=listed.others)
    # Public sessions need no options.
    call = how_to_open(tables.place, (), storage if storage_options else None)
    return replace(report, opened_with=call)


@dataclass(frozen=True)
class Listed:
    """The assets of one dandiset."""

    identifier: str
    version: str
    title: str
    sessions: tuple[FoundSession, ...]
    # OME-Zarr images, and assets that are neither Zarr nor NWB files: images, texts.
    images: int
    others: int


def list_dandiset(
    archive: Archive,
    wanted: str,
    glob: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    storage: str | None = "dandi",
) -> Listed:
    """Return the NWB assets of a dandiset, such as ``000719`` or ``000719@0.240409.1542``."""
    identifier, version = _parsed(wanted)
    dandiset = archive.dandiset(identifier, version)
    assets, others = archive.assets(dandiset, glob)
    title = str(dandiset.version.name)
    sessions: list[FoundSession] = []
    images = 0
    for asset in assets:
        if asset.path.lower().endswith(_IMAGES):
            images += 1
            continue
        known = {
            "dandiset": identifier,
            "version": str(dandiset.version_id),
            "asset_path": asset.path,
            "asset_id": asset.identifier,
            "title": title,
        }
        location = _location(archive, asset, storage_options)
        error = _embargo(archive, asset, location) if storage_options is None else None
        # A Zarr store may be anything, unless its name says that it is NWB.
        guessed = ".nwb" not in PurePosixPath(asset.path).name.lower()
        sessions.append(FoundSession(location, storage=storage, known=known, guessed=guessed, error=error))
    return Listed(identifier, str(dandiset.version_id), title, tuple(sessions), images, others)


def _check_dandisets(dandisets: tuple[object, ...]) -> None:
    if not dandisets:
        raise OptionError("scan_dandi() needs at least one dandiset.", found=0, next_step="Pass '000719'.")
    identifiers = [_parsed(each)[0] for each in dandisets]
    for identifier in identifiers:
        if identifiers.count(identifier) > 1:
            raise OptionError(
                f"Dandiset {identifier} is given twice; the tables have one version of a dandiset.",
                found=identifier,
                next_step="Write each version to tables of its own.",
            )


def _parsed(wanted: object) -> tuple[str, str | None]:
    match = _DANDISET.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is not None:
        return match["identifier"], match["version"]
    digits = re.search(r"(?<!\d)\d{1,6}(?!\d)", wanted, re.ASCII) if isinstance(wanted, str) else None
    raise OptionError(
        f"A dandiset is named by six digits, such as '000719', and a version of it '000719@0.240409.1542' or "
        f"'000719@draft', not {describe_value(wanted)}.",
        found=describe_value(wanted),
        expected="000719 or 000719@version",
        next_step=f"Did you mean '{digits[0]:0>6}'?" if digits else None,
    )


def _location(archive: Archive, asset: Any, storage_options: Mapping[str, Any] | None) -> Location:
    """Return the location of an asset on S3, from its contentUrl."""
    # The first contentUrl is of the API, which refers to the objects of a Zarr store one by one.
    identifier = getattr(asset, "zarr", None) or asset.blob
    urls = [url for url in archive.metadata(asset).get("contentUrl", []) if isinstance(url, str)]
    options = {"anon": True} if storage_options is None else storage_options
    for url in urls:
        stored = _on_endpoint(url, options) or s3_url(url)
        if stored is not None and stored.rstrip("/").endswith(f"/{identifier}"):
            found = locate(stored, options)
            return found if hasattr(asset, "zarr") else found.as_hdf5
    raise ResponseError(
        f"The archive at {archive.url} names no S3 URL for {asset.path}.",
        location=archive.url,
        path=asset.path,
        found=[urlsplit(url).hostname for url in urls],
        expected=f"https://<bucket>.s3.amazonaws.com/…/{identifier}",
        next_step="If the archive has its own S3 server, pass storage_options={'endpoint_url': ...} "
        "(--endpoint-url).",
    )


def _embargo(archive: Archive, asset: Any, location: Location) -> AccessError | None:
    """Return the error of an asset that nobody can read from S3 without credentials of the archive itself."""
    access = archive.metadata(asset).get("access", [])
    if not any(each.get("status") == "dandi:EmbargoedAccess" for each in access if isinstance(each, dict)):
        return None
    # https://github.com/dandi/dandi-archive/blob/master/doc/design/embargo-redesign.md: the bucket refuses
    # objects with the tag `embargoed`, and the API signs a URL for one object at a time.
    return AccessError(
        f"{location} is embargoed: the archive lets its owners read it object by object, through signed URLs "
        "of its API, but not from S3.",
        location=location,
        next_step="Download it with the dandi client and scan the folder, or pass storage_options with "
        "credentials that the bucket accepts.",
    )


def _on_endpoint(url: str, options: Mapping[str, Any]) -> str | None:
    """Return the s3:// URL of an object on the caller's S3 server, None if it is on another one."""
    endpoint = locate("s3://any-bucket", options).option("endpoint_url")
    if endpoint is None or not url.startswith(f"{endpoint}/"):
        return None
    return f"s3://{urlsplit(url).path.strip('/')}"
