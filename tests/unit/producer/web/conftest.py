"""The real server with its dashboard, and browsers that are no more than their requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from millrace.core.services import Services
from millrace.producer.http.settings import HttpSettings
from tests.unit.producer.http.conftest import OPERATOR, VIEWER, serving


@pytest.fixture
def anybody(services: Services, tmp_path: Path, no_environment: None) -> Iterator[httpx.Client]:
    """A browser that nobody has signed in with."""
    settings = HttpSettings.load(
        operator_token=OPERATOR,
        viewer_token=VIEWER,
        any_location=True,
        uploads=(tmp_path / "uploads").as_uri(),
        thumbnail_cache=str(tmp_path / "thumbnails"),
    )
    with (
        serving(services, settings) as api,
        httpx.Client(
            base_url=api.url,
            headers={"accept": "text/html"},
            follow_redirects=True,
            timeout=30,
            verify=False,
        ) as client,
    ):
        yield client


@pytest.fixture
def client(anybody: httpx.Client) -> httpx.Client:
    """An operator's."""
    return _signed_in(anybody, OPERATOR)


@pytest.fixture
def looker(anybody: httpx.Client) -> httpx.Client:
    """A viewer's."""
    return _signed_in(anybody, VIEWER)


def _signed_in(client: httpx.Client, token: str) -> httpx.Client:
    client.headers["sec-fetch-site"] = "same-origin"
    answer = client.post("/login", data={"token": token, "next": "/"})
    assert answer.status_code == 200
    return client
