"""moto's S3 in a process of its own; it writes its port to standard output and ends with standard input.

Run as ``python -m intake_nwbzarr.demo.s3_process PUBLIC_BUCKET PRIVATE_BUCKET``.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import botocore.session

# moto's own server class logs every request.
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    """Answers quietly."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def make_buckets(endpoint_url: str, public: str, private: str) -> None:
    """Create both buckets; whoever likes may read the public one's objects."""
    client = botocore.session.Session().create_client("s3", endpoint_url=endpoint_url)
    for bucket in (public, private):
        client.create_bucket(Bucket=bucket)
    reading = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{public}/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [reading]}
    client.put_bucket_policy(Bucket=public, Policy=json.dumps(policy))
    client.close()


def main() -> None:
    """Serve until standard input ends, which it does even if the parent process is killed."""
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    make_buckets(f"http://127.0.0.1:{server.server_port}", *sys.argv[1:])
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
