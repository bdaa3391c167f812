"""The S3 server of the demonstration: moto in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from intake_nwbzarr.errors import DemoUnavailableError


class SilentHandler(WSGIRequestHandler):
    """Request handler that logs nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Ignore the message."""


def create_buckets(endpoint_url: str, public: str, private: str) -> None:
    """Create both buckets; anonymous requests may read objects in the public one."""
    client = botocore.session.Session().create_client("s3", endpoint_url=endpoint_url)
    for bucket in (public, private):
        client.create_bucket(Bucket=bucket)
    allow_reading = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{public}/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [allow_reading]}
    client.put_bucket_policy(Bucket=public, Policy=json.dumps(policy))
    client.close()


def main() -> None:
    """Serve until standard input closes, which also happens if the parent process is killed."""
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=SilentHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    create_buckets(f"http://127.0.0.1:{server.server_port}", *sys.argv[1:])
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()


PUBLIC_BUCKET = "public-sessions"
PRIVATE_BUCKET = "private-sessions"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and the access keys of its private bucket."""

    endpoint_url: str
    key: str
    secret: str = field(repr=False)

    def upload(self, folder: Path, bucket: str, prefix: str) -> int:
        """Upload a folder and return the number of objects."""
        from intake_nwbzarr.location.location import locate
        from intake_nwbzarr.transport.loop import run
        from intake_nwbzarr.transport.open import open_transport

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
    """Run an S3 server on a free port, with its keys as the only AWS settings in the environment."""
    # Yields a function that waits for the server, so that the caller can work while it starts.
    key, secret = f"DEMO{secrets.token_hex(8).upper()}", secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "intake_nwbzarr.demo.server", PUBLIC_BUCKET, PRIVATE_BUCKET]
    with (
        _environment({"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,  # noqa: S603
    ):

        def wait_for_server() -> S3Server:
            port = process.stdout.readline().strip() if process.stdout else ""
            if not port:
                raise DemoUnavailableError(
                    "The demo's S3 server did not start.",
                    found=process.wait(),
                    next_step=f"Run `python {' '.join(command[1:3])}` to see its error.",
                )
            return S3Server(f"http://127.0.0.1:{port}", key, secret)

        try:
            yield wait_for_server
        finally:
            process.terminate()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("AWS_")]:
        del os.environ[name]
    no_files = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    os.environ |= no_files | {"AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"} | variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
