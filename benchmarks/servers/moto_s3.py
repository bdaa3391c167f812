"""moto's S3 in a process of its own, checking signatures, with sessions loaded into a bucket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from urllib.request import urlopen

BUCKET = "benchmarks"
SCRIPT = Path(__file__).parents[2] / "tests" / "servers" / "moto_process.py"


class MotoS3:
    """Started by `with`; reached through nginx, which adds latency and counts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._loaded: set[str] = set()
        self._endpoint = ""
        self._pair: dict[str, str] = {}

    @property
    def address(self) -> str:
        """Where it listens, ``host:port``."""
        return self._endpoint.removeprefix("http://")

    def options(self, endpoint: str) -> dict[str, Any]:
        """Storage options of somebody who may read it, in the vocabulary of s3fs."""
        return {**self._pair, "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"}}

    def load(self, folder: Path) -> str:
        """Store a session, unless it has been; its s3:// URL."""
        if folder.name not in self._loaded:
            query = urlencode({"bucket": BUCKET, "prefix": folder.name, "folder": str(folder)})
            with urlopen(f"{self._endpoint}/-load?{query}", timeout=300) as answer:  # noqa: S310 (127.0.0.1)
                answer.read()
            self._loaded.add(folder.name)
        return f"s3://{BUCKET}/{folder.name}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 (our own script)
            [sys.executable, str(SCRIPT), BUCKET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None  # noqa: S101 (a pipe)
        identity = json.loads(self._process.stdout.readline())
        self._endpoint = identity["endpoint"]
        self._pair = {"key": identity["key"], "secret": identity["secret"]}
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None  # noqa: S101 (started by __enter__)
        assert self._process.stdin is not None  # noqa: S101 (a pipe)
        assert self._process.stdout is not None  # noqa: S101 (a pipe)
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
