"""A receiver of notifications: a real HTTP server that answers as told, and keeps what came."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Received:
    """One request that came whole."""

    path: str
    headers: dict[str, str]
    """Their names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Says:
    """An answer with headers."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class Hangs:
    """No answer, ever."""


class Drips:
    """An answer that never ends, a byte at a time."""


Answer = Says | Hangs | Drips


class Receiver:
    """What came, and the answers to come: the last one is given again and again."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.received: list[Received] = []
        self.closing = threading.Event()
        self.port = 0
        self.scheme = "http"
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?token=t0p-s3cret"

    def take(self, received: Received) -> Answer:
        with self._lock:
            self.received.append(received)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def receiver(*answers: Answer | int, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Listens on a free port of this machine; a number is a status."""
    given: list[Answer] = [Says(each) if isinstance(each, int) else each for each in answers]
    made = Receiver(given or [Says(204)])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = made.take(Received(self.path, headers, self.rfile.read(size)))
            if isinstance(answer, Hangs):
                made.closing.wait()
            elif isinstance(answer, Drips):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                while not made.closing.wait(0.05):
                    self.wfile.write(b".")
            else:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def handle(self) -> None:
            with suppress(OSError):  # who asked may be gone by now
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        made.scheme = "https"
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
