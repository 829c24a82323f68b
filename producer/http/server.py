"""Running the app: uvicorn, told to end its streams before it waits for what is open."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from millrace.core.errors import ServerUnavailable
from millrace.producer.http.backend import Backend
from millrace.producer.http.protocol import LimitedProtocol
from millrace.producer.http.settings import HttpSettings

GRACE_S = 20
"""What is under way when the server is told to stop has so long."""


class _Server(uvicorn.Server):
    """Event streams never end by themselves, so they are ended first."""

    def __init__(self, config: uvicorn.Config, backend: Backend) -> None:
        super().__init__(config)
        self._backend = backend

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._backend.wind_down()
        await super().shutdown(sockets)


def serve_app(
    app: FastAPI, settings: HttpSettings, ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until SIGINT or SIGTERM; `ready` gets the URL once requests are taken. Raises
    ServerUnavailable if the address cannot be listened on."""
    try:
        listening = _listen(settings.http_host, settings.http_port)
    except OSError as error:
        where = f"{settings.http_host} port {settings.http_port}"
        raise ServerUnavailable(f"cannot listen on {where}: {error.strerror}") from error
    server = _Server(config_of(app), app.state.backend)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # For a signal that comes before uvicorn's own handlers stand, and for the one it ended by,
    # which it raises again for whoever was there before it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with listening:
        # Before the loop runs, but the socket listens: whoever connects now is served in a moment.
        ready(url_of(listening))
        server.run(sockets=[listening])


def config_of(app: FastAPI) -> uvicorn.Config:
    """How the app is served."""
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(2048)
    except OSError:
        made.close()
        raise
    return made


def url_of(listening: socket.socket) -> str:
    """`http://127.0.0.1:8000`"""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
