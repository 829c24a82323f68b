"""A producer is killed while it lists: the job is gone on with, and nothing is listed twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import decode_row
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.core.topology import JobKeys
from millrace.producer.job import Job
from tests.job_checks import check_job
from tests.support import MILLRACE, ROOT, millrace, millrace_json, running_worker, wait_until

PART = 8192

# The real command, in a process that may die at a chosen moment. A part of eight images saves
# filling a bucket with thousands.
SMALL_PARTS = "from millrace.core import chunks; chunks.PART_ROWS = 8"
DIES_BEFORE_PUBLISHING = """
import os, signal
from millrace.core.jobstore import JobStore
publish = JobStore.publish_part
def publish_or_die(self, job, part, rows, chunks):
    if part == {part}:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(self, job, part, rows, chunks)
JobStore.publish_part = publish_or_die
"""
DIES_AFTER_PUBLISHING = """
import os, signal
from millrace.core.feed import Feeder
feed, parts = Feeder.feed, []
def feed_and_die(self, spec):
    sent = feed(self, spec)
    parts.append(sent)
    if len(parts) == {part} + 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return sent
Feeder.feed = feed_and_die
"""
DEATHS = {"before publishing": DIES_BEFORE_PUBLISHING, "after publishing": DIES_AFTER_PUBLISHING}
MAIN = "from millrace.cli.main import main; main()"


@pytest.fixture
def env(redis_url: str) -> dict[str, str]:
    return {"MILLRACE_REDIS_URL": redis_url}


def changed(*changes: str) -> list[str]:
    """The command with something about it changed."""
    return [sys.executable, "-c", "\n".join([*changes, MAIN])]


def run(command: list[str], *arguments: str, env: Mapping[str, str]) -> tuple[int, str]:
    """A command's exit code and what it said on standard error."""
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def manifest(services: Services, output: str) -> list[str]:
    """The keys of job `j`."""
    directory = JobDirectory(services.stores, Location.parse(output).child("j"))
    lines = (line for part in directory.parts() for line in directory.part_lines(part))
    return [decode_row(line).key for line in lines]


def let_its_lock_expire(services: Services) -> None:
    """It takes a minute: go without that."""
    services.redis.raw.pexpire(JobKeys("j").producer, 1)
    wait_until(lambda: Job(services, "j").status().health == "no_producer", 90, "it has expired")


@contextmanager
def listing(rows: list[str], pipe: Path, out: Path, env: Mapping[str, str]) -> Iterator[Any]:
    """A real `millrace enqueue` that has read these rows of a manifest and waits for more."""
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [
            *(*MILLRACE, "enqueue", str(out.parent), "--model", "any", "--out", str(out)),
            *("--manifest", str(pipe), "--job-id", "j"),
        ],
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with pipe.open("w") as feed:
            feed.writelines(rows)
            feed.flush()
            yield process
    except BrokenPipeError:
        pass  # its reader was killed
    finally:
        process.kill()
        process.wait()


def test_a_killed_enqueue_is_gone_on_with(
    services: Services, env: dict[str, str], tmp_path: Path
) -> None:
    rows = [f"{n:05d}.jpg\n" for n in range(2 * PART + 100)]
    pipe, out = tmp_path / "list.txt", tmp_path / "out"
    with listing(rows[: PART + 50], pipe, out, env) as producer:
        first = wait_until(
            lambda: (found := services.jobs.recent_jobs(1)) and services.jobs.record(found[0]), 30
        )
        wait_until(lambda: services.jobs.record("j").parts == 1, 30, "a part is told")
        assert not first.listing_complete
        # It lives and waits for its manifest: nobody else may list.
        refused = millrace("resume", "j", env=env)
        assert refused.returncode == 7, refused.stderr
        assert "listed by another process" in refused.stderr
        assert millrace_json("status", "j", env=env)["health"] == "no_workers"
        producer.send_signal(signal.SIGKILL)
        producer.wait(10)
    # Its lock outlives it for a while: it might only be slow.
    assert millrace("resume", "j", env=env).returncode == 7
    let_its_lock_expire(services)

    pipe.unlink()
    pipe.write_text("".join(rows))
    resumed = millrace_json("resume", "j", env=env)
    assert resumed["input"]["listing_complete"]
    assert resumed["counts"]["total"] == len(rows)
    assert resumed["health"] == "no_workers"
    assert manifest(services, str(out)) == [row.strip() for row in rows]
    assert millrace("verify", "j", env=env).returncode == 0


def test_a_manifest_that_was_changed_meanwhile_is_refused(
    services: Services, env: dict[str, str], tmp_path: Path
) -> None:
    rows = [f"{n:05d}.jpg\n" for n in range(PART + 100)]
    pipe, out = tmp_path / "list.txt", tmp_path / "out"
    with listing(rows, pipe, out, env) as producer:
        wait_until(lambda: services.jobs.recent_jobs(1), 30)
        wait_until(lambda: services.jobs.record("j").parts == 1, 30, "a part is told")
        producer.send_signal(signal.SIGKILL)
        producer.wait(10)
    services.redis.raw.delete(JobKeys("j").producer)
    pipe.unlink()
    pipe.write_text("".join(rows[1:]))
    refused = millrace("resume", "j", env=env)
    assert refused.returncode == 7
    assert "image 1 is no longer '00000.jpg'" in refused.stderr
    assert len(manifest(services, str(out))) == PART


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A directory of more than two whole parts, in folders."""
    for n in range(2 * PART + 100):
        folder = tmp_path / "in" / str(n % 7)
        if n < 7:
            folder.mkdir(parents=True)
        (folder / f"{n}.jpg").touch()
    return tmp_path / "in"


@pytest.mark.parametrize("death", DEATHS)
def test_a_directory_is_listed_exactly_once(
    services: Services, env: dict[str, str], many: Path, tmp_path: Path, death: str
) -> None:
    out = str(tmp_path / "out")
    request = ("enqueue", str(many), "--model", "any", "--out", out, "--job-id", "j")
    code, said = run(changed(DEATHS[death].format(part=1)), *request, env=env)
    assert code == -signal.SIGKILL, said
    assert services.jobs.record("j").parts == (1 if death == "before publishing" else 2)
    assert len(manifest(services, out)) == 2 * PART
    let_its_lock_expire(services)
    assert run(changed(), "resume", "j", env=env)[0] == 0
    keys = manifest(services, out)
    assert len(keys) == 2 * PART + 100
    assert set(keys) == {f"{n % 7}/{n}.jpg" for n in range(2 * PART + 100)}
    assert services.jobs.record("j").counts.total == len(keys)
    assert Job(services, "j").status().health == "no_workers"
    assert millrace("verify", "j", env=env).returncode == 0


@pytest.fixture
def fill(bucket: str) -> Callable[..., None]:
    client = boto3.session.Session().client("s3")

    def put(*keys: str) -> None:
        for key in keys:
            client.put_object(Bucket=bucket, Key=key, Body=b"")

    return put


@pytest.mark.parametrize("death", DEATHS)
def test_a_bucket_is_listed_on_after_the_last_key(
    env: dict[str, str], redis_url: str, s3: EmbeddedS3, bucket: str, fill: Any, death: str
) -> None:
    services = Services(Settings.load(redis_url=redis_url))
    keys = [f"in/{n:02d}.jpg" for n in range(21)]
    fill(*keys)
    out = f"s3://{bucket}/out"
    request = (*("enqueue", f"s3://{bucket}/in", "--model", "any", "--out", out), "--job-id", "j")
    code, said = run(
        changed(SMALL_PARTS, DEATHS[death].format(part=1)),
        *(*request, "--chunk-size", "4"),
        env=env | s3.environment,
    )
    assert code == -signal.SIGKILL, said
    assert manifest(services, out) == keys[:16]
    let_its_lock_expire(services)
    fill("in/00a.jpg", "in/15.jp", "in/15.jpga", "in/20z.jpg")
    code, said = run(changed(SMALL_PARTS), "resume", "j", env=env | s3.environment)
    assert code == 0, said
    assert manifest(services, out) == [
        *keys[:16], "in/15.jpga", *keys[16:], "in/20z.jpg",
    ]  # fmt: skip
    record = services.jobs.record("j")
    assert (record.parts, record.chunks, record.counts.total) == (3, 6, 23)
    services.redis.close()


def test_workers_run_on_meanwhile_and_a_pause_changes_nothing(
    env: dict[str, str], repository: Path, services: Services, many: Path, tmp_path: Path
) -> None:
    env |= {"MILLRACE_MODELS": str(repository)}
    out = str(tmp_path / "out")
    request = ("enqueue", str(many), "--model", "tiny", "--out", out, "--job-id", "j")
    with running_worker("--model", "tiny", env=env, log=tmp_path / "worker.log"):
        dies = DIES_BEFORE_PUBLISHING.format(part=1)
        code, said = run(changed(dies), *request, env=env)
        assert code == -signal.SIGKILL, said
        # The files are empty: each is an error line.
        wait_until(lambda: services.jobs.record("j").counts.failed == PART, 60, "all told is run")
        let_its_lock_expire(services)
        assert millrace("pause", "j", env=env).returncode == 0
        assert millrace("resume", "j", env=env).returncode == 0
        ended = Job(services, "j").wait(60)
    assert ended.counts.failed == ended.counts.total == 2 * PART + 100
    check_job(f"{out}/j", ended.model_dump(mode="json"))
    assert millrace("verify", "j", env=env).returncode == 0
