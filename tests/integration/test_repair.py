"""`millrace verify --repair`: whatever was damaged, a real worker makes the job whole again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import JobKeys
from millrace.producer.job import Job
from millrace.producer.submit import submit
from tests.job_checks import check_job
from tests.support import MILLRACE, millrace, millrace_json, running_worker, write_pngs

IMAGES = 22
CHUNK = 4

Damage = Callable[[Path, Services], None]


@pytest.fixture(scope="module")
def env(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Redis and a worker that all tests here share."""
    with EmbeddedRedis() as server:
        env = {"MILLRACE_REDIS_URL": server.url, "MILLRACE_MODELS": str(repository)}
        log = tmp_path_factory.mktemp("worker") / "log"
        with running_worker("--model", "tiny", env=env, log=log):
            yield env


@pytest.fixture
def here(env: dict[str, str]) -> Iterator[Services]:
    settings = Settings.load(redis_url=env["MILLRACE_REDIS_URL"], models=env["MILLRACE_MODELS"])
    services = Services(settings)
    services.redis.raw.delete(*(JobKeys("j").all))
    yield services
    services.redis.close()


@pytest.fixture
def job(here: Services, tmp_path: Path) -> Path:
    """The directory of a job that has ended, with an image that is none."""
    write_pngs(tmp_path / "in", IMAGES, digits=2)
    (tmp_path / "in" / "09.png").write_bytes(b"no picture")
    out = str(tmp_path / "out")
    submitted = submit(
        str(tmp_path / "in"),
        model="tiny",
        output=out,
        chunk_size=CHUNK,
        job_id="j",
        settings=here.settings,
    )
    assert submitted.wait(60).state == "completed_with_errors"
    return tmp_path / "out" / "j"


def chunk(job: Path, number: int) -> Path:
    return job / f"results/part-00000/chunk-{number:07d}.jsonl"


def remove(*names: str) -> Damage:
    def damage(job: Path, services: Services) -> None:
        for name in names:
            (job / name).unlink()

    return damage


def remove_chunks(job: Path, services: Services) -> None:
    for path in (job / "results").rglob("*.jsonl"):
        path.unlink()


def cut(job: Path, services: Services) -> None:
    whole = chunk(job, 2).read_bytes()
    chunk(job, 2).write_bytes(whole[: len(whole) // 2])


def swap(job: Path, services: Services) -> None:
    one, other = chunk(job, 1).read_bytes(), chunk(job, 4).read_bytes()
    chunk(job, 1).write_bytes(other)
    chunk(job, 4).write_bytes(one)


def shorten_errors(job: Path, services: Services) -> None:
    (job / "errors.jsonl").write_bytes(b"")


def miscount(job: Path, services: Services) -> None:
    summary = json.loads((job / "summary.json").read_text())
    summary["counts"]["failed"] += 1
    (job / "summary.json").write_text(json.dumps(summary))


def tamper(job: Path, services: Services) -> None:
    services.redis.raw.hincrby(JobKeys("j").record, "succeeded", 7)


def everything(job: Path, services: Services) -> None:
    for damage in (cut, remove("_SUCCESS", "errors.jsonl"), miscount, tamper):
        damage(job, services)
    chunk(job, 0).unlink()


DAMAGES: dict[str, Damage] = {
    "a chunk is gone": remove("results/part-00000/chunk-0000003.jsonl"),
    "all chunks are gone": remove_chunks,
    "a chunk is cut short": cut,
    "two chunks are swapped": swap,
    "the errors are gone": remove("errors.jsonl"),
    "the errors are too few": shorten_errors,
    "the summary is gone": remove("summary.json"),
    "the summary miscounts": miscount,
    "the mark of success is gone": remove("_SUCCESS"),
    "Redis miscounts": tamper,
    "all at once": everything,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_job_is_made_whole(
    env: dict[str, str], here: Services, job: Path, damage: str
) -> None:
    status = Job(here, "j").status()
    before = check_job(str(job), status.model_dump(mode="json"))
    DAMAGES[damage](job, here)
    found = millrace("verify", "j", env=env)
    assert found.returncode == 11, found.stdout
    repaired = millrace("verify", "j", "--repair", env=env)
    assert repaired.returncode == 0, repaired.stderr
    assert "images run again" in repaired.stdout
    ended = Job(here, "j").wait(60)
    assert (ended.state, ended.counts) == (status.state, status.counts)
    after = check_job(str(job), ended.model_dump(mode="json"))
    assert [without_scores(outcome) for outcome in after] == [without_scores(o) for o in before]
    for outcome, earlier in zip(after, before, strict=True):
        assert scores(outcome) == pytest.approx(scores(earlier), abs=1e-4)
    assert millrace_json("verify", "j", env=env)["ok"]


def test_only_what_is_missing_is_written(env: dict[str, str], here: Services, job: Path) -> None:
    stands = {n: chunk(job, n).stat().st_ino for n in range(6)}
    chunk(job, 5).unlink()
    cut(job, here)
    assert millrace("verify", str(job), "--repair", env=env).returncode == 0
    Job(here, "j").wait(60)
    assert {n for n, file in stands.items() if chunk(job, n).stat().st_ino == file} >= {0, 1, 3, 4}
    assert millrace_json("verify", str(job), env=env)["ok"]


def test_of_several_repairs_at_once_one_makes_the_job_whole(
    env: dict[str, str], here: Services, job: Path
) -> None:
    counts = Job(here, "j").status().counts
    cut(job, here)
    chunk(job, 5).unlink()
    asked = [*MILLRACE, "verify", "j", "--repair"]
    repairs = [
        subprocess.Popen(
            asked,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    said = [(repair.communicate(timeout=60)[0], repair.returncode) for repair in repairs]
    assert {code for _, code in said} <= {0, 7}, said
    assert any("images run again" in output for output, _ in said), said
    assert all("Traceback" not in output for output, _ in said), said
    ended = Job(here, "j").wait(60)
    assert (ended.state, ended.counts) == ("completed_with_errors", counts)
    assert millrace_json("verify", "j", env=env)["ok"]


def test_a_whole_job_is_left_alone(env: dict[str, str], here: Services, job: Path) -> None:
    before = here.redis.raw.hgetall(JobKeys("j").record)
    said = millrace("verify", "j", "--repair", env=env)
    assert said.returncode == 0
    assert "repairing" not in said.stdout
    assert here.redis.raw.hgetall(JobKeys("j").record) == before


def test_a_job_that_was_ended_early_is_refused(
    env: dict[str, str], here: Services, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").touch()
    out = str(tmp_path / "out")
    # No worker serves it.
    env = env | {"MILLRACE_MODELS": ""}
    asked = ("enqueue", str(tmp_path / "in"), "--model", "nobody", "--out", out, "--job-id", "j")
    assert millrace(*asked, env=env).returncode == 0
    assert millrace("cancel", "j", env=env).returncode == 0
    job = tmp_path / "out/j"
    (job / "errors.jsonl").unlink()
    before = here.redis.raw.hgetall(JobKeys("j").record)
    files = {str(path): path.stat().st_mtime_ns for path in job.rglob("*")}
    said = millrace("verify", "j", "--repair", env=env)
    assert said.returncode == 7, said.stdout
    assert "was ended early: cancelled" in said.stderr
    assert here.redis.raw.hgetall(JobKeys("j").record) == before
    assert {str(path): path.stat().st_mtime_ns for path in job.rglob("*")} == files


def without_scores(outcome: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if name != "predictions"}


def scores(outcome: dict[str, Any]) -> dict[int, float]:
    return {answer["index"]: answer["score"] for answer in outcome.get("predictions", ())}
