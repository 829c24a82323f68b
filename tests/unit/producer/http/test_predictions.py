"""One picture: nobody waits longer than was asked, and nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.core.errors import WaitTimeout
from millrace.core.fleet import WorkerInfo
from millrace.core.job import JobSpec
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.core.topology import DUTIES, queue_name
from millrace.producer.http.predictions import Predictions
from tests.support import wait_until

TINY = ModelRef.parse("tiny")


@pytest.fixture
def predictions(services: Services, tmp_path: Path) -> Iterator[Predictions]:
    """A worker is said to serve the model, and never takes anything."""
    queue = queue_name("tiny", None)
    services.fleet.announce(WorkerInfo("1@host/ab", "tiny", queue, "idle", 1, 0, 0.0, 1))
    made = Predictions(services, tmp_path.as_uri())
    yield made
    made.close()


def nothing_is_left(services: Services, tmp_path: Path) -> bool:
    # Folders go meanwhile, which `rglob` does not take.
    files = [name for *_, names in os.walk(tmp_path) for name in names]
    return not files and not services.redis.raw.exists(DUTIES) and not services.jobs.recent_jobs(1)


def test_a_storage_that_stands_still_keeps_nobody_waiting(
    services: Services,
    predictions: Predictions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, standing, submit = threading.Event(), threading.Event(), predictions._submit

    def submit_late(spec: JobSpec, picture: bytes) -> None:
        standing.set()
        gate.wait(30)
        submit(spec, picture)

    monkeypatch.setattr(predictions, "_submit", submit_late)
    began = time.monotonic()
    with pytest.raises(WaitTimeout):
        asyncio.run(predictions.predict(b"picture", TINY, None, 2))
    assert time.monotonic() - began < 20
    assert standing.is_set()
    assert predictions._clearing == set()  # which would be too early
    gate.set()
    wait_until(lambda: predictions._clearing, what="what came too late is being cleared")
    wait_until(lambda: nothing_is_left(services, tmp_path), what="nothing is left of it")


def test_what_cannot_be_cleared_is_waited_for_once(
    predictions: Predictions, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun = threading.Event(), list[str]()

    def stand_still(job: str) -> None:
        begun.append(job)
        gate.wait(30)

    monkeypatch.setattr(predictions, "_end", stand_still)
    for _ in range(3):
        predictions._clear_soon("predict-1")
    wait_until(lambda: begun, what="it is being cleared")
    predictions._clear_soon("predict-1")
    gate.set()
    wait_until(lambda: not predictions._clearing, what="it is cleared")
    assert begun == ["predict-1"]
    predictions._clear_soon("predict-1")
    wait_until(lambda: len(begun) == 2, what="it is cleared again")
