"""A server with a backlog of five, as `python -m http.server` and many a lab's storage have."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from pathlib import Path
from typing import Self

from benchmarks.servers.exchanges import Exchange

BACKLOG = 5


class SmallServer:
    """Serves a folder, one request a connection; started by `with`."""

    kind = f"http.server with a backlog of {BACKLOG}"

    def __init__(self, root: Path) -> None:
        handler = functools.partial(_Handler, directory=str(root))
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, latency: int = 0) -> str:  # noqa: ARG002 (it adds none)
        """See `benchmarks.servers.exchanges.Server`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def exchanges(self, begin: float, end: float) -> list[Exchange]:
        """See `benchmarks.servers.exchanges.Server`."""
        return [exchange for exchange in list(self._server.seen) if begin <= exchange.start <= end]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = BACKLOG
    daemon_threads = True

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.seen: list[Exchange] = []


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: _Server

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Note the request instead of printing it."""
        now = time.time()
        file = Path(self.translate_path(self.path))
        size = file.stat().st_size if file.is_file() else 0
        self.server.seen.append(Exchange(self.command, self.path, int(str(code)), now, now, size))
