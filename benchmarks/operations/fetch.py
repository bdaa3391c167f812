"""Stored chunks, and nothing done with them: what fetches, without what decodes."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from benchmarks.operations.limit import store_of
from benchmarks.operations.ours import Facts, Options, Run
from benchmarks.operations.plain_zarr import TUNED


def own_transport(url: str, options: Options, keys: Sequence[str]) -> Run:
    """As the package does."""
    from intake_nwbzarr.location.location import locate
    from intake_nwbzarr.transport.open import fetch_many, open_transport

    transport = open_transport(locate(url, options))

    def run() -> Run:
        fetched = fetch_many(transport, keys)
        return lambda: _received([each.data for each in fetched if each is not None])

    return run


def five_at_once(url: str, options: Options, keys: Sequence[str]) -> Run:
    """Five at a time through obstore."""
    return obstore(url, options, keys, most=5)


def obstore(url: str, options: Options, keys: Sequence[str], *, most: int | None = None) -> Run:
    """All at once through obstore, or so many at a time."""
    store, prefix = store_of(url, options)
    loop = asyncio.new_event_loop()
    turn = asyncio.Semaphore(most or len(keys))

    async def one(key: str) -> Any:
        async with turn:
            answer = await store.get_async(f"{prefix}{key}")
            return await answer.bytes_async()

    async def gather() -> list[Any]:
        return await asyncio.gather(*map(one, keys))

    def run() -> Run:
        # Not asyncio.run, which formats the result for a message that nobody sees (Python 3.12).
        bodies = loop.run_until_complete(gather())
        return lambda: _received(bodies)

    return run


def aiohttp(url: str, options: Options, keys: Sequence[str]) -> Run:  # noqa: ARG001 (it does not sign)
    """All at once through aiohttp, whose connections stay from run to run."""
    client = import_module("aiohttp")
    loop = asyncio.new_event_loop()

    async def connect() -> Any:
        return client.ClientSession(connector=client.TCPConnector(limit=0), raise_for_status=True)

    session = loop.run_until_complete(connect())
    atexit.register(lambda: loop.run_until_complete(session.close()))

    async def one(key: str) -> Any:
        async with session.get(f"{url}/{key}") as answer:
            return await answer.read()

    async def gather() -> list[Any]:
        return await asyncio.gather(*map(one, keys))

    def run() -> Run:
        bodies = loop.run_until_complete(gather())
        return lambda: _received(bodies)

    return run


def fsspec(url: str, options: Options, keys: Sequence[str], *, tuned: bool = False) -> Run:
    """All at once through fsspec's filesystem for the URL."""
    given = {**(options or {}), **(TUNED if tuned else {})}
    filesystem, root = import_module("fsspec").url_to_fs(url, **given)
    sync = import_module("fsspec.asyn").sync

    async def gather() -> Any:
        return await asyncio.gather(*(filesystem._cat_file(f"{root}/{key}") for key in keys))

    def run() -> Run:
        bodies = sync(filesystem.loop, gather)
        return lambda: _received(bodies)

    return run


def _received(bodies: Sequence[Any]) -> Facts:
    """How many bodies there are, and their bytes."""
    return {"shape": [len(bodies)], "sum": sum(len(memoryview(body)) for body in bodies)}
