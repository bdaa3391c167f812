"""What the tests of the chunk cache share: a cached transport, and a look into the folder."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.base import Transport
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import open_transport
from tests.servers.http_server import StaticServer

DATA = bytes(range(256)) * 400
QUICK = {"connect": 2, "stall": 0.3, "backoff": 0.01, "attempts": 3}
STATE = '"state of the metadata"'


def store_object(server: StaticServer, key: str, data: bytes) -> None:
    """Put an object on a server."""
    (server.root / key).parent.mkdir(parents=True, exist_ok=True)
    (server.root / key).write_bytes(data)


def cached_transport(
    server: StaticServer, folder: Path, state: str | None = STATE, **options: Any
) -> Transport:
    """A transport with a cache, for a state of the session."""
    given = {"chunk_cache": {"folder": folder, "size": 10**7}, "timeouts": QUICK, **options}
    return open_transport(locate(server.url, given)).at(state)


def get_object(transport: Transport, key: str = "a/0", **part: Any) -> bytes | None:
    """The bytes of an object, or of a part of it."""
    fetched = run(transport.get(key, **part))
    return None if fetched is None else fetched.data


def cache_files(folder: Path) -> list[Path]:
    """The copies in a cache."""
    return sorted(path for path in folder.glob("??/**/*") if path.is_file())


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file of this process may grow beyond a size: what the kernel refuses then is refused for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
