"""`millrace cancel`, `pause`, `resume`, `priority`, `retry` and `delete` over a real Redis."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import subprocess
import termios
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from millrace.cli.command import confirm
from millrace.cli.embedded_server import free_port
from millrace.core.errors import ExitCode
from millrace.core.job import JobSpec, JobState
from millrace.core.services import Services
from millrace.producer import Job
from tests.support import MILLRACE
from tests.unit.cli.conftest import Invoke
from tests.unit.core.support import MODEL, a_worker
from tests.unit.producer.support import listed_job, work

COMMANDS = {
    "cancel": ("cancel", "j"),
    "pause": ("pause", "j"),
    "resume": ("resume", "j"),
    "priority": ("priority", "j", "high"),
    "retry": ("retry", "j", "--failed"),
    "delete": ("delete", "j", "--yes"),
}
CONTROLS = ("cancel", "pause", "resume", "priority")

commands = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """A job under way: six images in three chunks."""
    return listed_job(services, tmp_path / "out")


@pytest.fixture
def ended(services: Services, spec: JobSpec) -> JobSpec:
    """It has ended; its first image and its fourth failed."""
    work(services, spec, 0, 1, 2, failing={0: "fetch/not_found", 3: "decode/bad_image"})
    return spec


def on_a_terminal(*arguments: str, redis_url: str, typed: bytes) -> tuple[int, str]:
    """The real command with a terminal of its own, where somebody types that when asked: its exit
    code and what the terminal shows."""
    here, there = pty.openpty()
    with os.fdopen(here, "r+b", buffering=0) as keyboard:
        command = subprocess.Popen(
            [*MILLRACE, *arguments],
            env={**os.environ, "MILLRACE_REDIS_URL": redis_url, "NO_COLOR": "1"},
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(there)
        too_late = threading.Timer(60, command.kill)
        too_late.start()
        shown = b""
        try:
            if typed:
                while b"[y/N]: " not in shown:
                    shown += keyboard.read(1024)
                keyboard.write(typed)
            with suppress(OSError):  # nobody is at the other end any more
                while more := keyboard.read(1024):
                    shown += more
            return command.wait(30), shown.decode().replace("\r\n", "\n")
        finally:
            too_late.cancel()
            command.kill()


def state(services: Services, job: str = "j") -> JobState:
    return services.jobs.record(job).state


# --- all of them ---


@commands
def test_what_is_not_there_is_not_found(
    run: Invoke, redis_url: str, command: tuple[str, ...]
) -> None:
    said = run(*command, redis_url=redis_url)
    assert (said.code, said.out) == (ExitCode.NOT_FOUND, "")
    assert said.err == "millrace: there is no job 'j'\n  `millrace jobs` lists them\n"
    said = run(*command, "--json", redis_url=redis_url)
    assert json.loads(said.err)["error"]["code"] == "job_not_found"


@commands
def test_without_redis_it_is_unavailable(run: Invoke, command: tuple[str, ...]) -> None:
    said = run(*command, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert said.code == ExitCode.UNAVAILABLE
    assert "cannot reach Redis" in said.err


@pytest.mark.parametrize("name", CONTROLS)
def test_what_has_ended_is_a_conflict(
    run: Invoke, redis_url: str, ended: JobSpec, name: str
) -> None:
    said = run(*COMMANDS[name], redis_url=redis_url)
    assert (said.code, said.out) == (ExitCode.CONFLICT, "")
    assert said.err.startswith("millrace: job j is completed_with_errors; it cannot be ")
    said = run(*COMMANDS[name], "--json", redis_url=redis_url)
    assert json.loads(said.err)["error"]["code"] == "job_conflict"


@pytest.mark.parametrize("name", ["retry", "delete"])
def test_what_has_not_ended_is_a_conflict(
    run: Invoke, redis_url: str, spec: JobSpec, services: Services, name: str
) -> None:
    said = run(*COMMANDS[name], redis_url=redis_url)
    assert (said.code, said.out) == (ExitCode.CONFLICT, "")
    assert said.err.startswith("millrace: job j is running")
    assert state(services) is JobState.RUNNING


@pytest.mark.parametrize("name", CONTROLS)
def test_json_is_the_status_itself(
    run: Invoke, redis_url: str, spec: JobSpec, services: Services, name: str
) -> None:
    if name == "resume":
        Job(services, "j").pause()
    said = run(*COMMANDS[name], "--json", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == Job(services, "j").status().model_dump(mode="json")


# --- cancel, pause, resume, priority ---


def test_cancel(run: Invoke, redis_url: str, spec: JobSpec, services: Services) -> None:
    said = run("cancel", "j", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    assert "cancelled (requested)" in said.out
    assert state(services) is JobState.CANCELLED


def test_cancel_tells_of_what_is_in_hand(
    run: Invoke, redis_url: str, spec: JobSpec, services: Services
) -> None:
    a_worker(services).claim(spec.queue, "j", 0, MODEL)
    said = run("cancel", "j", redis_url=redis_url)
    assert said.code == 0
    assert "cancelling (requested)" in said.out
    assert "1 on this job" in said.out


def test_pause_and_resume(run: Invoke, redis_url: str, spec: JobSpec, services: Services) -> None:
    said = run("pause", "j", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    assert "paused" in said.out
    assert state(services) is JobState.PAUSED
    said = run("resume", "j", redis_url=redis_url)
    assert said.code == 0
    assert "running, no workers" in said.out
    assert state(services) is JobState.RUNNING


@pytest.mark.parametrize(("level", "window"), [("high", 20), ("normal", 8), ("low", 8)])
def test_priority(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path, level: str, window: int
) -> None:
    spec = listed_job(services, tmp_path, images=40)
    said = run("priority", "j", level, redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    assert len(services.queue.waiting(spec.queue)) == window


@pytest.mark.parametrize("level", ["urgent", "HIGH", "", "4"])
def test_a_priority_that_makes_no_sense_is_a_usage_error(
    run: Invoke, redis_url: str, spec: JobSpec, level: str
) -> None:
    said = run("priority", "j", level, redis_url=redis_url)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert said.err == f"millrace: {level!r} is no priority: expected high, normal or low\n"


# --- retry ---


def test_retry(run: Invoke, redis_url: str, ended: JobSpec, services: Services) -> None:
    said = run("retry", "j", "--failed", "--job-id", "again", redis_url=redis_url)
    assert said.code == 0
    assert said.out.splitlines()[0] == "job again: 2 images"
    assert services.jobs.spec("again").parent_job_id == "j"


def test_retry_of_some_codes(
    run: Invoke, redis_url: str, ended: JobSpec, services: Services
) -> None:
    codes = ("--code", "bad_image", "--code", "fetch/timeout")
    said = run("retry", "j", "--failed", *codes, "--json", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    shown = json.loads(said.out)
    assert (shown["parent_job_id"], shown["counts"]["total"]) == ("j", 1)
    assert services.jobs.spec(shown["job_id"]).input.codes == ("bad_image", "fetch/timeout")


def test_retry_of_what_did_not_fail_has_no_inputs(
    run: Invoke, redis_url: str, ended: JobSpec
) -> None:
    said = run("retry", "j", "--failed", "--code", "gone", redis_url=redis_url)
    assert said.code == ExitCode.NO_INPUTS
    assert "failed (no_inputs)" in said.out


def test_retry_says_what_it_is_to_run_again(
    run: Invoke, redis_url: str, ended: JobSpec, services: Services
) -> None:
    said = run("retry", "j", "--code", "bad_image", redis_url=redis_url)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert said.err == "millrace: say what to run again:  millrace retry JOB --failed\n"
    assert services.jobs.recent_jobs(10) == ["j"]


# --- delete ---


@pytest.mark.parametrize("typed", [b"n\n", b"\n"], ids=repr)
@pytest.mark.parametrize("more", [(), ("--outputs",)], ids=str)
def test_delete_asks_and_takes_no_for_an_answer(
    redis_url: str, ended: JobSpec, services: Services, typed: bytes, more: tuple[str, ...]
) -> None:
    code, shown = on_a_terminal("delete", "j", *more, redis_url=redis_url, typed=typed)
    assert code == ExitCode.INTERRUPTED
    what = f"{ended.directory} and all in it" if "--outputs" in more else "the record of j"
    assert f"Delete {what}? [y/N]: " in shown
    assert shown.splitlines()[-1] == "millrace: nothing was deleted"
    assert state(services) is JobState.COMPLETED_WITH_ERRORS
    assert Path(ended.directory.root, "_SUCCESS").exists()


def test_ctrl_c_and_the_end_of_input_are_no_yes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(typer.Exit) as ended:
        confirm("Delete it?", otherwise="nothing was deleted")
    assert ended.value.exit_code == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.endswith("\nmillrace: nothing was deleted\n")


def test_delete_asks_and_does_as_it_is_told(
    redis_url: str, ended: JobSpec, services: Services
) -> None:
    code, shown = on_a_terminal("delete", "j", redis_url=redis_url, typed=b"y\n")
    assert (code, shown.splitlines()[-1]) == (0, "deleted j")
    assert services.jobs.recent_jobs(10) == []


def test_of_a_job_under_way_it_is_not_asked_first(redis_url: str, spec: JobSpec) -> None:
    code, shown = on_a_terminal("delete", "j", redis_url=redis_url, typed=b"")
    assert code == ExitCode.CONFLICT
    assert shown.startswith("millrace: job j is running")
    assert "Delete" not in shown


@pytest.mark.parametrize("more", [(), ("--json",), ("--outputs",)], ids=str)
def test_delete_does_not_ask_where_nobody_can_answer(
    run: Invoke, redis_url: str, ended: JobSpec, services: Services, more: tuple[str, ...]
) -> None:
    said = run("delete", "j", *more, redis_url=redis_url, typed="y\n")
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    (line,) = said.err.splitlines()
    assert "add --yes" in line
    if "--json" in more:
        assert json.loads(line)["error"]["code"] == "usage"
    assert state(services) is JobState.COMPLETED_WITH_ERRORS


def test_delete_for_scripts_does_not_ask_on_a_terminal_either(
    redis_url: str, ended: JobSpec, services: Services
) -> None:
    code, shown = on_a_terminal("delete", "j", "--json", redis_url=redis_url, typed=b"")
    assert code == ExitCode.USAGE
    assert json.loads(shown)["error"]["code"] == "usage"


@pytest.mark.parametrize("yes", ["--yes", "-y"])
def test_delete_forgets_the_job_and_keeps_its_results(
    run: Invoke, redis_url: str, ended: JobSpec, services: Services, yes: str
) -> None:
    said = run("delete", "j", yes, redis_url=redis_url)
    assert (said.code, said.out) == (0, "deleted j\n")
    assert services.jobs.recent_jobs(10) == []
    assert Path(ended.directory.root, "_SUCCESS").exists()


def test_delete_with_its_outputs(run: Invoke, redis_url: str, ended: JobSpec) -> None:
    place = Path(ended.directory.root)
    objects = sum(path.is_file() for path in place.rglob("*"))
    said = run("delete", "j", "--outputs", "--yes", redis_url=redis_url)
    assert (said.code, said.out, said.err) == (0, f"deleted j and {objects} objects\n", "")
    assert not place.exists()


def test_delete_as_json(run: Invoke, redis_url: str, ended: JobSpec) -> None:
    said = run("delete", "j", "--yes", "--json", redis_url=redis_url)
    assert said.code == 0
    assert json.loads(said.out) == {"job_id": "j", "deleted": True, "objects_removed": 0}
