"""Who waits for storage keeps nobody waiting who needs Redis alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.services import Services
from millrace.producer.http.access import Access, Caller
from millrace.producer.http.shelf import Shelf
from tests.support import wait_until
from tests.unit.producer.support import listed_job, work

MANY = 48
"""Requests: more than the threads that all of them would share."""


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    spec = listed_job(services, tmp_path / "out", images=6)
    work(services, spec, 0, 1, failing={1: "decode/corrupt"})
    return spec


@pytest.mark.parametrize(
    ("kind", "method", "paths"),
    [
        (
            JobDirectory,
            "read_chunk",
            ["/jobs/j", "/jobs/j/gallery", "/jobs/j/images/0", "/v1/jobs/j/errors?limit=5"],
        ),
        (Shelf, "models", ["/", "/new"]),
    ],
)
def test_storage_that_stands_still_holds_up_no_cancel(
    kind: type,
    method: str,
    paths: list[str],
    client: httpx.Client,
    job: JobSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, came = threading.Event(), list[str]()
    whole: Callable[..., Any] = getattr(kind, method)
    caller = Access.caller

    def stand_still(*args: Any) -> Any:
        gate.wait(30)
        return whole(*args)

    def noted(self: Access, request: Request) -> Caller:
        came.append(request.url.path)
        return caller(self, request)

    monkeypatch.setattr(kind, method, stand_still)
    monkeypatch.setattr(Access, "caller", noted)
    with ThreadPoolExecutor(MANY) as pool:
        try:
            accept = {"accept": "*/*"}
            asked = [
                pool.submit(client.get, path, headers=accept)
                for path in paths * (MANY // len(paths))
            ]
            wait_until(lambda: len(came) >= MANY, what="all of them wait")
            cancelled = client.post("/v1/jobs/j/cancel", timeout=10)
        finally:
            gate.set()
        assert cancelled.status_code == 200
        assert {one.result().status_code for one in asked} == {200}
