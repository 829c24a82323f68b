"""A worker process that stands still ends itself; its supervisor starts another."""

from __future__ import annotations

from pathlib import Path

from tests.job_checks import check_job
from tests.support import millrace, millrace_json, running_worker, wait_until, write_pngs

BLOCKER = '''
"""Imported by every Python that starts: the first worker's event loop blocks for ever."""
import os, threading
from kombu.asynchronous.hub import Hub

honest = Hub.call_repeatedly

def call_repeatedly(self, delay, callback, *args, **kwargs):
    def blocked(*a, **k):
        if os.path.exists(os.environ["WEDGE"]):
            os.unlink(os.environ["WEDGE"])
            threading.Event().wait()
        return callback(*a, **k)
    return honest(self, delay, blocked, *args, **kwargs)

Hub.call_repeatedly = call_repeatedly
'''


def test_a_consumer_that_stands_still_is_replaced(tmp_path: Path, env: dict[str, str]) -> None:
    write_pngs(tmp_path / "in", 20, digits=2)
    (tmp_path / "blocker").mkdir()
    (tmp_path / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    wedge = tmp_path / "wedge"
    blocking = env | {
        "PYTHONPATH": str(tmp_path / "blocker"),
        "WEDGE": str(wedge),
        "MILLRACE_WATCHDOG_S": "5",
    }
    with running_worker("--model", "tiny", env=blocking, log=tmp_path / "log") as worker:
        wedge.touch()
        wait_until(lambda: not wedge.exists(), 90, "the loop is blocked")
        status = millrace_json(
            *("enqueue", str(tmp_path / "in"), "--model", "tiny", "--out", str(tmp_path / "out")),
            env=env,
        )
        job = status["job_id"]
        assert millrace("status", job, "--watch", env=env).returncode == 0
        assert "wedged; ending the process" in worker.log
        assert "code=71" in worker.log
    check_job(f"{tmp_path}/out/{job}", millrace_json("status", job, env=env))
