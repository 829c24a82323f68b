"""The real app on a real server, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.producer.http.app import create_app
from millrace.producer.http.backend import Backend
from millrace.producer.http.server import _listen, config_of, url_of
from millrace.producer.http.settings import HttpSettings
from tests.support import wait_until

VIEWER = "a-viewer-s-token-1234"
OPERATOR = "an-operator-s-token-1234"


class Api:
    """A running server, and a client of each role."""

    def __init__(self, app: FastAPI, url: str) -> None:
        self.app = app
        self.url = url
        self.backend: Backend = app.state.backend
        self.services = self.backend.services
        # Nothing is encrypted here, and reading all certificates takes longer than most tests.
        self.anybody = httpx.Client(base_url=url, timeout=30, verify=False)
        self.viewer = self._client(VIEWER)
        self.operator = self._client(OPERATOR)

    def _client(self, token: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, timeout=30, headers=headers, verify=False)

    def close(self) -> None:
        for client in (self.anybody, self.viewer, self.operator):
            client.close()


class Hasty:
    """asyncio for uvicorn alone: it waits for a tenth of a second twice when it ends."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


@contextmanager
def serving(services: Services, settings: HttpSettings) -> Iterator[Api]:
    app = create_app(services, settings)
    with pytest.MonkeyPatch.context() as patch, _listen("127.0.0.1", 0) as listening:
        patch.setattr(uvicorn.server, "asyncio", Hasty())
        server = uvicorn.Server(config_of(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        api = Api(app, url_of(listening))
        try:
            wait_until(lambda: server.started, what="the server has started")
            yield api
        finally:
            app.state.backend.wind_down()
            server.should_exit = True
            thread.join(30)
            api.close()


Serve = Callable[..., Api]


@pytest.fixture
def serve(redis_url: str, tmp_path: Path) -> Iterator[Serve]:
    """Start a server; jobs may read and write below `tmp_path`. Settings replace the usual ones."""
    with ExitStack() as stack:

        def start(*, allowed: str | None = tmp_path.as_uri(), **settings: object) -> Api:
            services = Services(Settings.load(redis_url=redis_url, allowed_locations=allowed))
            stack.callback(services.redis.close)
            given = {"viewer_token": VIEWER, "operator_token": OPERATOR} | settings
            return stack.enter_context(serving(services, HttpSettings.load(**given)))

        yield start


@pytest.fixture
def api(serve: Serve) -> Api:
    return serve()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten files that pass for images."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"x" * (number + 1))
    return folder


@pytest.fixture
def asked(photos: Path) -> dict[str, object]:
    """A request for a job over the photos."""
    return asked_of(photos.parent)


def asked_of(folder: Path) -> dict[str, object]:
    """A request for a job from `in` to `out` there."""
    return {
        "source": (folder / "in").as_uri(),
        "output": (folder / "out").as_uri(),
        "model": "tiny",
        "chunk_size": 2,
    }
