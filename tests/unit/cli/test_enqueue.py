"""`millrace enqueue` over a real Redis: dry runs, submissions, and how they exit."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from millrace.core.errors import ExitCode
from millrace.core.services import Services
from tests.unit.cli.conftest import Invoke, Said


class Enqueue:
    """The command on five files that pass for images."""

    def __init__(self, run: Invoke, redis_url: str, folder: Path) -> None:
        self.photos, self.out = folder / "photos", folder / "out"
        self.photos.mkdir()
        for number in range(5):
            (self.photos / f"{number}.jpg").write_bytes(b"image")
        self._run = run
        self._redis_url = redis_url

    def __call__(self, *more: str) -> Said:
        wanted = [str(self.photos), "--model", "tiny", "--out", str(self.out)]
        return self._run("enqueue", *wanted, *more, redis_url=self._redis_url)


@pytest.fixture
def enqueue(run: Invoke, redis_url: str, tmp_path: Path) -> Enqueue:
    return Enqueue(run, redis_url, tmp_path)


def test_a_job_is_submitted_and_its_id_told(enqueue: Enqueue, services: Services) -> None:
    said = enqueue("--job-id", "j", "--chunk-size", "2")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == "job j: 5 images"
    assert services.jobs.record("j").chunks == 3


def test_with_json_the_status_is_all_there_is(enqueue: Enqueue) -> None:
    said = enqueue("--json")
    shown = json.loads(said.out)
    assert (shown["state"], shown["counts"]["total"]) == ("running", 5)
    assert said.err == ""


def test_options_reach_the_spec(enqueue: Enqueue, services: Services) -> None:
    enqueue(
        *("--job-id", "j", "--include", "*.jpg", "--include", "*.png", "--exclude", "0*"),
        *("--priority", "high", "--top-k", "3", "--layout", "per-image"),
    )
    spec = services.jobs.spec("j")
    assert (spec.input.include, spec.input.exclude) == (("*.jpg", "*.png"), ("0*",))
    assert (spec.priority, spec.top_k, spec.layout) == ("high", 3, "per-image")


def test_labels_reach_the_spec_and_the_status(enqueue: Enqueue, services: Services) -> None:
    said = enqueue("--job-id", "j", "--label", "team=catalogue", "--label", "note=a=b", "--json")
    labels = {"team": "catalogue", "note": "a=b"}
    assert services.jobs.spec("j").labels == json.loads(said.out)["labels"] == labels
    refused = enqueue("--label", "catalogue")
    assert (refused.code, "NAME=VALUE" in refused.err) == (ExitCode.USAGE, True)


def test_a_variable_stands_for_an_option(
    enqueue: Enqueue, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_JOB_ID", "from-the-environment")
    monkeypatch.setenv("MILLRACE_CHUNK_SIZE", "1")
    enqueue()
    assert services.jobs.record("from-the-environment").chunks == 5


def test_the_patterns_of_a_variable_are_separated_by_spaces(
    enqueue: Enqueue, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_INCLUDE", "0.jpg 1.jpg")
    enqueue("--job-id", "j")
    assert services.jobs.spec("j").input.include == ("0.jpg", "1.jpg")
    assert services.jobs.record("j").counts.total == 2


def test_a_dry_run_makes_no_job(enqueue: Enqueue, services: Services) -> None:
    said = enqueue("--dry-run", "--json")
    shown = json.loads(said.out)
    assert (said.code, shown["images"], shown["chunks"]) == (0, 5, 1)
    assert services.jobs.recent_jobs(10) == []
    assert "nothing was enqueued" in enqueue("--dry-run").out


def test_a_dry_run_over_nothing_says_so_by_its_exit_code(enqueue: Enqueue) -> None:
    assert enqueue("--dry-run", "--include", "*.png").code == ExitCode.NO_INPUTS


def test_a_dry_run_says_that_the_output_cannot_be_written(enqueue: Enqueue) -> None:
    enqueue.out.touch()
    said = enqueue("--dry-run")
    assert said.code == ExitCode.CHECK_FAILED


def test_a_job_over_nothing_exits_as_such(enqueue: Enqueue) -> None:
    said = enqueue("--include", "*.png")
    assert said.code == ExitCode.NO_INPUTS
    assert "failed (no_inputs)" in said.out


def test_waiting_in_vain_times_out_and_the_job_goes_on(
    enqueue: Enqueue, services: Services
) -> None:
    said = enqueue("--job-id", "j", "--wait", "--timeout", "0")
    assert said.code == ExitCode.TIMEOUT
    assert said.out == "job j\n"
    assert "has not ended within 0 s" in said.err
    assert services.jobs.record("j").state == "running"


def test_another_job_under_the_same_id_is_a_conflict(enqueue: Enqueue) -> None:
    enqueue("--job-id", "j")
    assert enqueue("--job-id", "j").code == 0
    said = enqueue("--job-id", "j", "--top-k", "1")
    assert said.code == ExitCode.CONFLICT
    assert "choose another --job-id" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--job-id", "a/b"], ExitCode.USAGE, "job_id"),
        (["--priority", "urgent"], ExitCode.USAGE, "priority"),
        (["--include", "["], ExitCode.USAGE, "set"),
        (["--manifest", "/no/where"], ExitCode.NOT_FOUND, "where does not exist"),
        (["--models", "/no/where"], ExitCode.NOT_FOUND, "no model repository"),
        (["--out", "http://x"], ExitCode.USAGE, "unknown scheme"),
    ],
    ids=lambda value: str(value),
)
def test_what_makes_no_sense_is_one_line(
    enqueue: Enqueue, arguments: list[str], code: ExitCode, words: str
) -> None:
    said = enqueue(*arguments)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith("millrace: ")
    assert words in said.err


def test_with_json_an_error_is_json(enqueue: Enqueue) -> None:
    said = enqueue("--json", "--job-id", "a/b")
    assert json.loads(said.err)["error"]["code"] == "usage"


def test_limits_reach_the_spec(enqueue: Enqueue, services: Services) -> None:
    enqueue("--job-id", "j", "--error-threshold", "5%", "--deadline", "2h")
    record = services.jobs.record("j")
    assert (record.spec.error_threshold, record.spec.deadline) == ("5%", "2h")
    expected = record.spec.created_at + timedelta(hours=2)
    assert record.deadline is not None
    assert abs(record.deadline - expected) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("option", "value"), [("--error-threshold", "some"), ("--deadline", "tomorrow")]
)
def test_a_limit_that_makes_no_sense_is_a_usage_error(
    enqueue: Enqueue, services: Services, option: str, value: str
) -> None:
    said = enqueue(option, value)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert f"{value!r} is no {option.rpartition('-')[2]}" in said.err
    assert services.jobs.recent_jobs(1) == []
