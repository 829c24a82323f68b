"""Who waits for storage keeps nobody waiting who needs Redis alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.producer.http.access import Access, Caller
from millrace.producer.http.backend import READERS
from millrace.producer.http.shelf import Shelf
from millrace.producer.web.dashboard import LIST_THREADS, MAKERS
from millrace.producer.web.job_files import JobFiles
from tests.support import wait_until
from tests.unit.producer.support import listed_job, work
from tests.unit.producer.web.test_thumbnails import job_over, listed, photo

MANY = 48
"""Requests: more than the threads that all of them would share."""

SENT_AS = {"/v1/jobs": "json", "/new": "data"}


@contextmanager
def standing_still(
    patch: pytest.MonkeyPatch, kind: type, method: str
) -> Iterator[list[tuple[Any, ...]]]:
    """A method that does nothing for as long as the block lasts; with what it was called."""
    gate, came = threading.Event(), list[tuple[Any, ...]]()
    whole: Callable[..., Any] = getattr(kind, method)

    def stand_still(*args: Any) -> Any:
        came.append(args)
        gate.wait(30)
        return whole(*args)

    patch.setattr(kind, method, stand_still)
    try:
        yield came
    finally:
        gate.set()


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    """One that runs, beside one that has ended."""
    (tmp_path / "in").mkdir()
    failing = {1: "decode/corrupt"}
    ended = listed_job(services, tmp_path / "out", job_id="ended", images=2)
    work(services, ended, 0, failing=failing)
    spec = listed_job(services, tmp_path / "out", images=6)
    work(services, spec, 0, 1, failing=failing)
    return spec


@pytest.mark.parametrize(
    ("kind", "method", "verb", "path"),
    [
        (JobDirectory, "_get", "GET", "/jobs/j"),
        (JobDirectory, "_get", "GET", "/jobs/j/gallery"),
        (JobDirectory, "_get", "GET", "/jobs/j/images/0"),
        (JobDirectory, "_get", "GET", "/v1/jobs/j/errors?limit=5"),
        (Shelf, "models", "GET", "/"),
        (Shelf, "models", "GET", "/new"),
        (JobDirectory, "create_spec", "POST", "/v1/jobs"),
        (JobDirectory, "create_spec", "POST", "/new"),
        (JobDirectory, "confirm", "POST", "/v1/jobs/ended/retry"),
        (JobDirectory, "confirm", "POST", "/jobs/ended/retry"),
    ],
)
def test_storage_that_stands_still_holds_up_no_cancel(
    kind: type,
    method: str,
    verb: str,
    path: str,
    client: httpx.Client,
    job: JobSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = list[str]()
    caller = Access.caller
    asked = {
        "source": (tmp_path / "in").as_uri(),
        "output": (tmp_path / "out").as_uri(),
        "model": "tiny",
    }

    def noted(self: Access, request: Request) -> Caller:
        if "endpoint" in request.scope:  # not yet where only its right to send a body is asked
            came.append(request.url.path)
        return caller(self, request)

    def ask() -> int:
        sent: dict[str, Any] = {SENT_AS[path]: asked} if path in SENT_AS else {}
        return client.request(verb, path, headers={"accept": "*/*"}, **sent).status_code

    monkeypatch.setattr(Access, "caller", noted)
    with ThreadPoolExecutor(MANY) as pool:
        with standing_still(monkeypatch, kind, method):
            asking = [pool.submit(ask) for _ in range(MANY)]
            wait_until(lambda: len(came) >= MANY, what="all of them wait")
            cancelled = client.post("/v1/jobs/j/cancel", timeout=10)
        assert cancelled.status_code == 200
        told = {one.result() for one in asking}
        assert told <= {200, 202, 503}
        assert told != {503}  # which some are told where all of them begin to stream at once


def test_storage_that_stands_still_holds_up_no_list(
    client: httpx.Client, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams of as many jobs as lists have threads wait for it, and what counts classes."""
    jobs = [f"job-{number}" for number in range(LIST_THREADS)]
    for job in jobs:
        spec = listed_job(services, tmp_path / "out", job_id=job)
        work(services, spec, 0, failing={1: "decode/corrupt"})

    with ExitStack() as streams, standing_still(monkeypatch, JobDirectory, "read_chunk") as came:
        for job in jobs:
            streams.enter_context(client.stream("GET", f"/jobs/{job}/live"))
        wait_until(lambda: len(came) > LIST_THREADS, what="all of them wait")
        lists = streams.enter_context(client.stream("GET", "/live", timeout=10))
        assert next(lists.iter_lines()) == "event: jobs"


def test_manifests_that_do_not_come_hold_up_no_thumbnail_that_is_there_and_no_gallery(
    client: httpx.Client, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    for job in ("slow", "well"):
        job_over(services, tmp_path, listed(tmp_path, "a.jpg"), job_id=job)
    first = client.get("/jobs/well/thumbnails/0")

    with ThreadPoolExecutor(READERS) as pool:
        with standing_still(monkeypatch, JobDirectory, "part_lines") as came:
            asked = [pool.submit(client.get, "/jobs/slow/thumbnails/0") for _ in range(READERS)]
            wait_until(lambda: came, what="the first waits, and the others for it")
            assert client.get("/jobs/well/thumbnails/0", timeout=10).content == first.content
            assert client.get("/jobs/well/gallery", timeout=10).status_code == 200
        assert {one.result().status_code for one in asked} == {200}


def forgetful() -> Callable[[JobFiles, JobSpec, int], ManifestRow | None]:
    """`row_at_hand` that knows nothing the first time."""
    at_hand, asked = JobFiles.row_at_hand, list[int]()

    def look(files: JobFiles, spec: JobSpec, number: int) -> ManifestRow | None:
        asked.append(number)
        return at_hand(files, spec, number) if len(asked) > 1 else None

    return look


def test_thumbnails_that_are_there_wait_for_none_that_are_not(
    client: httpx.Client, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{number}.jpg" for number in range(MAKERS + 1)]
    for key in keys:
        photo(tmp_path / "in" / key)
    job_over(services, tmp_path, *(listed(tmp_path, key) for key in keys))
    first = client.get("/jobs/j/thumbnails/0")
    assert first.headers["content-type"] == "image/webp"

    with ThreadPoolExecutor(MAKERS) as pool:
        with standing_still(monkeypatch, JobFiles, "source") as came:
            asked = [
                pool.submit(client.get, f"/jobs/j/thumbnails/{row}") for row in range(1, len(keys))
            ]
            wait_until(lambda: len(came) == MAKERS, what="all of them wait")
            # Its part of the manifest need not be at hand, as after a start.
            monkeypatch.setattr(JobFiles, "row_at_hand", forgetful())
            assert client.get("/jobs/j/thumbnails/0", timeout=10).content == first.content
        assert {one.result().status_code for one in asked} == {200}
