"""Garbage and foreign entries in the queue, and jobs that do not exist, stop nobody."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from millrace.core.celery_app import make_app
from millrace.core.chunk_queue import ChunkQueue
from millrace.core.redis_client import RedisClient
from millrace.core.settings import Settings
from tests.job_checks import check_job
from tests.support import millrace, running_worker, wait_until, write_pngs

QUEUE = "millrace.tiny:1"


def envelope(body: Any, task: str = "millrace.predict_chunk", **headers: Any) -> bytes:
    """A message as kombu writes it, with a body of our choosing."""
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": task, "id": "1", "lang": "py", **headers},
            "properties": {
                "delivery_tag": "1",
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "body_encoding": "base64",
            },
        }
    ).encode()


def call(**fields: Any) -> list[Any]:
    return [[], fields, {}]


GARBAGE = [
    b"",
    b"garbage",
    b"\xff\xfe\x00",
    b"[]",
    b"{}",
    b"null",
    b"123",
    b'{"body": "e30="}',
    b'{"properties": null}',
    envelope({}),
    envelope([]),
    envelope("text"),
    envelope(call()),
    envelope(call(v=2, job="a", chunk=0)),
    envelope(call(v=1, job="../a", chunk=0)),
    envelope(call(v=1, job="a", chunk=-1)),
    envelope(call(v=1, job="a", chunk="0")),
    envelope(call(v=1, job="a", chunk=0, extra=1)),
    envelope([[1], {"v": 1, "job": "a", "chunk": 0}, {}]),
    envelope([[], {"v": 1, "job": "a", "chunk": 0}, {"callbacks": [{"task": "x"}]}]),
    envelope(call(v=1, job="a", chunk=0), eta="2031-01-01T00:00:00"),
    envelope(call(), task="celery.chain"),
    envelope(call(), task="os.system"),
    envelope(call(v=1, job="no-such-job", chunk=0)),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pngs(tmp_path / "in", 30, digits=2)


def enqueue_and_wait(images: Path, out: Path, env: dict[str, str]) -> None:
    done = millrace(
        *("enqueue", str(images), "--model", "tiny", "--out", str(out), "--chunk-size", "4"),
        *("--wait", "--json"),
        env=env,
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert len(check_job(f"{out}/{status['job_id']}", status)) == 30


def test_a_worker_drops_what_is_no_chunk_and_goes_on(
    env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    redis = RedisClient(Settings.load(redis_url=env["MILLRACE_REDIS_URL"]))
    with running_worker("--model", "tiny", env=env, log=tmp_path / "worker.log") as worker:
        for entry in GARBAGE:
            redis.raw.lpush(QUEUE, entry)
        enqueue_and_wait(images, tmp_path / "out", env)
        wait_until(lambda: redis.raw.llen(QUEUE) == 0, 90)
        dropped = worker.log.count("dropped a message") + worker.log.count("dropped a queue entry")
        # The reconciler may have sent a chunk again that had just been sent.
        twice = worker.log.count("answer=BUSY") + worker.log.count("answer=DONE")
        assert dropped - twice == len(GARBAGE), worker.log
        assert "Traceback" not in worker.log
        assert "restarting" not in worker.log
        worker.signal()
        assert worker.wait() == 0


def test_messages_delivered_twice_or_of_unknown_chunks_count_nothing(
    env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    settings = Settings.load(redis_url=env["MILLRACE_REDIS_URL"])
    redis = RedisClient(settings)
    queue = ChunkQueue(make_app(settings), redis)
    done = millrace(
        *("enqueue", str(images), "--model", "tiny", "--out", str(tmp_path / "out")),
        *("--job-id", "mine", "--chunk-size", "4"),
        env=env,
    )
    assert done.returncode == 0, done.stderr
    for _ in range(3):
        queue.send(QUEUE, "mine", range(12))
    with running_worker("--model", "tiny", env=env, log=tmp_path / "worker.log") as worker:
        wait_until(lambda: redis.raw.llen(QUEUE) == 0, 90)
        done = millrace("status", "mine", "--watch", "--json", env=env)
        assert done.returncode == 0
        wait_until(lambda: worker.log.count("answer=DONE") + worker.log.count("answer=BUSY") > 15)
    check_job(f"{tmp_path}/out/mine", json.loads(done.stdout))


def test_celery_s_own_command_runs_the_worker(
    env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    log = tmp_path / "celery.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "millrace.worker.app", "worker"],
            env={**os.environ, **env, "MILLRACE_MODEL": "tiny"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        redis = RedisClient(Settings.load(redis_url=env["MILLRACE_REDIS_URL"]))
        wait_until(lambda: "ready" in log.read_text(), 60, "the worker is ready")
        for entry in GARBAGE:
            redis.raw.lpush(QUEUE, entry)
        enqueue_and_wait(images, tmp_path / "out", env)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        said = log.read_text()
        assert "(ChunkPool)" in said or "(pool)" in said
        for feature in ("mingle", "gossip", "pidbox"):
            assert feature not in said
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
