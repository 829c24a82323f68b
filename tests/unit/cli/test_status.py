"""`millrace status`, `jobs` and `workers` over a real Redis."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.cli.embedded_server import free_port
from millrace.core.errors import ExitCode, StorageUnavailable
from millrace.core.fleet import WorkerInfo
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.running import Running
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer import Job
from millrace.producer.page import ONE_PICTURE
from tests.unit.cli.conftest import Invoke
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_tally, a_worker, standing_job
from tests.unit.producer.support import listed_job


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """Four images, of which one succeeded and one did not."""
    made = standing_job(services, a_spec("j", output=str(tmp_path)), rows=4)
    worker = a_worker(services)
    _, lease = worker.claim(made.queue, "j", 0, MODEL)
    worker.finish(lease, a_tally(1, 1), NO_TIME)
    return made


def test_json_is_the_status_itself(
    run: Invoke, redis_url: str, services: Services, spec: JobSpec
) -> None:
    said = run("status", "j", "--json", redis_url=redis_url)
    assert said.code == 0
    shown = json.loads(said.out)
    assert shown == Job(services, "j").status().model_dump(mode="json")
    assert shown["counts"]["pending"] == 2


def test_a_person_reads_counts_errors_and_what_is_missing(
    run: Invoke, redis_url: str, spec: JobSpec
) -> None:
    shown = run("status", "j", redis_url=redis_url).out
    assert "running, no workers" in shown
    assert "tiny:1" in shown
    assert "1 decode/bad_image" in shown
    assert "\x1b" not in shown


def test_a_running_job_is_no_failure(run: Invoke, redis_url: str, spec: JobSpec) -> None:
    assert run("status", "j", redis_url=redis_url).code == ExitCode.OK


def test_watching_a_job_that_ended_exits_as_it_ended(
    run: Invoke, redis_url: str, services: Services, spec: JobSpec
) -> None:
    services.jobs.stop("j", JobState.CANCELLED, "interrupted")
    said = run("status", "j", "--watch", redis_url=redis_url)
    assert said.code == ExitCode.JOB_FAILED
    assert "cancelled (interrupted)" in said.out


def test_a_job_that_is_not_there_is_one_line_and_a_hint(run: Invoke, redis_url: str) -> None:
    said = run("status", "nobody", redis_url=redis_url)
    assert (said.code, said.out) == (ExitCode.NOT_FOUND, "")
    assert said.err == "millrace: there is no job 'nobody'\n  `millrace jobs` lists them\n"


def test_with_json_it_is_json(run: Invoke, redis_url: str) -> None:
    said = run("status", "nobody", "--json", redis_url=redis_url)
    assert (said.code, said.out) == (ExitCode.NOT_FOUND, "")
    assert json.loads(said.err)["error"]["code"] == "job_not_found"


def test_without_redis_it_is_unavailable(run: Invoke) -> None:
    said = run("status", "j", redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert said.code == ExitCode.UNAVAILABLE
    assert "cannot reach Redis" in said.err


def test_nonsense_in_the_environment_names_the_variable(
    run: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_WINDOW", "wide")
    said = run("jobs")
    assert said.code == ExitCode.USAGE
    assert said.err.startswith("millrace: MILLRACE_WINDOW: ")


def test_jobs_are_listed_newest_first(run: Invoke, redis_url: str, services: Services) -> None:
    for number in range(3):
        services.jobs.create(a_spec(f"job-{number}"))
        services.redis.raw.zadd("millrace:jobs", {f"job-{number}": number})
    shown = json.loads(run("jobs", "--json", "--limit", "2", redis_url=redis_url).out)
    assert [job["job_id"] for job in shown] == ["job-2", "job-1"]
    table = run("jobs", redis_url=redis_url).out
    assert table.index("job-2") < table.index("job-0")


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ([], ["other", "plain", "labelled"]),
        (["--state", "paused"], ["labelled"]),
        (["--state", "paused", "--state", "queued"], ["other", "plain", "labelled"]),
        (["--model", "tiny"], ["plain", "labelled"]),
        (["--model", "tiny:2"], []),
        (["--label", "team=a"], ["labelled"]),
        (["--label", "team=a", "--label", "kind=x"], []),
        (["--model", "tiny", "--limit", "1"], ["plain"]),
    ],
    ids=lambda given: " ".join(given),
)
def test_jobs_are_listed_by_what_they_are_about(
    run: Invoke, redis_url: str, services: Services, filters: list[str], named: list[str]
) -> None:
    for age, spec in enumerate(
        (
            a_spec("other", model="large"),
            a_spec("plain"),
            a_spec("labelled", labels={"team": "a"}),
            a_spec("a-picture", labels={ONE_PICTURE: ""}),
        )
    ):
        services.jobs.create(spec)
        services.redis.raw.zadd("millrace:jobs", {spec.job_id: 10 - age})
    services.jobs.pause("labelled")
    shown = json.loads(run("jobs", "--json", *filters, redis_url=redis_url).out)
    assert [job["job_id"] for job in shown] == named


def test_a_job_that_is_moved_on_by_being_looked_at_is_listed_as_what_it_became(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    overdue(services, tmp_path, "j")
    assert run("jobs", "--json", "--state", "running", redis_url=redis_url).out == "[]\n"
    shown = json.loads(run("jobs", "--json", "--state", "expired", redis_url=redis_url).out)
    assert [job["job_id"] for job in shown] == ["j"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--state", "done", "'done' is not a state\n  one of queued, "),
        ("--model", "../x", "does not name a model"),
        ("--label", "team", "expected NAME=VALUE"),
    ],
)
def test_a_filter_that_makes_no_sense_is_a_usage_error(
    run: Invoke, redis_url: str, option: str, value: str, said: str
) -> None:
    shown = run("jobs", option, value, redis_url=redis_url)
    assert shown.code == ExitCode.USAGE
    assert said in shown.err


def test_a_job_without_a_record_hides_no_other(
    run: Invoke, redis_url: str, services: Services
) -> None:
    for name in ("gone", "odd", "well"):
        services.jobs.create(a_spec(name))
    services.redis.raw.delete(JobKeys("gone").record)
    services.redis.raw.hset(JobKeys("odd").record, "state", "confused")
    said = run("jobs", "--json", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    assert [job["job_id"] for job in json.loads(said.out)] == ["well"]


def overdue(services: Services, output: Path, *names: str) -> None:
    """Jobs whose deadline is over, and nobody has looked."""
    for name in names:
        listed_job(services, output, job_id=name)
        services.redis.raw.hset(JobKeys(name).record, "deadline_ms", 1)


def test_the_list_tells_of_a_job_what_its_status_tells(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    overdue(services, tmp_path, "j")
    (shown,) = json.loads(run("jobs", "--json", redis_url=redis_url).out)
    assert (shown["state"], shown["reason"]) == ("expired", "deadline_exceeded")
    assert shown == Job(services, "j").status().model_dump(mode="json")
    assert JobDirectory(services.stores, services.jobs.spec("j").directory).read_summary()


def test_a_job_that_cannot_be_ended_breaks_no_list_and_is_tried_once(
    run: Invoke,
    redis_url: str,
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overdue(services, tmp_path, "a", "b", "c")
    tried = list[str]()

    def away(self: JobDirectory, spec: JobSpec) -> None:
        tried.append(spec.job_id)
        raise StorageUnavailable("503")

    monkeypatch.setattr(JobDirectory, "confirm", away)
    said = run("jobs", "--json", redis_url=redis_url)
    shown = {job["job_id"]: job["state"] for job in json.loads(said.out)}
    assert said.code == 0
    assert len(tried) == 1
    assert "503" in said.err
    assert sorted(shown) == ["a", "b", "c"]
    assert shown[tried[0]] == "finalizing"


@pytest.mark.parametrize("command", [("status", "j"), ("jobs",)])
def test_what_is_logged_has_the_form_that_the_environment_asks_for(
    command: tuple[str, ...],
    run: Invoke,
    redis_url: str,
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object) -> None:
        raise StorageUnavailable("503")

    overdue(services, tmp_path, "j")
    monkeypatch.setattr(JobDirectory, "confirm", away)
    monkeypatch.setenv("MILLRACE_LOG_FORMAT", "json")
    (line,) = run(*command, "--json", redis_url=redis_url).err.splitlines()
    assert (json.loads(line)["job"], json.loads(line)["level"]) == ("j", "warning")


def test_no_jobs_and_no_workers_say_so(run: Invoke, redis_url: str) -> None:
    assert run("jobs", redis_url=redis_url).out == "no jobs\n"
    assert run("workers", redis_url=redis_url).out == "no workers\n"
    assert json.loads(run("jobs", "--json", redis_url=redis_url).out) == []


def test_workers_are_listed(run: Invoke, redis_url: str, services: Services) -> None:
    info = WorkerInfo("1@host/ab", "tiny:1", "millrace.tiny", "busy", 4, 1000, 12.5, 1)
    services.fleet.announce(info)
    (shown,) = json.loads(run("workers", "--json", redis_url=redis_url).out)
    assert shown["running"] is None
    running = Running("openvino", "it takes the model", "bfloat16", 8, 32, 32, 0.9375)
    services.fleet.announce(replace(info, running=running))
    (shown,) = json.loads(run("workers", "--json", redis_url=redis_url).out)
    assert shown["running"] == {
        "engine": "openvino",
        "why": "it takes the model",
        "precision": "bfloat16",
        "batch_size": 8,
        "to_compare": 32,
        "compared": 32,
        "top_1_agreement": 0.9375,
    }
    assert (shown["worker"], shown["images"], shown["lost"]) == ("1@host/ab", 1000, False)
    assert shown["last_seen"].endswith("+00:00")
    table = run("workers", redis_url=redis_url).out
    assert "1@host" in table
    assert "1,000" in table
