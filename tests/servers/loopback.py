"""A web server on 127.0.0.1 in a thread, with a log of requests, latency, and faults on demand."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

# Connections that are broken on purpose are no news.
_quiet = logging.getLogger("tests.servers.quiet")
_quiet.setLevel(logging.CRITICAL + 1)

type FaultKind = Literal[
    "status", "reset", "truncate", "stall", "short", "shifted", "ignore_range", "etag", "redirect", "expired"
]


@dataclass(frozen=True)
class Seen:
    """A request as the server saw it; `path` is as on the wire."""

    method: str
    path: str
    headers: dict[str, str]
    status: int | str


@dataclass
class Fault:
    """What goes wrong, for requests whose path holds `match`, so many times."""

    kind: FaultKind
    match: str = ""
    times: float = 1
    after: int = 0
    method: str | None = None
    status: int = 503
    code: str = "SlowDown"
    to: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Response:
    """What a handler answers before faults are applied."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class LoopbackServer(ABC):
    """Started by `with`; requests are answered by `answer`."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.latency = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._listening: socket.socket | None = None
        self.port = 0
        # Set before it starts: another address to listen on, and TLS.
        self.host = "127.0.0.1"
        self.tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{host}:{self.port}"

    def fault(self, kind: FaultKind, match: str = "", times: float = 1, **details: Any) -> None:
        """Let something go wrong: see `Fault`; ``times=math.inf`` for always."""
        with self._lock:
            self._faults.append(Fault(kind, match, times, **details))

    def reset(self) -> None:
        """Forget faults and requests, once all that were sent are answered."""
        self._run(self._settle())
        with self._lock:
            self._faults.clear()
        self.requests.clear()
        self.latency = 0.0
        self.most_at_once = 0

    async def _settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
            if not self._at_once:
                return
            await asyncio.sleep(0.02)

    def count(self, match: str = "", method: str | None = None) -> int:
        """How many requests were made whose path holds `match`."""
        return sum(match in seen.path and method in {None, seen.method} for seen in list(self.requests))

    @abstractmethod
    async def answer(self, request: web.Request) -> Response: ...

    async def whole(self, request: web.Request) -> Response:
        """The answer of a server that ignores the Range header."""
        kept = {name: value for name, value in request.headers.items() if name != "Range"}
        return await self.answer(request.clone(headers=kept))

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *exception: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def _start(self) -> None:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, logger=_quiet, shutdown_timeout=0.1)
        await self._runner.setup()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listening = socket.create_server((self.host, 0), family=family)
        await web.SockSite(self._runner, self._listening, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._runner.server is not None
        assert self._listening is not None
        # asyncio loses connections that it has accepted but not yet begun when a server is closed
        # (https://github.com/python/cpython/issues/109564): first none is accepted any more.
        self._loop.remove_reader(self._listening)
        for _ in range(5):
            await asyncio.sleep(0)
            # TLS would wait for what the other side says at the end of a connection.
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            fault = self._take(request)
            response, status = await self._respond(request, fault)
        finally:
            self._at_once -= 1
        self.requests.append(Seen(request.method, request.raw_path, dict(request.headers), status))
        if fault is not None and fault.kind in {"reset", "truncate", "stall"}:
            await _break(request, fault.kind, response)
        return await _send(request, response)

    async def _respond(self, request: web.Request, fault: Fault | None) -> tuple[Response, int | str]:
        match fault:
            case Fault(kind="status"):
                return Response(fault.status, _error(fault.code), dict(fault.headers)), fault.status
            case Fault(kind="expired"):
                return Response(400, _error("ExpiredToken")), 400
            case Fault(kind="redirect"):
                return Response(fault.status, b"", {"Location": fault.to}), fault.status
            case Fault(kind="ignore_range"):
                return await self.whole(request), "ignore_range"
        response = await self.answer(request)
        match fault:
            case Fault(kind="short") if response.status == 206:
                first, _, rest = response.headers["Content-Range"].removeprefix("bytes ").partition("-")
                response.body = response.body[: len(response.body) // 2]
                last = int(first) + len(response.body) - 1
                response.headers["Content-Range"] = f"bytes {first}-{last}/{rest.partition('/')[2]}"
            case Fault(kind="shifted") if response.status == 206:
                first, _, rest = response.headers["Content-Range"].removeprefix("bytes ").partition("-")
                last, _, size = rest.partition("/")
                response.headers["Content-Range"] = f"bytes {int(first) + 1}-{int(last) + 1}/{size}"
            case Fault(kind="etag"):
                kept = {name: value for name, value in response.headers.items() if name.lower() != "etag"}
                response.headers = kept | {"ETag": fault.headers.get("ETag", '"changed"')}
        return response, response.status if fault is None else fault.kind

    def _take(self, request: web.Request) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.match not in request.raw_path or fault.method not in {None, request.method}:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None


async def _send(request: web.Request, response: Response) -> web.StreamResponse:
    body = None if request.method == "HEAD" else response.body
    answer = web.Response(status=response.status, body=body, headers=response.headers)
    if "Content-Type" not in response.headers:
        answer.headers["Content-Type"] = "application/octet-stream"
    return answer


async def _break(request: web.Request, kind: str, response: Response) -> None:
    transport = request.transport
    assert transport is not None
    if kind == "reset":
        # A zero linger makes the kernel answer with RST.
        link = transport.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await asyncio.sleep(0)
        raise ConnectionResetError
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(response.body)
    await stream.prepare(request)
    await stream.write(response.body[: len(response.body) // 2])
    if kind == "stall":
        for _ in range(600):
            await asyncio.sleep(0.05)
            if transport.is_closing():
                break
    transport.close()
    raise ConnectionResetError


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()


def partial(body: bytes, header: str | None, headers: dict[str, str]) -> Response:
    """An object, or the part of it that a Range header asks for."""
    if header is None:
        return Response(200, body, headers)
    first, _, last = header.removeprefix("bytes=").partition("-")
    start = max(0, len(body) - int(last)) if first == "" else int(first)
    stop = len(body) if first == "" or last == "" else min(int(last) + 1, len(body))
    if start >= len(body):
        return Response(416, b"", headers | {"Content-Range": f"bytes */{len(body)}"})
    return Response(
        206, body[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
    )
