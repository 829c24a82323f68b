"""Secrets are in no output, log, job record or object, whatever goes well or wrong."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.errors import BadLocation, ExitCode
from millrace.core.storage import Location
from tests.faults.s3_proxy import s3_proxy
from tests.support import (
    MILLRACE,
    RunningWorker,
    millrace,
    random_pixels,
    running_worker,
    wait_until,
    write_png,
)

SECRETS = {
    "message key": "message-key-0b5f",
    "notify secret": "notify-secret-5a1e",
    "AWS secret": "aws-secret-9c41",
    "AWS token": "aws-token-77d2",
    "in a URL": "hunter2-3e8a",
}
DEBUG = {"MILLRACE_LOG_LEVEL": "debug", "MILLRACE_STORAGE_MAX_RETRIES": "0"}
FORMS = ("console", "json")


@pytest.fixture(scope="module")
def own_redis() -> Iterator[EmbeddedRedis]:
    """One that may be stopped under its users."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def env(own_redis: EmbeddedRedis, s3_server: EmbeddedS3, repository: Path) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": own_redis.url,
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_MESSAGE_KEY": SECRETS["message key"],
        "MILLRACE_NOTIFY_SECRET": SECRETS["notify secret"],
        "MILLRACE_LEASE_S": "2",
        "MILLRACE_RECONCILE_S": "1",
        **s3_server.environment,
        "AWS_SECRET_ACCESS_KEY": SECRETS["AWS secret"],
        "AWS_SESSION_TOKEN": SECRETS["AWS token"],
        **DEBUG,
    }


def leaks(text: str | bytes, *more: str) -> list[str]:
    """Which secrets it holds, by name."""
    data = text.encode() if isinstance(text, str) else text
    named = SECRETS | {f"another ({n})": secret for n, secret in enumerate(more)}
    return [name for name, secret in named.items() if secret.encode() in data]


def everything_in(client: redis.Redis) -> bytes:
    """Every key of a Redis with all it holds."""
    readers: dict[bytes, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    keys: Any = client.keys("*")
    return b"\n".join(key + repr(readers[client.type(key)](key)).encode() for key in keys)


def await_line(worker: RunningWorker, text: str) -> None:
    wait_until(lambda: text in worker.log, 30, f"the worker says {text!r}")


def both(*processes: tuple[list[str], dict[str, str]]) -> list[tuple[int, str]]:
    """Commands side by side: exit codes, and all they say."""
    running = [
        subprocess.Popen(
            [*MILLRACE, *command],
            env=os.environ | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, env in processes
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    return [(process.returncode, text) for process, text in zip(running, said, strict=True)]


def test_a_job_tells_no_secret(
    own_redis: EmbeddedRedis, s3: EmbeddedS3, bucket: str, env: dict[str, str], tmp_path: Path
) -> None:
    password = own_redis.url.partition(":")[2].partition(":")[2].partition("@")[0]
    client = boto3.session.Session().client("s3")
    for n in range(5):
        write_png(tmp_path / f"{n}.png", random_pixels(n, (8, 8)))
        client.upload_file(str(tmp_path / f"{n}.png"), bucket, f"in/{n}.png")
    client.put_object(Bucket=bucket, Key="in/broken.png", Body=b"no picture")
    enqueue = ("enqueue", f"s3://{bucket}/in", "--model", "tiny", "--out", f"s3://{bucket}/out")
    said: dict[str, str] = {}

    def run(*command: str, **more: str) -> int:
        done = millrace(*command, env=env | more)
        said[" ".join(command)] = done.stdout + done.stderr
        return done.returncode

    raw = redis.Redis.from_url(own_redis.url)
    assert run(*enqueue, "--job-id", "j", "--chunk-size", "2", "--layout", "per-image") == 0
    waiting = everything_in(raw)
    assert b"predict_chunk" in waiting
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                running_worker(
                    *("--model", "tiny"),
                    env=env | {"MILLRACE_LOG_FORMAT": form},
                    log=tmp_path / f"{form}.log",
                    ready=None,
                )
            )
            for form in FORMS
        ]
        run("status", "j", "--watch", "--json")
        for worker in workers:
            await_line(worker, "ready")
        commands = [["results", "j"], ["errors", "j"], ["verify", "j"], ["doctor"], ["workers"]]
        ended = both(*((command, env | {"MILLRACE_LOG_FORMAT": "json"}) for command in commands))
        said |= {" ".join(c): text for c, (_, text) in zip(commands, ended, strict=True)}
        held = everything_in(raw)
        raw.close()
        own_redis.__exit__(None, None, None)
        for worker in workers:
            await_line(worker, "cannot reach Redis")
        for worker in workers:
            await_line(worker, "Cannot connect to")
        run("jobs")
    said |= {f"{form}.log": (tmp_path / f"{form}.log").read_text() for form in FORMS}
    assert "in/broken.png" in said["errors j"]
    assert [name for name, text in said.items() if leaks(text, password)] == []
    for stored in (waiting, held):
        assert leaks(stored, password) == []
    objects = client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]
    assert len(objects) > 10
    for item in objects:
        body = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        assert leaks(body + item["Key"].encode(), password) == [], item["Key"]


URL = SECRETS["in a URL"]
BAD_URLS = [
    f"s3://AKIAX:{URL}@bucket/in",
    f"s3://{URL}@bucket/in",
    f"gs://user:{URL}@bucket/in",
    f"https://user:{URL}@host/in",
    f"https://bucket.s3.amazonaws.com/in?X-Amz-Signature={URL}",
    f"s3://bucket/in?X-Amz-Credential=AKIAX&X-Amz-Signature={URL}",
    f"s3://bucket/in?AWSAccessKeyId=AKIAX&Signature={URL}",
    f"az://container/in?sv=2026&sig={URL}",
    f"file://user:{URL}@host/in",
    f"file:///in?token={URL}",
    f"ftp://user:{URL}@host/in",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadLocation) as caught:
        Location.parse(url)
    assert leaks(f"{caught.value!r} {caught.value.message} {caught.value.hint}") == []


def test_failures_tell_no_secret(
    redis_url: str,
    s3: EmbeddedS3,
    bucket: str,
    env: dict[str, str],
    dead_port: int,
    tmp_path: Path,
) -> None:
    env = env | {"MILLRACE_REDIS_URL": redis_url}
    port = redis_url.rpartition(":")[2].partition("/")[0]
    url, gone = BAD_URLS[0], f"127.0.0.1:{dead_port}"
    (tmp_path / "in").mkdir()
    (tmp_path / "manifest").write_text(f"s3://AKIAX:{URL}@bucket/in/a.png\n")
    (tmp_path / "presigned").write_text(f"s3://{bucket}/in/a.png?X-Amz-Signature={URL}\n")

    def redis_at(place: str) -> dict[str, str]:
        return {"MILLRACE_REDIS_URL": f"redis://{place}"}

    def enqueue(source: str = f"s3://{bucket}/in", out: str = f"s3://{bucket}/out") -> list[str]:
        return ["enqueue", source, "--model", "tiny", "--out", out]

    with s3_proxy(s3.endpoint, instead=lambda _: 403) as denying:
        cases: list[tuple[list[str], dict[str, str], ExitCode]] = [
            (enqueue(url), {}, ExitCode.USAGE),
            ([*enqueue(), "--manifest", str(tmp_path / "manifest")], {}, ExitCode.USAGE),
            ([*enqueue(), "--manifest", str(tmp_path / "presigned")], {}, ExitCode.USAGE),
            (["jobs"], redis_at(f":{URL}@127.0.0.1:{port}/0"), ExitCode.ACCESS_DENIED),
            (["jobs"], redis_at(f"u:{URL}@{gone}/0"), ExitCode.UNAVAILABLE),
            (["jobs"], redis_at(f":{URL}@{gone}/0?x=1"), ExitCode.USAGE),
            (["jobs"], {"MILLRACE_MESSAGE_KEY": URL}, ExitCode.USAGE),
            (enqueue(), {"AWS_ENDPOINT_URL": f"http://{gone}"}, ExitCode.UNAVAILABLE),
            (enqueue(), {"AWS_ENDPOINT_URL": denying}, ExitCode.ACCESS_DENIED),
            (enqueue(), {"AWS_ENDPOINT_URL": f"http://u:{URL}@{gone}"}, ExitCode.USAGE),
            (["worker", "--model", "tiny"], {"MILLRACE_MODELS": url}, ExitCode.USAGE),
        ]
        for start in range(0, len(cases), 5):
            some = cases[start : start + 5]
            ended = both(*((command, env | more) for command, more, _ in some))
            for (command, more, code), (found, said) in zip(some, ended, strict=True):
                assert leaks(said) == [], (command, more)
                assert found == code, (command, more, said)
                assert "Traceback" not in said, (command, more)
