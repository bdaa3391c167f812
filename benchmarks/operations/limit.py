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

BLOCK = 64 * 2**20


def read_array(url: str, options: Options, path: str) -> Run:
    """All of an array, fetched at once, decoded on as many threads as the package uses."""
    array = _Array(url, options, path)

    def run() -> Run:
        values = array.read(0, array.count)
        return lambda: checked(values)

    return run


def read_with_dask(url: str, options: Options, path: str) -> Run:
    """The same through dask, in blocks of as many bytes as the package's: what dask itself costs."""
    da, delayed = import_module("dask.array"), import_module("dask").delayed
    array = _Array(url, options, path)
    several = max(1, round(BLOCK / array.chunk_bytes))
    blocks = [
        da.from_delayed(delayed(array.read)(first, last), array.shape_of(first, last), array.dtype)
        for first in range(0, array.count, several)
        for last in [min(first + several, array.count)]
    ]
    whole = da.concatenate(blocks)

    def run() -> Run:
        values = whole.compute()
        return lambda: checked(values)

    return run


class _Array:
    def __init__(self, url: str, options: Options, path: str) -> None:
        import numcodecs
        import numpy as np

        self._store, prefix = store_of(url, options)
        self._prefix = f"{prefix}{path}"
        document = json.loads(bytes(self._store.get(f"{self._prefix}/.zarray").bytes()))
        self.shape, self._rows = tuple(document["shape"]), document["chunks"][0]
        self.dtype = np.dtype(document["dtype"])
        self.count = -(-self.shape[0] // self._rows)
        self.chunk_bytes = self._rows * self.shape[1] * self.dtype.itemsize
        self._codec = numcodecs.get_codec(document["compressor"])
        self._pool = ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 2)))

    def shape_of(self, first: int, last: int) -> tuple[int, ...]:
        """The shape of a range of chunks."""
        return min(last * self._rows, self.shape[0]) - first * self._rows, *self.shape[1:]

    def read(self, first: int, last: int) -> Any:
        """A range of chunks."""
        return asyncio.run(self._gather(first, last))

    async def _gather(self, first: int, last: int) -> Any:
        import numpy as np

        loop = asyncio.get_running_loop()
        out = np.empty(self.shape_of(first, last), self.dtype)

        async def one(number: int) -> None:
            answer = await self._store.get_async(f"{self._prefix}/{number}.0")
            data = await answer.bytes_async()
            part = out[(number - first) * self._rows : (number - first + 1) * self._rows]
            await loop.run_in_executor(self._pool, self._decode, part, memoryview(data))

        await asyncio.gather(*(one(number) for number in range(first, last)))
        return out

    def _decode(self, part: Any, data: Any) -> None:
        import numpy as np

        if len(part) == self._rows:
            self._codec.decode(data, out=part)
        else:
            chunk = np.frombuffer(self._codec.decode(data), self.dtype).reshape(self._rows, -1)
            part[...] = chunk[: len(part)]


def store_of(url: str, options: Options) -> tuple[Any, str]:
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
