"""The app with its dashboard over a real Redis, and jobs in a real directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from millrace.core.services import Services
from millrace.producer.http.app import create_app
from millrace.producer.http.settings import HttpSettings
from millrace.producer.web.dashboard import Dashboard

OPERATOR, VIEWER = "an operator's token", "a viewer's token"


@pytest.fixture
def app(services: Services, tmp_path: Path, no_environment: None) -> FastAPI:
    settings = HttpSettings.load(
        operator_token=OPERATOR,
        viewer_token=VIEWER,
        any_location=True,
        thumbnail_cache=str(tmp_path / "thumbnails"),
    )
    return create_app(services, settings)


@pytest.fixture
def anybody(app: FastAPI) -> Iterator[TestClient]:
    """A browser that nobody has signed in with."""
    with TestClient(app, headers={"accept": "text/html"}) as client:
        yield client


@pytest.fixture
def client(anybody: TestClient) -> TestClient:
    """An operator's."""
    return _signed_in(anybody, OPERATOR)


@pytest.fixture
def looker(anybody: TestClient) -> TestClient:
    """A viewer's."""
    return _signed_in(anybody, VIEWER)


@pytest.fixture
def web(app: FastAPI) -> Iterator[Dashboard]:
    found: Dashboard = app.state.dashboard
    yield found
    found.close()


def _signed_in(client: TestClient, token: str) -> TestClient:
    answer = client.post(
        "/login", data={"token": token, "next": "/"}, headers={"sec-fetch-site": "same-origin"}
    )
    assert answer.status_code == 200
    client.headers["sec-fetch-site"] = "same-origin"
    return client
