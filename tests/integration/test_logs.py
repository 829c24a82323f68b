"""The lines of real processes: JSON, and each says which job or request it is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from millrace.core.errors import ExitCode
from tests.support import (
    millrace,
    millrace_json,
    running_server,
    running_worker,
    wait_until,
    write_pngs,
)

pytestmark = pytest.mark.usefixtures("no_environment")

OPERATOR = "an-operator-s-token-1234"


@pytest.fixture
def env(redis_url: str, repository: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_OPERATOR_TOKEN": OPERATOR,
        "MILLRACE_ALLOWED_LOCATIONS": tmp_path.as_uri(),
    }


def lines_of(text: str) -> list[dict[str, Any]]:
    """Every line is a JSON object with when, how grave, and what."""
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert {"timestamp", "level", "event"} <= line.keys(), line
    return found


def enqueue(env: dict[str, str], root: Path, job: str) -> None:
    done = millrace(
        *("enqueue", str(root / "in"), "--model", "tiny", "--out", str(root / "out")),
        *("--job-id", job, "--chunk-size", "2"),
        env=env,
    )
    # It may have ended by then.
    assert done.returncode in (ExitCode.OK, ExitCode.COMPLETED_WITH_ERRORS), done.stderr
    wait_until(lambda: millrace_json("status", job, env=env)["terminal"], 60)


FAILING = """
import millrace.worker.images as images
decode = images.ImageDecoder.decode
def fail(self, data):
    if len(data) < 20:
        raise RuntimeError("unforeseen")
    return decode(self, data)
images.ImageDecoder.decode = fail
"""
"""Lets what is no picture fail in a decoder's thread as nobody foresaw."""


def test_a_worker_s_lines_say_which_job_they_are_about(env: dict[str, str], tmp_path: Path) -> None:
    write_pngs(tmp_path / "in", 3)
    (tmp_path / "in" / "odd.png").write_bytes(b"odd")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\nif sys.argv[0] == '-m':\n"
        + "".join(f"    {line}\n" for line in FAILING.splitlines())
    )
    patched = env | {"PYTHONPATH": str(tmp_path / "site")}
    arguments = ("--model", "tiny", "--log-format", "json", "--log-level", "debug")
    with running_worker(*arguments, env=patched, log=tmp_path / "log") as worker:
        for job in ("first", "second"):
            enqueue(env, tmp_path, job)
        worker.signal()
        assert worker.wait() == 0
        lines = lines_of(worker.log)
    for job in ("first", "second"):
        about = [line["event"] for line in lines if line.get("job") == job]
        assert about.count("finished a chunk") == 2
        assert about.count("an image failed unexpectedly") == 1  # in a decoder's thread
        assert about.count("the job ended") <= 1  # or who enqueued it was the last to look
    failed = [line for line in lines if line["event"] == "an image failed unexpectedly"]
    assert {line["chunk"] for line in failed} <= {0, 1}
    assert all("RuntimeError: unforeseen" in line["exception"] for line in failed)
    alone = {line["event"] for line in lines if "job" not in line}
    assert not {event for event in alone if "chunk" in event and "stopping" not in event} - {
        "stopped: every chunk in hand was finished"
    }


def test_a_server_s_lines_say_which_request_they_are_about(
    env: dict[str, str], tmp_path: Path
) -> None:
    write_pngs(tmp_path / "in", 2)
    asked = {
        "source": (tmp_path / "in").as_uri(),
        "output": (tmp_path / "out").as_uri(),
        "model": "tiny",
        "job_id": "j",
    }
    with running_server("--log-format", "json", env=env, log=tmp_path / "log") as server:
        operator = httpx.Client(
            base_url=server.url, headers={"authorization": f"Bearer {OPERATOR}"}, timeout=30
        )
        with operator:
            given = operator.post("/v1/jobs", json=asked, headers={"x-request-id": "mine-1"})
            assert given.status_code == 202, given.text
            assert given.headers["x-request-id"] == "mine-1"
            made = operator.post("/v1/jobs/nobody/cancel")
            odd = operator.get("/healthz", headers={"x-request-id": "no blanks, please"})
        assert made.json()["request_id"] == made.headers["x-request-id"]
        assert len({made.headers["x-request-id"], odd.headers["x-request-id"], "mine-1"}) == 3
        assert odd.headers.get_list("x-request-id") == [odd.headers["x-request-id"]]
        wait_until(lambda: '"listing"' in server.log, 20)
        lines = lines_of(server.log)
    about = {(line.get("request_id"), line.get("job")) for line in lines}
    assert about - {(None, None)} == {
        ("mine-1", "j"),  # also the listing, in a thread of its own
        (made.headers["x-request-id"], "nobody"),
    }
    alone = [line["event"] for line in lines if "request_id" not in line]
    starting = ("Started server", "Waiting for application", "Application startup", "Uvicorn")
    assert all(event.startswith(starting) for event in alone), alone
    answered = {line["request_id"]: line for line in lines if line["event"] == "answered a request"}
    assert answered["mine-1"]["status"] == 202
    assert answered["mine-1"]["path"] == "/v1/jobs"
    assert answered[made.headers["x-request-id"]]["status"] == 404
    assert odd.headers["x-request-id"] not in answered  # what only reads is told in debugging


def test_commands_that_run_for_long_take_the_form(env: dict[str, str], tmp_path: Path) -> None:
    write_pngs(tmp_path / "in", 1)
    where = (str(tmp_path / "in"), "--model", "tiny", "--out", str(tmp_path / "out"))
    done = millrace("run", *where, "--log-format", "json", "--log-level", "info", "--json", env=env)
    assert done.returncode == 0, done.stderr
    events = [line["event"] for line in lines_of(done.stderr)]
    assert "finished a chunk" in events
    asked = {"run": where, "enqueue": where, "worker": ("--model", "tiny"), "serve": ()}
    for command, arguments in asked.items():
        refused = millrace(command, *arguments, "--log-format", "xml", env=env)
        assert refused.returncode == 2, refused.stderr
        assert "LOG_FORMAT" in refused.stderr
