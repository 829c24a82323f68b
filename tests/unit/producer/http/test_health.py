"""Whoever asks how the server is, or what models there are, holds up nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from millrace.core.errors import StorageUnavailable
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.shelf import ListedModel
from millrace.producer.http import ready, shelf
from millrace.producer.http.ready import ReadyChecks
from millrace.producer.http.shelf import Shelf
from tests.unit.producer.http.conftest import Api


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_who_watches_whether_it_is_up_may_ask_for_the_head(path: str, api: Api) -> None:
    answer = api.anybody.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.fixture
def gate(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Storage stands still until this is set."""
    gate = threading.Event()
    monkeypatch.setattr(api.backend.ready, "_look", lambda: gate.wait(60))
    yield gate
    gate.set()


def test_many_who_ask_while_storage_stands_still_take_no_thread(
    api: Api, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "WITHIN_S", 600)
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(api.anybody.get, "/readyz") for _ in range(60)]
        api.viewer.get("/v1/workers").raise_for_status()
        assert not any(one.done() for one in waiting)
        gate.set()
        answers = {one.result().json()["storage"] for one in waiting}
    assert answers == {"ok"}


@pytest.mark.usefixtures("gate")
def test_storage_that_stands_still_is_waited_for_a_while(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "WITHIN_S", 0.05)
    assert api.anybody.get("/readyz").json()["storage"] == "slow"


def test_what_does_not_answer_is_told(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(ready, "FRESH_S", 0)
    checks = ReadyChecks(services, [])
    assert asyncio.run(checks.words()) == {"redis": "ok", "storage": "ok"}
    monkeypatch.setattr(checks, "_look", fail)
    assert asyncio.run(checks.words()) == {"redis": "ok", "storage": "unavailable"}
    checks.close()


def test_who_asks_for_models_while_they_are_listed_is_told_the_last_ones(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun, models = threading.Event(), threading.Event(), [ListedModel("tiny", "1", 5, False)]

    def list_slowly(_: object) -> list[ListedModel]:
        begun.set()
        gate.wait(30)
        return models

    monkeypatch.setattr(shelf, "FRESH_S", 0)
    monkeypatch.setattr(shelf, "listed", list_slowly)
    it = Shelf(Services(Settings.load(redis_url=redis_url, models=str(tmp_path))))
    gate.set()
    assert it.models() == models
    gate.clear()
    begun.clear()
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(it.models)
        assert begun.wait(30)
        assert it.models() == models
        assert not listing.done()
        gate.set()
        assert listing.result() == models
