"""`millrace doctor`: every finding with what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from millrace.cli.embedded_server import free_port
from millrace.core.errors import ExitCode
from millrace.core.fleet import WorkerInfo
from millrace.core.services import Services
from tests.unit.cli.conftest import Invoke

Findings = dict[str, dict[str, Any]]


@pytest.fixture
def doctor(run: Invoke, redis_url: str) -> Any:
    """Run it; returns the exit code and the findings by name."""

    def examine(*arguments: str, redis: str = redis_url) -> tuple[int, Findings]:
        said = run("doctor", "--json", *arguments, redis_url=redis)
        return said.code, {finding["what"]: finding for finding in json.loads(said.out)}

    return examine


def test_what_is_not_ideal_is_a_warning_and_no_failure(doctor: Any) -> None:
    code, found = doctor()
    assert code == 0
    assert found["Redis"]["state"] == "ok"
    assert found["Redis memory"]["state"] == "ok"
    assert found["Redis persistence"]["state"] == "warning"
    assert found["workers"]["state"] == "warning"
    assert found["model repository"]["state"] == "warning"
    assert all(finding["fix"] for finding in found.values() if finding["state"] != "ok")


def test_live_workers_are_counted(doctor: Any, services: Services) -> None:
    services.fleet.announce(WorkerInfo("w", "tiny", "q", "idle", 1, 0, 0.0, 0))
    _, found = doctor()
    assert (found["workers"]["state"], found["workers"]["detail"]) == ("ok", "1 live")


def test_without_redis_it_fails_and_examines_the_rest(doctor: Any) -> None:
    code, found = doctor(redis=f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert code == ExitCode.CHECK_FAILED
    assert found["Redis"]["state"] == "failed"
    assert "hunter2" not in json.dumps(found)
    assert "model repository" in found
    assert "redis-server" in found


def test_memory_that_may_be_evicted_is_a_warning(doctor: Any, services: Services) -> None:
    services.redis.raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        _, found = doctor()
    finally:
        services.redis.raw.config_set("maxmemory-policy", "noeviction")
    assert found["Redis memory"]["state"] == "warning"
    assert found["Redis memory"]["fix"] == "set maxmemory-policy noeviction"


def test_the_model_repository_is_looked_into(doctor: Any, tmp_path: Path) -> None:
    _, found = doctor("--models", str(tmp_path))
    assert found["model repository"]["state"] == "warning"
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    (tmp_path / "tiny" / "1" / "saved_model.pb").touch()
    _, found = doctor("--models", str(tmp_path))
    assert (found["model repository"]["state"], found["model repository"]["detail"]) == (
        "ok",
        "tiny",
    )
    code, found = doctor("--models", str(tmp_path / "nowhere"))
    assert (code, found["model repository"]["state"]) == (ExitCode.CHECK_FAILED, "failed")


def test_an_input_is_listed_and_read(doctor: Any, tmp_path: Path) -> None:
    _, found = doctor("--source", str(tmp_path))
    assert found["input"]["state"] == "warning"
    (tmp_path / "a.jpg").write_bytes(b"image")
    _, found = doctor("--source", str(tmp_path))
    assert found["input"]["state"] == "ok"
    for nonsense in (str(tmp_path / "nowhere"), "http://x"):
        code, found = doctor("--source", nonsense)
        assert (code, found["input"]["state"]) == (ExitCode.CHECK_FAILED, "failed")


def test_an_output_is_written_to_and_its_promise_tried(doctor: Any, tmp_path: Path) -> None:
    _, found = doctor("--out", str(tmp_path / "out"))
    assert found["output"]["state"] == "ok"
    assert found["conditional writes"]["state"] == "ok"
    assert list((tmp_path / "out").iterdir()) == []
    code, found = doctor("--out", str(tmp_path / "out"))
    assert (code, found["conditional writes"]["state"]) == (0, "ok")


def test_a_bucket_keeps_the_promise_too(doctor: Any, bucket: str) -> None:
    _, found = doctor("--out", f"s3://{bucket}/out")
    assert found["conditional writes"]["state"] == "ok"
    code, found = doctor("--out", f"s3://{bucket}-missing/out")
    assert (code, found["output"]["state"]) == (ExitCode.CHECK_FAILED, "failed")


def test_writes_that_overwrite_are_a_warning(
    doctor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_STORAGE_OVERWRITE", "1")
    code, found = doctor("--out", str(tmp_path))
    assert (code, found["output"]["state"]) == (0, "ok")
    assert found["conditional writes"]["state"] == "warning"
    assert "MILLRACE_STORAGE_OVERWRITE" in found["conditional writes"]["fix"]
    assert list(tmp_path.iterdir()) == []


def test_writes_to_a_bucket_that_overwrite_are_a_warning_too(
    doctor: Any, bucket: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_STORAGE_OVERWRITE", "1")
    code, found = doctor("--out", f"s3://{bucket}/out")
    assert (code, found["output"]["state"]) == (0, "ok")
    assert found["conditional writes"]["state"] == "warning"
    assert s3_client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("out", ["file/below", "http://x"])
def test_an_output_that_cannot_be_one_fails_and_is_not_tried_further(
    out: str, doctor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no directory")
    code, found = doctor("--out", out)
    assert (code, found["output"]["state"]) == (ExitCode.CHECK_FAILED, "failed")
    assert "conditional writes" not in found
    assert "redis-server" in found


def test_people_get_a_table(run: Invoke, redis_url: str, tmp_path: Path) -> None:
    said = run("doctor", "--out", str(tmp_path), redis_url=redis_url)
    assert said.code == 0
    assert "can be written" in said.out
    assert "→ set appendonly yes" in said.out
