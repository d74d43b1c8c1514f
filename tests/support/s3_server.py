"""A real S3 server (moto's) on loopback, and a proxy before it that fails as it is told."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = "bucket"
ACCESS_KEY, SECRET_KEY = "AKIAEXAMPLEEXAMPLE77", "s3cr3tEXAMPLEs3cr3tEXAMPLE99"


def environment(port: int) -> dict[str, str]:
    """The standard variables that lead to a server on loopback."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def s3_server() -> Iterator[int]:
    """A server with one empty bucket; yields its port."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        request(port, "PUT", f"/{BUCKET}", b"<CreateBucketConfiguration><LocationConstraint>eu-central-1"
                b"</LocationConstraint></CreateBucketConfiguration>")  # fmt: skip
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended"
        try:
            request(port, "GET", "/")
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server did not start")


def request(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    """One plain request, unsigned."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
        return connection.getresponse().read()
    finally:
        connection.close()


class ProxyHandler(BaseHTTPRequestHandler):
    """Answers the requests of one `Proxy`, which a subclass names with the port of the server behind it."""

    proxy: Proxy
    target: int
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.fault(self.command, self.path)
        self.proxy.requests.append((self.command, self.path, fault))
        if fault == "reset":
            self._cut()
            return
        if fault in ("500", "403"):
            self._answer(int(fault), {}, b"<Error><Code>Injected</Code></Error>")
            return
        if isinstance(fault, float):
            time.sleep(fault)
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault == "cut":
            self._cut()
            return
        headers = dict(answer.headers)
        if "last-modified" in headers:
            seconds = parsedate_to_datetime(headers["last-modified"]).timestamp() + self.proxy.shift_seconds
            headers["last-modified"] = formatdate(seconds, usegmt=True)
        self._answer(answer.status, headers, data)

    def _cut(self) -> None:
        # Linger of no time at all: the peer sees a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the client gave up waiting

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # cut on purpose
            super().finish()


class Proxy:
    """Passes requests on to a server, unless `fault(method, path)` names what is to go wrong.

    Faults: `500` (an answer), `reset` (the connection is cut before the request is passed on), `cut` (after it was), a
    number of seconds (a slow answer), `403`. shift_seconds: how far the server's clock seems to be ahead.
    """

    def __init__(self, port: int) -> None:
        self.fault: Callable[[str, str], str | float | None] = lambda method, path: None
        self.shift_seconds = 0.0
        self.requests: list[tuple[str, str, str | float | None]] = []
        handler = type("Handler", (ProxyHandler,), {"proxy": self, "target": port})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def aws_environment():
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
