"""`millrace resume`: a paused job, a half listed one, and one that Redis lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millrace.core import status
from millrace.core.errors import ExitCode
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.locks import producing, rebuilding
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.producer import Job
from millrace.producer.control import cancel, pause
from tests.unit.cli.conftest import Invoke
from tests.unit.core.support import a_spec, created
from tests.unit.producer.support import listed_job, work


@pytest.fixture
def lost(services: Services, tmp_path: Path) -> JobSpec:
    """A job of six images, of which two have an outcome and Redis knows nothing."""
    spec = listed_job(services, tmp_path)
    work(services, spec, 1)
    services.redis.raw.flushall()
    return spec


@pytest.fixture
def half(services: Services, tmp_path: Path) -> JobSpec:
    """A job whose producer died before it had listed anything."""
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.jpg").touch()
    spec = a_spec("j", input={"uri": str(tmp_path / "in")}, output=str(tmp_path / "out"))
    return created(services, spec)


def url(spec: JobSpec) -> str:
    return spec.directory.uri


def test_a_lost_job_is_restored_from_its_directory(
    run: Invoke, redis_url: str, services: Services, lost: JobSpec
) -> None:
    said = run("resume", url(lost), "--from-storage", "--json", redis_url=redis_url)
    assert said.code == 0, said
    shown = json.loads(said.out)
    assert shown == Job(services, "j").status().model_dump(mode="json")
    assert (shown["counts"]["succeeded"], shown["counts"]["pending"]) == (2, 4)
    assert services.queue.waiting(lost.queue) == {("j", 0), ("j", 2)}


def test_a_job_that_is_being_repaired_is_not_resumed(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    listed_job(services, tmp_path)
    pause(services, "j")
    with rebuilding(services.redis, "j"):
        said = run("resume", "j", redis_url=redis_url)
        assert said.code == ExitCode.CONFLICT
        assert said.err.startswith("millrace: job j is being repaired; it cannot be resumed\n")
        assert Job(services, "j").status().state is JobState.PAUSED
    assert run("resume", "j", redis_url=redis_url).code == 0


def test_its_directory_may_be_a_path(run: Invoke, redis_url: str, lost: JobSpec) -> None:
    said = run("resume", lost.directory.root, "--from-storage", redis_url=redis_url)
    assert said.code == 0, said
    assert "running" in said.out


def test_twice_is_a_conflict(run: Invoke, redis_url: str, lost: JobSpec) -> None:
    assert run("resume", url(lost), "--from-storage", redis_url=redis_url).code == 0
    said = run("resume", url(lost), "--from-storage", redis_url=redis_url)
    assert (said.code, said.err) == (ExitCode.CONFLICT, "millrace: Redis knows job j\n")


def test_a_lost_job_is_not_known_by_its_id(run: Invoke, redis_url: str, lost: JobSpec) -> None:
    assert run("resume", "j", redis_url=redis_url).code == ExitCode.NOT_FOUND


def test_an_empty_directory_holds_no_job(run: Invoke, redis_url: str, tmp_path: Path) -> None:
    said = run("resume", str(tmp_path), "--from-storage", redis_url=redis_url)
    assert said.code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("arguments", [("j", "--from-storage"), ("file:///out/j",)])
def test_the_url_and_the_option_go_together(
    run: Invoke, redis_url: str, arguments: tuple[str, ...]
) -> None:
    said = run("resume", *arguments, redis_url=redis_url)
    assert said.code == ExitCode.USAGE
    assert "go together" in said.err


def test_a_lost_job_that_was_half_listed_is_listed(
    run: Invoke, redis_url: str, services: Services, half: JobSpec
) -> None:
    services.redis.raw.flushall()
    said = run("resume", url(half), "--from-storage", "--json", redis_url=redis_url)
    assert said.code == 0, said
    shown = json.loads(said.out)
    assert (shown["counts"]["total"], shown["input"]["listing_complete"]) == (3, True)


def test_a_half_listed_job_is_listed(
    run: Invoke, redis_url: str, services: Services, half: JobSpec
) -> None:
    said = run("resume", "j", "--json", redis_url=redis_url)
    assert said.code == 0, said
    assert json.loads(said.out)["counts"]["total"] == 3


def test_without_a_producer_the_status_says_so(
    run: Invoke,
    redis_url: str,
    services: Services,
    half: JobSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status, "UNLISTED_AFTER_S", -1)
    said = run("status", "j", redis_url=redis_url)
    assert "no producer" in said.out
    run("resume", "j", redis_url=redis_url)
    assert "no producer" not in run("status", "j", redis_url=redis_url).out


def test_a_job_that_is_being_listed_is_a_conflict(
    run: Invoke, redis_url: str, services: Services, half: JobSpec
) -> None:
    with producing(services.redis, "j"):
        said = run("resume", "j", redis_url=redis_url)
    assert said.code == ExitCode.CONFLICT
    first, hint = said.err.splitlines()
    assert first == "millrace: the input of job j is being listed by another process"
    assert "runs out within a minute" in hint


def test_a_paused_job_goes_on(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    listed_job(services, tmp_path)
    pause(services, "j")
    said = run("resume", "j", "--json", redis_url=redis_url)
    assert (said.code, json.loads(said.out)["state"]) == (0, JobState.RUNNING)


def test_a_job_that_has_ended_is_a_conflict(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    cancel(services, "j")
    assert run("resume", "j", redis_url=redis_url).code == ExitCode.CONFLICT
    services.redis.raw.flushall()
    said = run("resume", url(spec), "--from-storage", redis_url=redis_url)
    assert said.code == ExitCode.CONFLICT
    assert "ended early: cancelled" in said.err


def test_a_manifest_with_a_hole_is_said_to_be(
    run: Invoke, redis_url: str, services: Services, half: JobSpec
) -> None:
    JobDirectory(services.stores, half.directory).create_part(1, [ManifestRow("a")])
    said = run("resume", "j", redis_url=redis_url)
    assert said.code not in (0, ExitCode.CONFLICT)
    assert "parts of the manifest are missing" in said.err
