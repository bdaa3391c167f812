"""The API of the DANDI archive on 127.0.0.1, as the code of its server (dandi/dandi-archive) has it."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.servers.loopback import LoopbackServer, Response

CREATED = "2024-04-09T15:42:00.000000Z"
SCHEMA = "0.6.10"
NOT_SIGNED_IN = {"detail": "Authentication credentials were not provided."}
_DANDISET = re.compile(r"/api/dandisets/(\d{6})/(.*)")


@dataclass
class Asset:
    """A file of a dandiset: a Zarr store at `s3_url`, or a blob."""

    path: str
    s3_url: str
    is_zarr: bool = True
    size: int = 1000
    # As its owner uploaded it; the server adds what `full_metadata` says.
    metadata: dict[str, Any] = field(default_factory=dict)
    asset_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def stored_id(self) -> str:
        """The id of the Zarr store or blob, which its URL ends with."""
        return self.s3_url.rstrip("/").rpartition("/")[2]


@dataclass
class Dandiset:
    """A dandiset with its assets by version; the last published one is what is opened by default."""

    name: str
    versions: dict[str, list[Asset]]
    embargoed: bool = False
    # Tokens of those who may see an embargoed one.
    owners: tuple[str, ...] = ()


class DandiServer(LoopbackServer):
    """Answers the requests that the dandi client makes to list assets; its API is at `api_url`."""

    def __init__(self) -> None:
        super().__init__()
        self.dandisets: dict[str, Dandiset] = {}
        self.tokens: set[str] = set()
        self.oldest_client = "0.74.0"
        # The results of a page, if fewer are not asked for.
        self.page_size = 100
        # Where further pages are said to be.
        self.pages_at: str | None = None
        # Servers before 2023 have neither filter.
        self.knows_filters = True

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    async def answer(self, request: web.Request) -> Response:
        status, found = self._answer(request)
        return Response(status, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _answer(self, request: web.Request) -> tuple[int, Any]:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind and (kind != "token" or token not in self.tokens):
            return 401, {"detail": "Invalid token."}
        path = request.path
        if path == "/api/info/":
            return 200, self._info()
        if path == "/api/auth/token":
            return (
                (200, token) if token else (401, {"detail": "Authentication credentials were not provided."})
            )
        if path == "/api/dandisets/":
            open_to_all = [name for name, each in self.dandisets.items() if not each.embargoed]
            return 200, self._page(request, [self._dandiset(name) for name in open_to_all])
        match = _DANDISET.fullmatch(path)
        if match is None or match[1] not in self.dandisets:
            return 404, {"detail": "Not found."}
        dandiset = self.dandisets[match[1]]
        if dandiset.embargoed and not token:
            return 401, NOT_SIGNED_IN
        if dandiset.embargoed and token not in dandiset.owners:
            return 403, {"detail": "You do not have permission to perform this action."}
        return self._in_dandiset(request, match[1], match[2].rstrip("/").split("/"))

    def _in_dandiset(self, request: web.Request, name: str, parts: list[str]) -> tuple[int, Any]:
        dandiset = self.dandisets[name]
        match parts:
            case [""]:
                return 200, self._dandiset(name)
            case ["versions"]:
                versions = [self._version(name, version) for version in dandiset.versions]
                return 200, self._page(request, versions)
            case ["versions", version, *_] if version not in dandiset.versions:
                return 404, {"detail": "Not found."}
            case ["versions", version, "info"]:
                return 200, self._version(name, version) | {
                    "asset_validation_errors": [],
                    "version_validation_errors": [],
                    "metadata": {"name": dandiset.name},
                    "contact_person": "Doe, Jane",
                }
            case ["versions", version, "assets"]:
                return 200, self._assets(request, dandiset, dandiset.versions[version])
            case ["versions", version, "assets", asset_id, *rest]:
                for asset in dandiset.versions[version]:
                    if asset.asset_id == asset_id:
                        full = self.full_metadata(dandiset, asset)
                        return 200, full if not rest else _row(asset) | {"metadata": full}
        return 404, {"detail": "Not found."}

    def _assets(self, request: web.Request, dandiset: Dandiset, assets: list[Asset]) -> dict[str, Any]:
        query = request.query if self.knows_filters else {}
        if "glob" in request.query:
            # The server's own translation: * matches anything, and nothing else is special.
            pattern = f"^{re.escape(request.query['glob'])}$".replace("\\*", ".*")
            assets = [asset for asset in assets if re.search(pattern, asset.path, re.IGNORECASE)]
        if query.get("zarr") == "true":
            assets = [asset for asset in assets if asset.is_zarr]
        if request.query.get("order") == "path":
            assets = sorted(assets, key=lambda asset: asset.path)
        rows = [_row(asset) for asset in assets]
        if query.get("metadata") == "true":
            rows = [
                row | {"metadata": self.full_metadata(dandiset, asset)}
                for row, asset in zip(rows, assets, strict=True)
            ]
        return self._page(request, rows)

    def _page(self, request: web.Request, rows: list[dict[str, Any]]) -> dict[str, Any]:
        size = min(int(request.query.get("page_size", self.page_size)), 1000)
        number = int(request.query.get("page", 1))
        following = {**request.query, "page": str(number + 1)}
        return {
            "count": len(rows) if number == 1 else None,
            "next": f"{self.pages_at or self.url}{request.path}?{urlencode(following)}"
            if number * size < len(rows)
            else None,
            "previous": None,
            "results": rows[(number - 1) * size : number * size],
        }

    def _info(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA,
            "schema_url": f"{self.api_url}/schemas/?model=Dandiset",
            "allowed_schema_versions": [SCHEMA],
            "version": "0.4.0",
            "cli-minimal-version": self.oldest_client,
            "cli-requires-python": ">=3.10",
            "cli-bad-versions": [],
            "services": {
                "api": {"url": self.api_url},
                "webui": {"url": "https://dandiarchive.org"},
                "jupyterhub": {"url": "https://hub.dandiarchive.org"},
            },
        }

    def _dandiset(self, name: str) -> dict[str, Any]:
        versions = self.dandisets[name].versions
        published = [version for version in versions if version != "draft"]
        return {
            "identifier": name,
            "created": CREATED,
            "modified": CREATED,
            "contact_person": "Doe, Jane",
            "embargo_status": "EMBARGOED" if self.dandisets[name].embargoed else "OPEN",
            "star_count": 0,
            "is_starred": False,
            "most_recent_published_version": self._version(name, published[-1]) if published else None,
            "draft_version": self._version(name, "draft"),
        }

    def _version(self, name: str, version: str) -> dict[str, Any]:
        assets = self.dandisets[name].versions[version]
        return {
            "version": version,
            "name": self.dandisets[name].name,
            "asset_count": len(assets),
            "active_uploads": 0,
            "size": sum(asset.size for asset in assets),
            "status": "Valid" if version == "draft" else "Published",
            "created": CREATED,
            "modified": CREATED,
        }

    def full_metadata(self, dandiset: Dandiset, asset: Asset) -> dict[str, Any]:
        """An asset's metadata with what the server computes (`Asset.full_metadata` of dandi-archive)."""
        access: dict[str, Any] = {"schemaKey": "AccessRequirements", "status": "dandi:OpenAccess"}
        if dandiset.embargoed:
            access |= {"status": "dandi:EmbargoedAccess", "embargoedUntil": "2999-01-01"}
        kind = "dandi-zarr-checksum" if asset.is_zarr else "dandi-etag"
        digest = f"{'0' * 32}-1--1000" if asset.is_zarr else f"{'0' * 32}-1"
        return {
            "schemaVersion": SCHEMA,
            "schemaKey": "Asset",
            "encodingFormat": "application/x-zarr" if asset.is_zarr else "application/x-nwb",
            **asset.metadata,
            "id": f"dandiasset:{asset.asset_id}",
            "access": [access],
            "path": asset.path,
            "identifier": asset.asset_id,
            "contentUrl": [f"{self.api_url}/assets/{asset.asset_id}/download/", asset.s3_url],
            "contentSize": asset.size,
            "digest": {f"dandi:{kind}": digest},
            "@context": f"https://raw.githubusercontent.com/dandi/schema/master/releases/{SCHEMA}/context.json",
        }


def participant(subject_id: str) -> dict[str, Any]:
    """A subject, as the archive describes it."""
    return {
        "schemaKey": "Participant",
        "identifier": subject_id,
        "age": {
            "schemaKey": "PropertyValue",
            "unitText": "ISO-8601 duration",
            "value": "P90D",
            "valueReference": {"schemaKey": "PropertyValue", "value": "dandi:BirthReference"},
        },
        "sex": {
            "schemaKey": "SexType",
            "identifier": "http://purl.obolibrary.org/obo/PATO_0000384",
            "name": "Male",
        },
        "species": {
            "schemaKey": "SpeciesType",
            "identifier": "http://purl.obolibrary.org/obo/NCBITaxon_10090",
            "name": "Mus musculus - House mouse",
        },
    }


def _row(asset: Asset) -> dict[str, Any]:
    """An asset as listings have it (`AssetSerializer` of dandi-archive)."""
    return {
        "asset_id": asset.asset_id,
        "blob": None if asset.is_zarr else asset.stored_id,
        "zarr": asset.stored_id if asset.is_zarr else None,
        "path": asset.path,
        "size": asset.size,
        "created": CREATED,
        "modified": CREATED,
    }
