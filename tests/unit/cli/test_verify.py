"""`millrace verify`: by id and by URL, its report and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millrace.cli.embedded_server import free_port
from millrace.core.errors import ExitCode
from millrace.core.job import JobSpec
from millrace.core.services import Services
from tests.unit.cli.conftest import Invoke
from tests.unit.producer.support import listed_job, work


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """A job of six images that has ended; its first image failed."""
    made = listed_job(services, tmp_path / "out")
    work(services, made, 0, 1, 2, failing={0: "fetch/not_found"})
    return made


@pytest.fixture(params=["id", "url", "path"])
def place(request: pytest.FixtureRequest, spec: JobSpec) -> str:
    """The job as a user may name it."""
    directory = spec.directory
    return {"id": "j", "url": directory.uri, "path": directory.root}[request.param]


def nobody() -> str:
    """A Redis that is not there."""
    return f"redis://127.0.0.1:{free_port()}/0"


def test_a_job_as_it_should_be(run: Invoke, redis_url: str, place: str) -> None:
    said = run("verify", place, redis_url=redis_url)
    assert said.code == 0
    assert said.out.splitlines() == [
        "job j: completed with errors",
        "  6 images in 3 chunks",
        "  5 succeeded, 1 failed",
        "all agree",
    ]


def test_as_json(run: Invoke, redis_url: str, place: str) -> None:
    said = run("verify", place, "--json", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    shown = json.loads(said.out)
    assert (shown["ok"], shown["asked_redis"], shown["findings"]) == (True, True, [])
    assert (shown["total"], shown["by_code"]) == (6, {"fetch/not_found": 1})


def test_what_differs_is_told_and_the_check_has_failed(
    run: Invoke, redis_url: str, spec: JobSpec, place: str
) -> None:
    chunk = Path(spec.directory.root, "results/part-00000/chunk-0000001.jsonl")
    lines = chunk.read_bytes().splitlines(keepends=True)
    chunk.write_bytes(lines[1] + lines[0])
    said = run("verify", place, redis_url=redis_url)
    assert said.code == ExitCode.CHECK_FAILED
    shown = said.out.splitlines()
    assert "  3 succeeded, 1 failed, 2 without outcome" in shown
    assert "  [chunk 1] outcome of '3.jpg' where '2.jpg' was due" in shown
    findings = [line for line in shown if line.startswith("  [")]
    assert shown[-1] == f"{len(findings)} findings"
    said = run("verify", place, "--json", redis_url=redis_url)
    assert said.code == ExitCode.CHECK_FAILED
    found = json.loads(said.out)
    assert not found["ok"]
    assert len(found["findings"]) == len(findings)
    assert {"chunk 1", "summary.json", "redis"} == {item["where"] for item in found["findings"]}


def test_a_url_needs_no_redis(run: Invoke, spec: JobSpec) -> None:
    said = run("verify", spec.directory.uri, redis_url=nobody())
    assert said.code == 0
    assert "  Redis does not know it, or was not reached" in said.out.splitlines()


def test_an_id_needs_redis(run: Invoke, spec: JobSpec) -> None:
    assert run("verify", "j", redis_url=nobody()).code == ExitCode.UNAVAILABLE


def test_a_job_under_way_lacks_outcomes_and_is_well(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    work(services, listed_job(services, tmp_path), 1)
    said = run("verify", "j", redis_url=redis_url)
    assert said.code == 0
    assert "job j: running" in said.out
    assert "2 succeeded, 0 failed, 4 without outcome" in said.out


def test_a_job_that_redis_lost_half_done_fails_the_check_and_is_repaired(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    made = listed_job(services, tmp_path)
    work(services, made, 1)
    services.redis.raw.flushdb()
    place = made.directory.root
    said = run("verify", place, redis_url=redis_url)
    assert said.code == ExitCode.CHECK_FAILED
    assert "  [results] chunks without an object: 0, 2" in said.out.splitlines()
    said = run("verify", place, "--repair", redis_url=redis_url)
    assert (said.code, said.out.splitlines()[-1]) == (0, "repairing: 4 images run again")
    work(services, made, 0, 2)
    assert run("verify", place, redis_url=redis_url).code == 0


def test_a_job_under_way_is_repaired_while_it_is_paused(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    made = listed_job(services, tmp_path)
    work(services, made, 0, 1)
    Path(made.directory.root, "results/part-00000/chunk-0000001.jsonl").unlink()
    said = run("verify", "j", "--repair", redis_url=redis_url)
    assert said.code == ExitCode.CONFLICT
    assert "job j is running" in said.err
    assert "millrace pause j" in said.err
    run("pause", "j", redis_url=redis_url)
    said = run("verify", "j", "--repair", redis_url=redis_url)
    assert said.code == 0
    told = "repairing: 4 images run again after `millrace resume j`"
    assert said.out.splitlines()[-1] == told
    assert services.jobs.record("j").state == "paused"


def test_what_is_not_there_is_not_found(run: Invoke, redis_url: str, tmp_path: Path) -> None:
    for place in ("j", str(tmp_path), f"{tmp_path}/nowhere"):
        said = run("verify", place, "--json", redis_url=redis_url)
        assert (said.code, said.out) == (ExitCode.NOT_FOUND, "")
        assert json.loads(said.err)["error"]["code"] in ("job_not_found", "object_not_found")
