"""What measurements are taken with: servers, sessions, and how often each is repeated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.servers import nginx
from benchmarks.servers.exchanges import Server
from benchmarks.servers.in_python import PythonServer
from benchmarks.servers.moto_s3 import MotoS3
from benchmarks.session_files import VERSION, make

LATENCY = 30
"""Milliseconds added to each answer."""

LATENCIES = (0, 10, LATENCY, 100)


@dataclass(frozen=True)
class Place:
    """A session on a server: its URL, and the storage options that it takes."""

    url: str
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Bench:
    """Servers that run, and the folder of sessions that they serve.

    Parameters
    ----------
    server
        Over HTTP.
    moto
        S3, None where there is no nginx to put in front of it.
    cache
        The folder of sessions and results.
    repeats
        How often what takes a second or two is measured.
    """

    server: Server
    moto: MotoS3 | None
    cache: Path
    repeats: int

    def over_http(self, name: str, latency: int = LATENCY) -> Place:
        """A session's place on the HTTP server."""
        return Place(f"{self.server.url(latency)}/{make(name, self.cache).name}")

    def over_s3(self, name: str, latency: int = LATENCY) -> Place | None:
        """A session's place in the bucket; None where there is no S3 server."""
        if self.moto is None or not isinstance(self.server, nginx.Nginx):
            return None
        return Place(
            self.moto.load(make(name, self.cache)), self.moto.options(self.server.s3_endpoint(latency))
        )


@contextmanager
def running(cache: Path, repeats: int) -> Iterator[Bench]:
    """Start nginx with moto behind it, or what there is instead."""
    root = cache / "sessions" / f"v{VERSION}"
    with ExitStack() as stack:
        if not nginx.is_installed():
            yield Bench(stack.enter_context(PythonServer(root, LATENCIES)), None, cache, repeats)
            return
        moto = stack.enter_context(MotoS3())
        server = nginx.Nginx(root, cache / "nginx", LATENCIES, moto.address)
        yield Bench(stack.enter_context(server), moto, cache, repeats)
        stack.close()
        shutil.rmtree(cache / "nginx", ignore_errors=True)
