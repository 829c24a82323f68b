"""HTTP in front of a real S3 endpoint: some requests fare as they would with a store in trouble."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.faults.tcp_proxy import reset_on_close


class Asked(NamedTuple):
    """A request on its way."""

    method: str
    path: str
    headers: Message


@dataclass(frozen=True)
class Cut:
    """The connection is reset after this many bytes of the answer's body; None: with no answer."""

    after_bytes: int | None = None


@dataclass(frozen=True)
class Slow:
    """The body comes at this rate."""

    bytes_per_s: float


@dataclass(frozen=True)
class Withheld:
    """The body comes once this is set."""

    until: threading.Event


@dataclass(frozen=True)
class Stall:
    """No answer, ever."""


Fault = int | Cut | Slow | Withheld | Stall
"""An int is an HTTP status, answered with no body."""

Rule = Callable[[Asked], Fault | None]

_SENDS_PER_S = 20


@contextmanager
def s3_proxy(
    endpoint: str,
    *,
    instead: Rule = lambda _: None,
    afterwards: Rule = lambda _: None,
) -> Iterator[str]:
    """The URL of a proxy of `endpoint`.

    What `instead` says happens without forwarding; what `afterwards` says, to the answer of
    the endpoint, which has done what it was asked.
    """
    target = urlsplit(endpoint).netloc
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if "Expect" in self.headers:  # boto3 would wait a second for it
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, self.headers)
            fault = instead(asked)
            if fault is not None:
                self.fail(fault)
                return
            connection = HTTPConnection(target)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            fault = afterwards(asked)
            if isinstance(fault, int | Stall) or fault == Cut():
                self.fail(fault)
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client has given up
                self.send_body(data, fault)

        def send_body(self, data: bytes, fault: Cut | Slow | Withheld | None) -> None:
            if isinstance(fault, Cut):
                self.wfile.write(data[: fault.after_bytes])
                self.reset()
            elif isinstance(fault, Slow):
                step = max(1, int(fault.bytes_per_s / _SENDS_PER_S))
                for start in range(0, len(data), step):
                    self.wfile.write(data[start : start + step])
                    if closing.wait(step / fault.bytes_per_s):
                        return
            else:
                if isinstance(fault, Withheld):
                    while not fault.until.wait(0.02) and not closing.is_set():
                        pass
                self.wfile.write(data)

        def fail(self, fault: Fault) -> None:
            if isinstance(fault, Stall):
                closing.wait()
            elif isinstance(fault, int):
                self.send_response(fault)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.reset()

        def reset(self) -> None:
            self.wfile.flush()
            reset_on_close(self.connection)
            self.close_connection = True

        do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
            # The inherited one shuts down first, which says FIN, even where a reset is meant.
            self.close_request(request)

        def handle_error(self, *_: object) -> None:
            """Clients that went away are what these tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
