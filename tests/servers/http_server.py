"""A plain static HTTP server, as a lab's web space: ranges, ETags, and no listing."""

from hashlib import md5
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web

from tests.servers.loopback import LoopbackServer, Response, partial


class StaticServer(LoopbackServer):
    """Serves the files of `root`."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        # When set, requests must carry exactly this Authorization header, or this query.
        self.authorization: str | None = None
        self.query: str | None = None
        # Whether objects have an ETag; where everything is instead, as of a portal.
        self.etags = True
        self.forward_to: str | None = None
        self.content_type = "application/octet-stream"

    async def answer(self, request: web.Request) -> Response:
        path, _, query = request.raw_path.partition("?")
        if self.authorization is not None and request.headers.get("Authorization") != self.authorization:
            return Response(401)
        if self.query is not None and query != self.query:
            return Response(403)
        if self.forward_to is not None:
            return Response(307, b"", {"Location": self.forward_to + request.raw_path})
        file = self.root / unquote(path).lstrip("/")
        if ".." in file.parts or not file.is_file():
            return Response(404, b"not found")
        if request.method != "GET":
            return Response(405)
        body = file.read_bytes()
        etag = f'"{md5(body, usedforsecurity=False).hexdigest()}"'
        if self.etags and request.headers.get("If-None-Match") == etag:
            return Response(304, b"", {"ETag": etag})
        tagged = {"Content-Type": self.content_type} | ({"ETag": etag} if self.etags else {})
        return partial(body, request.headers.get("Range"), tagged | {"Accept-Ranges": "bytes"})


class NoETagServer(StaticServer):
    """A server that says nothing about the state of a file but its size."""

    async def answer(self, request: web.Request) -> Response:
        response = await super().answer(request)
        hidden = {"etag", "last-modified"}
        response.headers = {
            name: value for name, value in response.headers.items() if name.lower() not in hidden
        }
        return response
