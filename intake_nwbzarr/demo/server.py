"""An S3 server on this machine, with a public and a private bucket, for as long as it is needed."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from intake_nwbzarr.errors import DemoUnavailableError

PUBLIC_BUCKET = "public-sessions"
PRIVATE_BUCKET = "private-sessions"


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Parameters
    ----------
    endpoint_url
        Where it listens.
    key, secret
        What opens the private bucket.
    """

    endpoint_url: str
    key: str
    secret: str = field(repr=False)

    def upload(self, folder: Path, bucket: str, prefix: str) -> int:
        """Upload a folder; how many objects that made."""
        from intake_nwbzarr.location import locate
        from intake_nwbzarr.transport.requests import open_transport, run

        options = {"endpoint_url": self.endpoint_url, "key": self.key, "secret": self.secret}
        transport = open_transport(locate(f"s3://{bucket}/{prefix}", options))
        files = [path for path in folder.rglob("*") if path.is_file()]

        async def put_all() -> None:
            await asyncio.gather(
                *(transport.put(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files)
            )

        run(put_all())
        return len(files)


@contextmanager
def s3_server() -> Iterator[Callable[[], S3Server]]:
    """Run a server on a free port of 127.0.0.1, and stop it afterwards.

    Meanwhile the environment holds the credentials of its user, and nothing else of AWS.

    Yields
    ------
    Callable[[], S3Server]
        Waits until the server runs and gives it. There is work to do while it starts.

    Raises
    ------
    DemoUnavailableError
        When moto, which does the work, is not installed, or does not start.
    """
    for package in ("moto", "flask"):
        if find_spec(package) is None:
            raise DemoUnavailableError(
                f"The demo runs its own S3 server, for which {package} is missing; install it with "
                'pip install "intake-nwbzarr[demo]".'
            )
    key, secret = f"DEMO{secrets.token_hex(8).upper()}", secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "intake_nwbzarr.demo.s3_process", PUBLIC_BUCKET, PRIVATE_BUCKET]
    with (
        _environment({"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,  # noqa: S603
    ):

        def running() -> S3Server:
            port = process.stdout.readline().strip() if process.stdout else ""
            if not port:
                raise DemoUnavailableError("The demo's S3 server did not start.")
            return S3Server(f"http://127.0.0.1:{port}", key, secret)

        try:
            yield running
        finally:
            process.terminate()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("AWS_")]:
        del os.environ[name]
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    os.environ |= nowhere | {"AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"} | variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
