"""A server is stopped or killed while it lists: nothing that was accepted is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import decode_row
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import DUTIES, JobKeys
from tests.support import ROOT, RunningServer, running_server, wait_until

pytestmark = pytest.mark.usefixtures("no_environment")

TOKEN = "an-operator-s-token-1234"
IMAGES = 40

# The real command, with parts of eight images instead of thousands, a producer's lock of two
# seconds instead of a minute, and rounds in which servers look for what is left to do.
COMMAND = """
from millrace.core import chunks, locks
chunks.PART_ROWS = 8
locks.PRODUCER_LOCK_S = 2.0
from millrace.producer.http import backend
backend.TAKE_UP_S = 0.2
{change}
from millrace.cli.main import main
main()
"""
# Stands still before the third part until the file is gone.
STANDS_STILL = """
import os, time
from millrace.core.jobdir import JobDirectory
create = JobDirectory.create_part
def create_later(self, part, rows):
    while part == 2 and os.path.exists({gate!r}):
        time.sleep(0.01)
    return create(self, part, rows)
JobDirectory.create_part = create_later
"""


def command(change: str = "") -> list[str]:
    return [sys.executable, "-c", COMMAND.format(change=change)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(IMAGES):
        (folder / f"{number:03d}.jpg").write_bytes(b"x")
    return folder


@pytest.fixture
def env(redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_ALLOWED_LOCATIONS": tmp_path.as_uri(),
        "MILLRACE_OPERATOR_TOKEN": TOKEN,
    }


@pytest.fixture
def services(env: Mapping[str, str]) -> Services:
    return Services(Settings.load(redis_url=env["MILLRACE_REDIS_URL"]))


def submit(server: RunningServer, photos: Path, tmp_path: Path) -> str:
    asked = {
        "source": photos.as_uri(),
        "output": (tmp_path / "out").as_uri(),
        "model": "tiny",
        "chunk_size": 4,
    }
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(f"{server.url}/v1/jobs", json=asked, headers=headers, timeout=30)
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    return job


def is_whole(services: Services, job: str) -> Any:
    record = services.jobs.record(job)
    return record.listing_complete and record


def assert_listed_once(services: Services, job: str, photos: Path) -> None:
    record = wait_until(lambda: is_whole(services, job), what="everything is listed")
    assert (record.counts.total, record.chunks, record.parts) == (IMAGES, 10, 5)
    directory = JobDirectory(services.stores, record.spec.directory)
    rows = [decode_row(line) for part in directory.parts() for line in directory.part_lines(part)]
    keys = [row.key for row in rows]
    assert sorted(keys) == sorted(path.name for path in photos.iterdir())
    wait_until(lambda: not services.redis.raw.exists(DUTIES), what="nothing is promised any more")


def test_the_next_server_lists_on_when_one_was_killed(
    env: dict[str, str], photos: Path, tmp_path: Path, services: Services
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    slow = command(STANDS_STILL.format(gate=str(gate)))
    with running_server(env=env, log=tmp_path / "one.log", command=slow) as server:
        job = submit(server, photos, tmp_path)
        wait_until(lambda: services.jobs.record(job).parts == 2, what="it is half listed")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    assert not is_whole(services, job)
    with running_server(env=env, log=tmp_path / "two.log", command=command()):
        assert_listed_once(services, job, photos)


def test_another_server_that_runs_beside_it_lists_on(
    env: dict[str, str], photos: Path, tmp_path: Path, services: Services
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    slow = command(STANDS_STILL.format(gate=str(gate)))
    with (
        running_server(env=env, log=tmp_path / "two.log", command=command()),
        running_server(env=env, log=tmp_path / "one.log", command=slow) as server,
    ):
        # Whichever of the two lists it: only the slow one is killed in the middle.
        job = submit(server, photos, tmp_path)
        wait_until(lambda: services.jobs.record(job).parts >= 2, what="it is half listed")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        assert_listed_once(services, job, photos)


def test_one_that_is_told_to_stop_leaves_off_and_gives_the_job_back(
    env: dict[str, str], photos: Path, tmp_path: Path, services: Services
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    slow = command(STANDS_STILL.format(gate=str(gate)))
    with running_server(env=env, log=tmp_path / "one.log", command=slow) as server:
        job = submit(server, photos, tmp_path)
        wait_until(lambda: services.jobs.record(job).parts == 2, what="it is half listed")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Shutting down" in server.log, what="it stops")
        gate.unlink()
        assert server.process.wait(30) == 0
    record = services.jobs.record(job)
    assert (record.state, record.listing_complete, record.parts) == ("enqueuing", False, 3)
    assert not services.redis.raw.exists(JobKeys(job).producer)
    with running_server(env=env, log=tmp_path / "two.log", command=command()):
        assert_listed_once(services, job, photos)


def test_the_command_lists_on_as_well(
    env: dict[str, str], photos: Path, tmp_path: Path, services: Services
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    slow = command(STANDS_STILL.format(gate=str(gate)))
    with running_server(env=env, log=tmp_path / "one.log", command=slow) as server:
        job = submit(server, photos, tmp_path)
        wait_until(lambda: services.jobs.record(job).parts == 2, what="it is half listed")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    services.redis.raw.delete(JobKeys(job).producer)
    subprocess.run([*command(), "resume", job], env={**os.environ, **env}, check=True, cwd=ROOT)
    with running_server(env=env, log=tmp_path / "two.log", command=command()):
        assert_listed_once(services, job, photos)


def test_a_paused_job_is_listed_on_and_stays_paused(
    env: dict[str, str], photos: Path, tmp_path: Path, services: Services
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    slow = command(STANDS_STILL.format(gate=str(gate)))
    with running_server(env=env, log=tmp_path / "one.log", command=slow) as server:
        job = submit(server, photos, tmp_path)
        wait_until(lambda: services.jobs.record(job).parts == 2, what="it is half listed")
        services.jobs.pause(job)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with running_server(env=env, log=tmp_path / "two.log", command=command()):
        assert_listed_once(services, job, photos)
        assert services.jobs.record(job).state == "paused"


def test_a_promise_without_a_job_is_forgotten_in_time(
    env: dict[str, str], tmp_path: Path, services: Services
) -> None:
    """Of a server that died between promising and making the job: nobody was told of it."""
    services.redis.raw.zadd(DUTIES, {"list:never-made": 1})
    with running_server(env=env, log=tmp_path / "log", command=command()):
        wait_until(lambda: not services.redis.raw.exists(DUTIES), what="it is forgotten")
