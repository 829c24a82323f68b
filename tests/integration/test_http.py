"""`millrace serve` over a real Redis, a real S3 endpoint and real workers, asked by its client."""

from __future__ import annotations

import inspect
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import numpy as np
import pytest
from PIL import Image

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.errors import (
    AccessDenied,
    Forbidden,
    ItemError,
    JobConflict,
    JobNotFound,
    LocationNotAllowed,
    ModelNotFound,
    NoWorkers,
    ServerUnavailable,
    Unauthenticated,
    WaitTimeout,
)
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import DUTIES
from millrace.producer import Job
from millrace.producer.client import Client, RemoteJob
from tests.job_checks import check_job
from tests.support import (
    RunningServer,
    millrace,
    random_pixels,
    running_server,
    running_worker,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("no_environment")

VIEWER, OPERATOR = "a-viewer-s-token-1234", "an-operator-s-token-1234"
IMAGES = 40


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random_pixels(number, (8, 8))).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def env(redis_url: str, repository: Path, s3: EmbeddedS3, bucket: str) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_ALLOWED_LOCATIONS": f"s3://{bucket}",
        "MILLRACE_UPLOADS": f"s3://{bucket}/uploads",
        "MILLRACE_VIEWER_TOKEN": VIEWER,
        "MILLRACE_OPERATOR_TOKEN": OPERATOR,
        **s3.environment,
    }


@pytest.fixture
def photos(bucket: str) -> str:
    """Forty pictures and a file that is none."""
    client = boto3.session.Session().client("s3")
    for number in range(IMAGES):
        client.put_object(Bucket=bucket, Key=f"in/{number:03d}.png", Body=png(number))
    client.put_object(Bucket=bucket, Key="in/broken.png", Body=b"not a picture")
    return f"s3://{bucket}/in"


@pytest.fixture
def server(env: dict[str, str], tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(env=env, log=tmp_path / "server.log") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.url, OPERATOR) as made:
        yield made


@pytest.fixture
def worker(env: dict[str, str], tmp_path: Path) -> Iterator[None]:
    with running_worker("--model", "tiny", "--threads", "1", env=env, log=tmp_path / "worker.log"):
        yield


def test_a_remote_job_has_the_surface_of_a_job() -> None:
    for name in ("status", "cancel", "pause", "resume", "wait", "results", "errors"):
        assert inspect.signature(getattr(RemoteJob, name)) == inspect.signature(getattr(Job, name))


@pytest.mark.usefixtures("worker")
def test_a_bucket_is_predicted_from_afar(
    client: Client, env: dict[str, str], photos: str, bucket: str
) -> None:
    out = f"s3://{bucket}/out"
    job = client.submit(photos, model="tiny", output=out, chunk_size=8, labels={"team": "a"})
    seen: list[float] = []
    status = job.wait(60, progress=lambda now: seen.append(now.progress), poll_s=0.05)
    assert status.state == "completed_with_errors"
    assert (status.counts.succeeded, status.counts.failed) == (IMAGES, 1)
    assert seen[-1] == 1.0
    assert status.labels == {"team": "a"}
    near = Job(Services(Settings.load(redis_url=env["MILLRACE_REDIS_URL"])), job.id)
    assert (
        [*job.results()]
        == [*near.results()]
        == check_job(f"{out}/{job.id}", status.model_dump(mode="json"))
    )
    assert [*job.errors()] == [*near.errors()]
    assert [found.job_id for found in client.jobs(labels={"team": "a"})] == [job.id]
    assert [*client.jobs(model="other")] == []

    child = job.retry(codes=["decode/not_an_image"])
    retried = child.wait(60, poll_s=0.05)
    assert retried.parent_job_id == job.id


@pytest.mark.usefixtures("worker")
def test_models_and_workers_are_listed(client: Client) -> None:
    (model,) = client.models()
    assert (model["name"], model["version"], model["live_workers"]) == ("tiny", "1", 1)
    (worker,) = client.workers()
    assert worker["model"] == "tiny:1"
    assert not worker["lost"]
    assert worker["running"]["batch_size"] >= 1


@pytest.mark.usefixtures("worker")
def test_a_picture_is_answered_as_in_a_job_and_leaves_nothing(
    client: Client, photos: str, bucket: str, env: dict[str, str]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda n: client.predict(png(n), model="tiny"), range(8))]
    job = client.submit(photos, model="tiny", output=f"s3://{bucket}/out")
    job.wait(60, poll_s=0.05)
    expected = [outcome["predictions"] for outcome in job.results() if "predictions" in outcome]
    for answer, known in zip(answers, expected, strict=False):
        assert [one["label"] for one in answer] == [one["label"] for one in known]
        assert np.allclose([o["score"] for o in answer], [o["score"] for o in known], atol=1e-4)

    assert len(client.predict(png(0), model="tiny:1", top_k=2)) == 2
    with pytest.raises(ItemError) as refused:
        client.predict(b"not a picture", model="tiny")
    assert refused.value.stage == "decode"
    with pytest.raises(ModelNotFound):
        client.predict(png(0), model="huge")

    s3 = boto3.session.Session().client("s3")
    services = Services(Settings.load(redis_url=env["MILLRACE_REDIS_URL"]))
    wait_until(
        lambda: "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="uploads/"),
        what="the pictures are gone",
    )
    wait_until(lambda: not services.redis.raw.exists(DUTIES), what="nothing is left to do")
    assert [status.job_id for status in client.jobs()] == [job.id]


def test_a_picture_that_nobody_would_answer_is_refused_at_once(client: Client) -> None:
    with pytest.raises(NoWorkers):
        client.predict(png(0), model="tiny")


def test_a_picture_that_nobody_answers_in_time_is_given_up(
    client: Client, env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    with running_worker("--model", "tiny", "--threads", "1", env=env, log=tmp_path / "w") as worker:
        worker.process.send_signal(19)  # SIGSTOP: it lives, as far as anybody knows
        for child in _children(worker.process.pid):
            child.suspend()
        try:
            began = time.monotonic()
            with pytest.raises(WaitTimeout):
                client.predict(png(0), model="tiny", timeout_s=0.5)
            assert time.monotonic() - began < 20  # the server itself would wait for thirty
            s3 = boto3.session.Session().client("s3")
            wait_until(
                lambda: "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="uploads/"),
                what="the picture is gone",
            )
            assert [*client.jobs(labels={"millrace/one-picture": "yes"})] == []
        finally:
            for child in _children(worker.process.pid):
                child.resume()
            worker.process.send_signal(18)


def _children(pid: int) -> list[Any]:
    import psutil

    return psutil.Process(pid).children(recursive=True)


def test_errors_are_those_of_a_job_that_is_near(
    client: Client, server: RunningServer, photos: str, bucket: str
) -> None:
    for name in ("none", "..", "a/b"):
        with pytest.raises(JobNotFound):
            client.job(name).status()
    with pytest.raises(JobNotFound):
        [*client.job("none").results()]
    with pytest.raises(LocationNotAllowed):
        client.submit("s3://elsewhere/in", model="tiny", output=f"s3://{bucket}/out")
    with pytest.raises(ModelNotFound):
        client.submit(photos, model="huge", output=f"s3://{bucket}/out")
    job = client.submit(photos, model="tiny", output=f"s3://{bucket}/out", job_id="mine")
    with pytest.raises(JobConflict):
        client.submit(photos, model="tiny", output=f"s3://{bucket}/other", job_id="mine")
    with pytest.raises(WaitTimeout):
        job.wait(0.2, poll_s=0.05)
    job.pause()
    assert job.status().state == "paused"
    job.resume()
    job.cancel()
    assert job.wait(30, poll_s=0.05).state == "cancelled"
    with pytest.raises(JobConflict):
        job.pause()
    with Client(server.url, VIEWER) as viewer:
        assert viewer.job("mine").status().state == "cancelled"
        with pytest.raises(Forbidden):
            viewer.job("mine").cancel()
    for token in (None, "an-unknown-token-1234"):
        with Client(server.url, token) as nobody, pytest.raises(Unauthenticated) as refused:
            nobody.job("mine").status()
        assert isinstance(refused.value, AccessDenied)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with Client("http://127.0.0.1:9", OPERATOR) as client:
        with pytest.raises(ServerUnavailable, match="no answer from"):
            client.job("j").status()
        with pytest.raises(ServerUnavailable):
            [*client.job("j").results()]


def test_health_needs_no_token_and_tells_no_more_than_that(
    server: RunningServer, env: dict[str, str]
) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        answer = http.get("/readyz")
        assert answer.json() == {"status": "ok", "redis": "ok", "storage": "ok"}


def test_a_server_without_redis_lives_but_is_not_ready(env: dict[str, str], tmp_path: Path) -> None:
    env = env | {"MILLRACE_REDIS_URL": "redis://127.0.0.1:9/0", "MILLRACE_REDIS_TIMEOUT_S": "1"}
    with (
        running_server(env=env, log=tmp_path / "log") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        assert http.get("/healthz").status_code == 200
        told = http.get("/readyz")
        assert (told.status_code, told.json()["redis"]) == (503, "unavailable")
        headers = {"authorization": f"Bearer {VIEWER}"}
        answer = http.get("/v1/jobs/j", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")


def test_a_browser_logs_in_and_acts_for_our_own_pages_alone(
    server: RunningServer, client: Client, photos: str, bucket: str
) -> None:
    client.submit(photos, model="tiny", output=f"s3://{bucket}/out", job_id="mine")
    with httpx.Client(base_url=server.url, timeout=60) as browser:
        assert browser.get("/login").status_code == 200
        wrong = browser.post("/login", data={"token": "x" * 20})
        assert (wrong.status_code, cookie_of(wrong)) == (401, None)
        entered = browser.post("/login", data={"token": OPERATOR, "next": "//evil.example"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = cookie_of(entered) or ""
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert OPERATOR not in cookie
        assert browser.get("/v1/jobs/mine").status_code == 200
        theirs = browser.post("/v1/jobs/mine/cancel", headers={"origin": "https://evil.example"})
        assert theirs.json()["code"] == "forbidden"
        ours = browser.post("/v1/jobs/mine/pause", headers={"sec-fetch-site": "same-origin"})
        assert ours.json()["state"] == "paused"
        browser.post("/logout", headers={"sec-fetch-site": "same-origin"})
        assert browser.get("/v1/jobs/mine").status_code == 401


def cookie_of(answer: httpx.Response) -> str | None:
    cookie: str | None = answer.headers.get("set-cookie")
    return cookie


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is no token"),
        (["--no-auth", "--host", "0.0.0.0"], "this machine alone"),
        (["--no-auth"], "MILLRACE_ALLOWED_LOCATIONS"),
    ],
)
def test_a_server_that_would_stand_open_does_not_start(
    arguments: list[str], told: str, redis_url: str
) -> None:
    done = millrace("serve", "--port", "0", *arguments, env={"MILLRACE_REDIS_URL": redis_url})
    assert done.returncode == 2
    assert told in done.stderr


def test_a_port_that_is_taken_is_one_line(server: RunningServer, env: dict[str, str]) -> None:
    port = server.url.rpartition(":")[2]
    done = millrace("serve", "--port", port, env=env)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
