"""The limit: chunks of one array gathered by obstore and decoded by numcodecs, nothing else.

Written by hand for what it reads: Zarr 2, chunks along the first axis only, one compressor. No retries, no
checks, no limits.
"""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from benchmarks.operations.ours import Options, Run, checked


def read_array(url: str, options: Options, path: str) -> Run:
    """All of an array, fetched at once, decoded on as many threads as the package uses."""
    import numcodecs
    import numpy as np

    store, prefix = _store(url, options)
    document = json.loads(bytes(store.get(f"{prefix}{path}/.zarray").bytes()))
    shape, rows = document["shape"], document["chunks"][0]
    codec = numcodecs.get_codec(document["compressor"])
    keys = [f"{prefix}{path}/{number}.0" for number in range(-(-shape[0] // rows))]
    pool = ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 2)))

    async def gather() -> Any:
        loop = asyncio.get_running_loop()
        out = np.empty(shape, document["dtype"])

        def decode(number: int, data: Any) -> None:
            part = out[number * rows : (number + 1) * rows]
            if len(part) == rows:
                codec.decode(data, out=part)
            else:
                part[...] = np.frombuffer(codec.decode(data), out.dtype).reshape(rows, -1)[: len(part)]

        async def one(number: int, key: str) -> None:
            answer = await store.get_async(key)
            data = await answer.bytes_async()
            await loop.run_in_executor(pool, decode, number, memoryview(data))

        await asyncio.gather(*(one(number, key) for number, key in enumerate(keys)))
        return out

    def run() -> Run:
        values = asyncio.run(gather())
        return lambda: checked(values)

    return run


def _store(url: str, options: Options) -> tuple[Any, str]:
    """An obstore for a session, and what its keys begin with."""
    stores = import_module("obstore.store")
    if options is None:
        return stores.HTTPStore.from_url(url, client_options={"allow_http": True}), ""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client = options["client_kwargs"]
    store = stores.S3Store(
        bucket,
        endpoint=client["endpoint_url"],
        region=client["region_name"],
        access_key_id=options["key"],
        secret_access_key=options["secret"],
        client_options={"allow_http": True},
    )
    return store, f"{prefix}/"
