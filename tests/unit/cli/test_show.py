"""What people read: the same facts as the JSON, and no key mistaken for markup."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from millrace.cli import show
from millrace.core.errors import ExitCode
from millrace.core.fleet import SeenWorker, WorkerInfo
from millrace.core.job import JobState
from millrace.core.jobstore import Snapshot
from millrace.core.record import JobRecord, initial_fields
from millrace.core.running import Running
from millrace.core.status import JobStatus, status_of
from millrace.producer.preview import Preview
from tests.unit.core.support import a_spec

NOW = 1_700_000_000_000


def a_status(*, spec: Any = None, by_code: dict[str, int] | None = None, **what: Any) -> JobStatus:
    fields = {
        **initial_fields(spec or a_spec("j")),
        "state": "running",
        "listing_complete": 1,
        "total": 12_345,
        "created_ms": NOW,
        "updated_ms": NOW,
        **what,
    }
    hashed = {name.encode(): str(value).encode() for name, value in fields.items()}
    pace = [(NOW, 100), (NOW - 10_000, 1)]
    record = JobRecord.read(hashed)
    return status_of(Snapshot(record, by_code or {}, [], pace, NOW, ["w/1"], live_workers=2))


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("succeeded", "", ExitCode.OK),
        ("completed_with_errors", "", ExitCode.COMPLETED_WITH_ERRORS),
        ("failed", "", ExitCode.JOB_FAILED),
        ("failed", "no_inputs", ExitCode.NO_INPUTS),
        ("failed", "model_load_failed", ExitCode.JOB_FAILED),
        ("cancelled", "interrupted", ExitCode.JOB_FAILED),
        ("expired", "", ExitCode.JOB_FAILED),
    ],
)
def test_a_job_ends_with_its_exit_code(state: str, reason: str, code: ExitCode) -> None:
    assert show.exit_code(a_status(state=state, reason=reason)) is code


def test_the_bottleneck_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show.status(a_status(infer_us=600, wait_decode_us=400))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "bottleneck" in line)
    assert "decode-bound: add CPU or processes (the model was busy 60%)" in line


def test_without_a_measure_there_is_no_bottleneck(capsys: pytest.CaptureFixture[str]) -> None:
    show.status(a_status(infer_us=600))
    assert "bottleneck" not in capsys.readouterr().out


def test_a_running_job_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    show.status(
        a_status(succeeded=345, failed=1000, by_code={"fetch/gone": 10, "decode/bad_image": 990})
    )
    shown = capsys.readouterr().out
    assert "12,345" in shown
    assert "11,000" in shown
    assert "10.0 images/s, about 18 min left" in shown
    assert "1 on this job, 2 live" in shown
    assert shown.index("990 decode/bad_image") < shown.index("10 fetch/gone")
    assert "skipped" not in shown


def test_a_job_still_being_listed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show.status(a_status(listing_complete=0))
    assert "12,345 (still listing)" in capsys.readouterr().out


def test_a_finished_job_names_no_workers(capsys: pytest.CaptureFixture[str]) -> None:
    show.status(a_status(state="cancelled", reason="interrupted", cancelled=12_345))
    shown = capsys.readouterr().out
    assert "cancelled (interrupted)" in shown
    assert "workers" not in shown


def test_what_looks_like_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    spec = a_spec("j", input={"uri": "s3://b/[red]x[/red]"}, output="s3://b/[bold]")
    show.status(a_status(spec=spec, by_code={"decode/[link]": 1}))
    shown = capsys.readouterr().out
    assert "s3://b/[red]x[/red]" in shown
    assert "s3://b/[bold]/j/results/" in shown
    assert "decode/[link]" in shown


def test_a_submitted_job_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = a_status().model_copy(update={"health": "no_workers"})
    show.submitted(nobody)
    shown = capsys.readouterr().out
    assert "job j: 12,345 images" in shown
    assert "millrace worker --model tiny" in shown
    assert "millrace status j --watch" in shown


def test_a_submitted_job_that_ended_at_once_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ended = a_status(state="failed", reason="no_inputs", total=0)
    show.submitted(ended)
    shown = capsys.readouterr().out
    rows = [line.split()[0] for line in shown.splitlines()]
    assert rows[:5] == ["job", "state", "model", "input", "images"]
    assert rows[-1] == "results"
    assert "failed (no_inputs)" in shown
    assert "--watch" not in shown
    show.status(ended)
    assert capsys.readouterr().out == shown


def test_jobs_are_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    show.jobs([a_status(succeeded=6172), a_status(spec=a_spec("other"), state="paused")])
    first, *rows = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["job", "state", "model"]
    assert [row.split()[0] for row in rows] == ["j", "other"]
    assert "50%" in rows[0]


def test_workers_that_are_silent_are_lost(capsys: pytest.CaptureFixture[str]) -> None:
    info = WorkerInfo("1@host/ab", "tiny:1", "q", "busy", 4, 10, 1.0, 1)
    show.workers([SeenWorker(info, datetime.now(UTC), 61), SeenWorker(info, datetime.now(UTC), 59)])
    _, lost, busy = capsys.readouterr().out.splitlines()
    assert "lost" in lost
    assert "busy" in busy


def test_workers_tell_how_they_run_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    loading = WorkerInfo("1@host/ab", "tiny:1", "q", "loading", 4, 0, 0.0, 1)
    plain = replace(loading, running=Running("tensorflow", "it was asked for", "float32", 16))
    low = replace(loading, running=Running("openvino", "it is fast", "bfloat16", 8, 32, 32, 0.9375))
    show.workers([SeenWorker(info, datetime.now(UTC), 1) for info in (loading, plain, low)])
    header, first, second, third = capsys.readouterr().out.splitlines()
    assert header.split()[3:5] == ["engine", "batch"]
    assert first.split()[:4] == ["1@host", "tiny:1", "loading", "0"]
    assert "tensorflow float32     " in second
    assert second.split()[5] == "16"
    assert "openvino bfloat16, 93.8% as float32" in third


def test_a_preview_says_that_nothing_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    found = Preview(
        job_id="j",
        images=2,
        bytes=2000,
        chunks=1,
        types={".jpg": 2},
        first_keys=["[a].jpg", "b.jpg"],
        model={"name": "tiny", "version": "1"},
        output="s3://b/out/j",
        standing=3,
        output_problem=None,
    )
    show.preview(found)
    shown = capsys.readouterr().out
    assert "2 in 1 chunks" in shown
    assert "[a].jpg" in shown
    assert "tiny:1" in shown
    assert "3 objects stand there already" in shown
    assert "can be written" in shown
    assert shown.endswith("nothing was enqueued\n")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7200, "2 h ago"),
        (3 * 86400, "3 d ago"),
        (-5, "0 s ago"),
    ],
)
def test_a_time_is_told_in_its_largest_unit(seconds: int, shown: str) -> None:
    assert show.ago(datetime.now(UTC) - timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize("state", JobState)
def test_every_state_can_be_shown(state: JobState, capsys: pytest.CaptureFixture[str]) -> None:
    show.status(a_status(state=state))
    assert state.replace("_", " ") in capsys.readouterr().out
