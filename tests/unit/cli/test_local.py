"""The crew of `millrace run`: real processes that fail by themselves, or for good."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from millrace.cli.local import FIRST_FAILURES, _pinned, crew_of
from millrace.core.errors import ExitCode
from millrace.worker import supervisor
from tests.support import capture_logs, wait_until
from tests.unit.core.support import a_spec
from tests.unit.worker.test_supervisor import Hasty

pytestmark = pytest.mark.usefixtures("no_environment")


def test_processes_that_die_at_every_start_keep_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "time", Hasty)
    dying = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "sitecustomize.py").write_text(dying)
    with capture_logs() as logs, crew_of(1, {"PYTHONPATH": str(tmp_path)}) as crew:
        assert not crew.keeps_failing
        wait_until(lambda: crew.keeps_failing, 20, "they keep failing")
        assert sum("restarting" in entry["event"] for entry in logs) >= FIRST_FAILURES
        assert not crew.gone.is_set()
    assert crew.code == ExitCode.OK


def test_processes_that_end_for_good_do_not_keep_failing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = {
        "MILLRACE_SAVED_MODEL": str(tmp_path),
        "MILLRACE_NAME": "none",
        "MILLRACE_SIZE": "8",
    }
    with crew_of(2, nowhere) as crew:
        assert crew.gone.wait(30)
        assert crew.code == ExitCode.NOT_FOUND
        assert not crew.keeps_failing
    assert "holds no SavedModel" in capfd.readouterr().err


def test_a_ctrl_c_amid_the_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    spawn = supervisor.Supervisor._spawn

    def interrupted(self: supervisor.Supervisor, slot: supervisor._Slot) -> None:
        if started:
            raise KeyboardInterrupt
        spawn(self, slot)
        assert slot.process is not None
        started.append(slot.process)

    monkeypatch.setattr(supervisor.Supervisor, "_spawn", interrupted)
    with pytest.raises(KeyboardInterrupt), crew_of(2, {}):
        pass
    assert started[0].returncode is not None


def test_processes_that_start_again_serve_the_version_the_job_is_for() -> None:
    pinned = a_spec(model={"name": "tiny", "version": "3", "digest": "sha256:abc"})
    assert _pinned(pinned) == {"MILLRACE_MODEL": "tiny:3"}
    # Of a directory's model there is one.
    assert _pinned(a_spec(model="tiny")) == {}
