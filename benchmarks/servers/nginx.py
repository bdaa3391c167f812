"""nginx with its echo module: latency added at full throughput, ranges and all, and a log that counts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.enlarge import TEMPLATE
from benchmarks.servers.exchanges import Exchange

MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
INSTALL = "apt-get install nginx-light libnginx-mod-http-echo"

# Chunks that are not stored are all the same one, where an array's folder holds it. Answers of moto are kept,
# so that a server written in Python is not what is measured; signatures are checked the first time.
_CONFIGURATION = """
load_module {module};
{user}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    log_format exchanges escape=json '{{"end":$msec,"took":$request_time,"method":"$request_method",'
        '"path":"$request_uri","status":$status,"size":$body_bytes_sent,"range":"$http_range"}}';
    access_log {folder}/access.log exchanges;
    default_type application/octet-stream;
    keepalive_requests 1000000;
    sendfile on;
    tcp_nodelay on;
    map $uri $template {{
        ~^(?<array>.*)/c/[0-9/]+$ $array/{template};
        default /no-such-file;
    }}
    proxy_cache_path {folder}/answers keys_zone=answers:10m max_size=4g;
    upstream moto {{ server {upstream}; keepalive 64; }}
    {servers}
}}
"""
_SERVER = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ {delay} echo_exec @files; }}
        location @files {{ root {root}; try_files $uri $template =404; }}
    }}
    server {{
        listen 127.0.0.1:{s3_port} backlog=4096;
        location / {{ {delay} echo_exec @moto; }}
        location @moto {{
            proxy_pass http://moto;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header Range $http_range;
            proxy_set_header If-Match $http_if_match;
            proxy_cache answers;
            proxy_cache_key "$request_method$request_uri$http_range";
            proxy_cache_convert_head off;
            proxy_cache_valid 200 206 404 1h;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
        }}
    }}
"""


def is_installed() -> bool:
    """Whether this machine has nginx and the echo module."""
    return _program() is not None and MODULE.exists()


class Nginx:
    """Serves a folder, and what moto holds, each at several latencies; started by `with`.

    Parameters
    ----------
    root
        The folder.
    folder
        For its configuration, log and temporary files; emptied.
    latencies
        In milliseconds.
    upstream
        Where moto listens, ``host:port``; None without.
    """

    kind = "nginx"

    def __init__(
        self, root: Path, folder: Path, latencies: Sequence[int], upstream: str | None = None
    ) -> None:
        self._root = root
        self._folder = folder
        ports = iter(_free_ports(2 * len(latencies)))
        self._ports = {latency: (next(ports), next(ports)) for latency in latencies}
        self._upstream = upstream
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, latency: int) -> str:
        """See `benchmarks.servers.exchanges.Server`."""
        return f"http://127.0.0.1:{self._ports[latency][0]}"

    def s3_endpoint(self, latency: int) -> str:
        """Where moto is reached."""
        return f"http://127.0.0.1:{self._ports[latency][1]}"

    def exchanges(self, begin: float, end: float) -> list[Exchange]:
        """See `benchmarks.servers.exchanges.Server`."""
        # A line is written once the answer has left.
        time.sleep(0.03)
        with (self._folder / "access.log").open() as lines:
            seen = [_exchange(json.loads(line)) for line in lines]
        return [exchange for exchange in seen if begin - 0.003 <= exchange.start <= end + 0.003]

    def forget(self) -> None:
        """Empty the log."""
        os.truncate(self._folder / "access.log", 0)

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        servers = [
            _SERVER.format(
                port=port,
                s3_port=s3_port,
                root=self._root,
                delay=f"echo_sleep {latency / 1000};" if latency else "",
            )
            for latency, (port, s3_port) in self._ports.items()
        ]
        (self._folder / "nginx.conf").write_text(
            _CONFIGURATION.format(
                module=MODULE,
                user="user root;" if os.geteuid() == 0 else "",
                folder=self._folder,
                template=TEMPLATE,
                upstream=self._upstream or "127.0.0.1:9",
                servers="".join(servers),
            )
        )
        program = _program()
        assert program is not None  # noqa: S101 (is_installed was asked)
        self._process = subprocess.Popen([program, "-c", str(self._folder / "nginx.conf")])  # noqa: S603
        for port, _ in self._ports.values():
            _wait_for(port)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None  # noqa: S101 (started by __enter__)
        self._process.terminate()
        self._process.wait(timeout=30)


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def _exchange(line: dict[str, Any]) -> Exchange:
    start = line["end"] - line["took"]
    return Exchange(
        line["method"], line["path"], line["status"], start, line["end"], line["size"], line["range"]
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nginx does not listen on port {port}; see its error.log.")
