"""Redis dies in the middle of a job and comes back empty: nothing is lost or counted twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.redis_server import MortalRedis
from tests.job_checks import check_job
from tests.support import millrace, millrace_json, running_worker, wait_until, write_pngs

IMAGES = 320
CHUNK = 4


@pytest.fixture
def mortal() -> Iterator[MortalRedis]:
    with MortalRedis() as server:
        yield server


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_pngs(tmp_path / "in", IMAGES, digits=4)
    for n in (7, 150, 301):
        (tmp_path / "in" / f"{n:04d}.png").write_bytes(b"no picture")
    return tmp_path / "in"


def test_a_job_outlives_its_redis(
    mortal: MortalRedis, slow_repository: Path, images: Path, tmp_path: Path
) -> None:
    env = {
        "MILLRACE_REDIS_URL": mortal.url,
        "MILLRACE_MODELS": str(slow_repository),
        "MILLRACE_LEASE_S": "5",
        "MILLRACE_RECONCILE_S": "1",
    }
    out, start = tmp_path / "out", ["--model", "slow", "--threads", "1"]
    with (
        running_worker(*start, env=env, log=tmp_path / "one.log") as one,
        running_worker(*start, env=env, log=tmp_path / "two.log") as two,
    ):
        job = millrace_json(
            *("enqueue", str(images), "--model", "slow", "--out", str(out)),
            *("--chunk-size", str(CHUNK)),
            env=env,
        )["job_id"]
        results = out / job / "results"
        wait_until(lambda: len([*results.rglob("*.jsonl")]) >= 10, 60, "some chunks are done")
        mortal.die()
        assert millrace("status", job, env=env).returncode == 5
        mortal.come_back()
        assert millrace("status", job, env=env).returncode == 4
        before = {path: path.stat().st_mtime_ns for path in results.rglob("*.jsonl")}
        assert len(before) < IMAGES // CHUNK, "the job was done before Redis died"

        restored = millrace_json("resume", f"{out}/{job}", "--from-storage", env=env)
        assert restored["job_id"] == job
        assert restored["counts"]["total"] == IMAGES
        done = restored["counts"]["succeeded"] + restored["counts"]["failed"]
        assert done >= CHUNK * len(before)
        watched = millrace("status", job, "--watch", env=env)
        assert watched.returncode == 3, watched.stderr
        assert one.process.poll() is None, one.log
        assert two.process.poll() is None, two.log

    status = millrace_json("status", job, env=env)
    outcomes = check_job(f"{out}/{job}", status)
    assert sorted(outcome["key"] for outcome in outcomes) == sorted(os.listdir(images))
    assert status["counts"]["failed"] == 3
    # What was there before is as it was: only what was missing ran again.
    assert {path: path.stat().st_mtime_ns for path in before} == before
    verified = millrace_json("verify", job, env=env)
    assert verified["ok"]
    assert verified["asked_redis"]
    expected = undisturbed(env, images, tmp_path)
    for outcome in outcomes:
        assert scores(outcome) == pytest.approx(scores(expected[outcome["key"]]), abs=1e-4)


def undisturbed(env: dict[str, str], images: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """The outcomes of the same job that nothing happens to, by key."""
    request = ("enqueue", str(images), "--model", "slow", "--out", str(tmp_path / "again"))
    with running_worker("--model", "slow", env=env, log=tmp_path / "again.log"):
        ran = millrace(*request, "--job-id", "again", "--wait", env=env)
    assert ran.returncode == 3, ran.stderr
    status = millrace_json("status", "again", env=env)
    return {outcome["key"]: outcome for outcome in check_job(f"{tmp_path}/again/again", status)}


def scores(outcome: dict[str, Any]) -> dict[int, float]:
    return {answer["index"]: answer["score"] for answer in outcome.get("predictions", ())}
