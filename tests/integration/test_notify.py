"""Ends of jobs told by real processes, some of which are killed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from millrace.core.errors import ExitCode
from tests.faults.receiver import Hangs, Received, receiver
from tests.support import (
    MILLRACE,
    millrace,
    millrace_json,
    running_server,
    running_worker,
    wait_until,
    write_pngs,
)

pytestmark = pytest.mark.usefixtures("no_environment")

KEY = b"thirty-two bytes of a secret key"


@pytest.fixture
def env(redis_url: str, repository: Path, tmp_path: Path) -> dict[str, str]:
    write_pngs(tmp_path / "in", 3)
    return {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_NOTIFY_SECRET": f"whsec_{base64.b64encode(KEY).decode()}",
        "MILLRACE_NOTIFY_HOSTS": "127.0.0.1",
        "MILLRACE_NOTIFY_BACKOFF_S": "0.2",
        "MILLRACE_RECONCILE_S": "1",
        "MILLRACE_LEASE_S": "2",
    }


def verified(came: Received) -> dict[str, Any]:
    content = f"{came.headers['webhook-id']}.{came.headers['webhook-timestamp']}.".encode()
    digest = hmac.new(KEY, content + came.body, hashlib.sha256).digest()
    assert came.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    event: dict[str, Any] = json.loads(came.body)
    return event


def where(root: Path, url: str) -> tuple[str, ...]:
    return (str(root / "in"), "--model", "tiny", "--out", str(root / "out"), "--notify", url)


def told(env: dict[str, str], job: str) -> Any:
    return millrace_json("status", job, env=env)["notification"]


def test_a_worker_tells_the_end_of_a_job_it_ran(env: dict[str, str], tmp_path: Path) -> None:
    with (
        receiver(503, 204) as there,
        running_worker("--model", "tiny", env=env, log=tmp_path / "log") as worker,
    ):
        job = millrace_json("enqueue", *where(tmp_path, there.url), "--job-id", "j", env=env)
        assert job["notification"]["to"] == f"http://127.0.0.1:{there.port}"
        wait_until(lambda: told(env, "j")["state"] == "delivered", 60)
        assert "told the end of the job" in worker.log
        assert "t0p-s3cret" not in worker.log
    first, second = map(verified, there.received)
    assert first == second
    assert second["job_id"] == "j"
    assert second["state"] == "succeeded"
    assert second["counts"]["succeeded"] == 3
    shown = millrace("status", "j", env=env).stdout
    assert f"delivered: http://127.0.0.1:{there.port}, 2 tries" in shown
    assert "t0p-s3cret" not in shown


def test_when_its_sender_is_killed_another_process_tells_it(
    env: dict[str, str], tmp_path: Path
) -> None:
    """Killed amid a try, whose lease then has to run out."""
    with receiver(Hangs(), 204) as there:
        with running_worker("--model", "tiny", env=env, log=tmp_path / "first") as worker:
            millrace_json("enqueue", *where(tmp_path, there.url), "--job-id", "j", env=env)
            wait_until(lambda: there.received, 60, "it is trying")
            worker.signal(signal.SIGKILL)
            worker.wait()
        assert told(env, "j")["state"] == "waiting"
        _let_the_lease_run_out(env)
        server = env | {
            "MILLRACE_VIEWER_TOKEN": "a-viewer-s-token-1234",
            "MILLRACE_ALLOWED_LOCATIONS": tmp_path.as_uri(),
        }
        with running_server(env=server, log=tmp_path / "server"):  # no worker is there any more
            wait_until(lambda: told(env, "j")["state"] == "delivered", 60)
    assert [verified(came)["job_id"] for came in there.received] == ["j", "j"]
    assert told(env, "j")["attempts"] == 2


def _let_the_lease_run_out(env: dict[str, str]) -> None:
    """It takes two minutes and more: put the clock of this one forward."""
    from millrace.core.redis_client import RedisClient
    from millrace.core.settings import Settings
    from millrace.core.topology import NOTIFICATIONS

    redis = RedisClient(Settings.load(redis_url=env["MILLRACE_REDIS_URL"]))
    assert redis.raw.zscore(NOTIFICATIONS, "j") is not None
    redis.raw.zadd(NOTIFICATIONS, {"j": 0}, xx=True)
    redis.close()


def test_run_tells_the_end_before_its_redis_is_gone(env: dict[str, str], tmp_path: Path) -> None:
    with receiver(500, 204) as there:
        done = millrace("run", *where(tmp_path, there.url), "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["notification"]["state"] == "delivered"
    assert len({verified(came)["event_id"] for came in there.received}) == 1


def test_run_tells_of_a_model_that_does_not_load(env: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"this is no graph")
    with receiver(500, 204) as there:
        images, _, _, *rest = where(tmp_path, there.url)
        model = ("--model", str(broken), "--size", "8", "--channels", "L")
        done = millrace("run", images, *model, *rest, env=env)
    assert done.returncode == ExitCode.MODEL, done.stderr
    first, second = map(verified, there.received)
    assert first == second
    assert (first["state"], first["reason"]) == ("failed", "model_load_failed")


def test_run_tells_of_a_listing_that_fails(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text('0.png\n{"key": 7}\n')
    with receiver() as there:
        done = millrace(
            *("run", *where(tmp_path, there.url), "--manifest", str(tmp_path / "keys")), env=env
        )
    assert done.returncode not in (0, ExitCode.INTERNAL), done.stderr
    (event,) = map(verified, there.received)
    assert (event["state"], event["reason"]) == ("failed", "input_listing_failed")


SLOW = """
import sys, time
if "millrace.worker.process" in sys.orig_argv:
    import millrace.worker.images as images
    decode = images.ImageDecoder.decode
    def slowly(self, data):
        time.sleep(0.5)
        return decode(self, data)
    images.ImageDecoder.decode = slowly
"""


@pytest.mark.parametrize("answer", [204, 500])
def test_run_tries_to_tell_of_ctrl_c_once(answer: int, env: dict[str, str], tmp_path: Path) -> None:
    write_pngs(tmp_path / "in", 60)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SLOW)
    with receiver(answer) as there:
        process = subprocess.Popen(
            [*MILLRACE, "run", *where(tmp_path, there.url), "--chunk-size", "2", "--job-id", "j"],
            env={**os.environ, **env, "PYTHONPATH": str(tmp_path / "site"), "MILLRACE_SLOTS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        results = tmp_path / "out" / "j" / "results"
        wait_until(lambda: list(results.rglob("*.jsonl")), 60, "a chunk is done")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, said
    assert ("was not told: answered 500" in said) == (answer == 500)
    events = [*map(verified, there.received)]
    assert {(event["state"], event["reason"]) for event in events} == {("cancelled", "interrupted")}
    assert len({event["event_id"] for event in events}) == 1


@pytest.mark.parametrize("command", ["run", "enqueue"])
@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "https://10.0.0.1/", "ftp://example.org/", "x"]
)
def test_what_is_never_notified_is_refused_at_once(
    command: str, url: str, env: dict[str, str], tmp_path: Path
) -> None:
    done = millrace(command, *where(tmp_path, url), env=env)
    assert done.returncode == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


def test_run_wants_the_secret(env: dict[str, str], tmp_path: Path) -> None:
    done = millrace(
        "run", *where(tmp_path, "http://127.0.0.1:1/"), env=env | {"MILLRACE_NOTIFY_SECRET": ""}
    )
    assert done.returncode == ExitCode.USAGE
    assert "MILLRACE_NOTIFY_SECRET" in done.stderr
