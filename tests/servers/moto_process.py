"""moto's S3 in a process of its own, folders loaded into it directly; run as a script."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = "123456789012"


class Quiet(WSGIRequestHandler):
    # Werkzeug otherwise closes the connection after every answer.
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
        pass


def load(bucket: str, prefix: str, folder: Path) -> int:
    """Store the files of a folder under a prefix."""
    backend = s3_backends[ACCOUNT]["aws"]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()] if folder.is_dir() else [folder]
    for path in files:
        name = path.relative_to(folder).as_posix() if folder.is_dir() else ""
        key = "/".join(part for part in (prefix, name) if part)
        backend.put_object(bucket, key, path.read_bytes())
    return len(files)


def with_loading(inner: Any) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/-load":
            answer: Iterable[bytes] = inner(environ, start_response)
            return answer
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        body = str(load(query["bucket"], query.get("prefix", ""), Path(query["folder"]))).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    return application


def make_identity(endpoint: str, buckets: list[str]) -> dict[str, str]:
    """A user who may do everything with S3, and the buckets."""
    root: dict[str, Any] = {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "root",
        "aws_secret_access_key": "root",
    }
    iam = boto3.client("iam", **root)
    iam.create_user(UserName="tester")
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
    }
    iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=json.dumps(policy))
    pair = iam.create_access_key(UserName="tester")["AccessKey"]
    s3 = boto3.client("s3", **root)
    for bucket in buckets:
        s3.create_bucket(Bucket=bucket)
    s3.close()
    iam.close()
    return {"key": pair["AccessKeyId"], "secret": pair["SecretAccessKey"]}


def main() -> None:
    os.environ.pop("AWS_ENDPOINT_URL", None)
    os.environ.pop("AWS_ENDPOINT_URL_S3", None)
    server = make_server(
        "127.0.0.1",
        0,
        with_loading(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=Quiet,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    identity = make_identity(endpoint, sys.argv[1:])
    # From here on signatures are checked: the number of requests before that happens is set to none. The body
    # must be raw, a form's would be taken apart.
    enforce = Request(f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    with urlopen(enforce, timeout=30) as answer:
        answer.read()
    sys.stdout.write(json.dumps({"endpoint": endpoint} | identity) + "\n")
    sys.stdout.flush()
    # The tests hold the other end: when they end, however they end, so does this.
    sys.stdin.read()


if __name__ == "__main__":
    main()
