"""A static server in Python: what is left where nginx is missing, and one that counts round trips exactly."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from benchmarks.enlarge import TEMPLATE
from benchmarks.servers.exchanges import Exchange

LATENCY = web.AppKey("latency", float)


class PythonServer:
    """Serves a folder in a thread, at several latencies; started by `with`.

    Parameters
    ----------
    root
        The folder.
    latencies
        In milliseconds, a port each.
    quiet
        Answer only once no further request has arrived for so many seconds, then all that have: what a client
        asks before it has seen an answer is one round trip, however slow the client is. `rounds` counts them.
    """

    kind = "a server in Python (nginx with its echo module is not installed)"

    def __init__(self, root: Path, latencies: Sequence[int] = (0,), *, quiet: float = 0.0) -> None:
        self._root = root
        self._ports: dict[int, int] = dict.fromkeys(latencies, 0)
        self._quiet = quiet
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._seen: list[Exchange] = []
        self._runners: list[web.AppRunner] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._release: asyncio.TimerHandle | None = None
        self._busy = 0
        self.rounds = 0

    def url(self, latency: int = 0) -> str:
        """See `benchmarks.servers.exchanges.Server`."""
        return f"http://127.0.0.1:{self._ports[latency]}"

    def exchanges(self, begin: float = 0.0, end: float = 2.0**62) -> list[Exchange]:
        """See `benchmarks.servers.exchanges.Server`."""
        self._settle()
        seen = [exchange for exchange in list(self._seen) if begin <= exchange.start <= end]
        return sorted(seen, key=lambda exchange: exchange.start)

    def forget(self) -> None:
        """Forget what was seen."""
        self._settle()
        self._seen.clear()
        self.rounds = 0

    def _settle(self) -> None:
        """Wait until answers that clients may have already are noted."""
        while self._busy:
            time.sleep(0.001)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=30)
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        for latency in self._ports:
            application = web.Application()
            application[LATENCY] = latency / 1000
            application.router.add_get("/{path:.*}", self._handle)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
            self._ports[latency] = runner.addresses[0][1]
            self._runners.append(runner)

    async def _stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._busy += 1
        try:
            return await self._noted(request)
        finally:
            self._busy -= 1

    async def _noted(self, request: web.Request) -> web.StreamResponse:
        start = time.time()
        if self._quiet:
            await self._next_round()
        else:
            await asyncio.sleep(request.app[LATENCY])
        response = self._answer_to(request)
        await response.prepare(request)
        await response.write_eof()
        size = response.content_length or 0
        asked = request.headers.get("Range", "")
        self._seen.append(
            Exchange(request.method, request.raw_path, response.status, start, time.time(), size, asked)
        )
        return response

    def _answer_to(self, request: web.Request) -> web.Response:
        file = self._file(request.match_info["path"])
        if file is None:
            return web.Response(status=404)
        facts = file.stat()
        headers = {"ETag": f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"', "Accept-Ranges": "bytes"}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        if "Range" not in request.headers:
            return web.Response(body=file.read_bytes(), headers=headers)
        start, stop, _ = request.http_range.indices(facts.st_size)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{facts.st_size}"
        with file.open("rb") as opened:
            opened.seek(start)
            return web.Response(status=206, body=opened.read(stop - start), headers=headers)

    def _file(self, path: str) -> Path | None:
        file = self._root / path
        array, chunks, _ = path.partition("/c/")
        found: Path | None = next(
            (each for each in (file, self._root / array / TEMPLATE if chunks else file) if each.is_file()),
            None,
        )
        return None if ".." in file.parts else found

    async def _next_round(self) -> None:
        released: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(released)
        if self._release is not None:
            self._release.cancel()
        self._release = self._loop.call_later(self._quiet, self._release_all)
        await released

    def _release_all(self) -> None:
        self.rounds += 1
        waiting: list[Any] = [*self._waiting]
        self._waiting.clear()
        for released in waiting:
            if not released.done():
                released.set_result(None)
