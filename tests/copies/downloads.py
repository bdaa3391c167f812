"""What the tests of downloading share: a bucket, a server, and a look into folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from intake_nwbzarr.copies.download import Download, download
from intake_nwbzarr.copies.inventory import NAME
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

QUICK: dict[str, Any] = {"timeouts": {"stall": 1.0, "total": 15, "attempts": 3, "backoff": 0.01}}
CHUNK = "acquisition/data/c/0/0"


def contents(folder: Path) -> dict[str, bytes]:
    """A folder's files, but for the record of the download."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }


class Bucket:
    """A session in a private bucket."""

    def __init__(self, server: S3Server, source: Path) -> None:
        self.server, self.source = server, source
        self.options = server.signed_options | QUICK
        self.url = f"s3://{server.private_bucket}/{source.parent.name}/a.nwb.zarr"
        self.upload()

    def upload(self) -> None:
        self.server.upload(self.server.private_bucket, f"{self.source.parent.name}/a.nwb.zarr", self.source)
        self.server.reset()

    def download(self, target: Path, **keywords: Any) -> Download:
        return download(self.url, target, self.options, **keywords)


def serve(server: StaticServer, source: Path) -> str:
    shutil.copytree(source, server.root / "a.nwb.zarr")
    return f"{server.url}/a.nwb.zarr"
