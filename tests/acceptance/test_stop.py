"""Stopping workers: one signal finishes what is in hand, two give it back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from millrace.core.settings import Settings
from millrace.producer import open_job
from tests.job_checks import check_job
from tests.support import (
    millrace,
    millrace_json,
    running_worker,
    wait_until,
    write_pngs,
)

IMAGES = 240


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pngs(tmp_path / "in", IMAGES, digits=4)


@pytest.fixture
def slow_env(env: dict[str, str], slow_repository: Path) -> dict[str, str]:
    # Leases long enough that nothing comes back by their expiry in these tests.
    return env | {"MILLRACE_MODELS": str(slow_repository), "MILLRACE_LEASE_S": "120"}


def enqueue(images: Path, out: Path, env: dict[str, str]) -> str:
    status = millrace_json(
        "enqueue", str(images), "--model", "slow", "--out", str(out), "--chunk-size", "12", env=env
    )
    job: str = status["job_id"]
    return job


def counts(job: str, env: dict[str, str]) -> dict[str, int]:
    found: dict[str, int] = millrace_json("status", job, env=env)["counts"]
    return found


def busy(job: str, env: dict[str, str]) -> None:
    settings = Settings.load(redis_url=env["MILLRACE_REDIS_URL"])
    wait_until(lambda: open_job(job, settings).status().workers.active, 90, "a chunk is in hand")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_finishes_the_chunks_in_hand(
    number: int, images: Path, tmp_path: Path, slow_env: dict[str, str]
) -> None:
    with running_worker("--model", "slow", env=slow_env, log=tmp_path / "worker.log") as worker:
        job = enqueue(images, tmp_path / "out", slow_env)
        busy(job, slow_env)
        worker.signal(number)
        assert worker.wait() == 0
    assert "finishing the chunks in hand" in worker.log
    assert "every chunk in hand was finished" in worker.log
    status = millrace_json("status", job, env=slow_env)
    assert status["workers"] == {"active": 0, "live": 0}
    assert status["health"] == "no_workers"
    done = status["counts"]["succeeded"]
    assert 0 < done < IMAGES
    assert done % 12 == 0
    assert len(millrace("results", job, env=slow_env).stdout.splitlines()) == done

    with running_worker("--model", "slow", env=slow_env, log=tmp_path / "next.log"):
        assert millrace("status", job, "--watch", env=slow_env).returncode == 0
    check_job(f"{tmp_path}/out/{job}", millrace_json("status", job, env=slow_env))


def test_a_second_signal_exits_at_once_and_the_chunks_come_back(
    images: Path, tmp_path: Path, slow_env: dict[str, str]
) -> None:
    with running_worker("--model", "slow", env=slow_env, log=tmp_path / "worker.log") as worker:
        job = enqueue(images, tmp_path / "out", slow_env)
        busy(job, slow_env)
        worker.signal()
        wait_until(lambda: "finishing the chunks in hand" in worker.log, 90)
        worker.signal()
        assert worker.wait(60) == 130
    assert "stopped at once" in worker.log
    assert millrace_json("status", job, env=slow_env)["workers"]["active"] == 0
    assert counts(job, slow_env)["succeeded"] < IMAGES

    with running_worker("--model", "slow", env=slow_env, log=tmp_path / "next.log") as after:
        assert millrace("status", job, "--watch", env=slow_env).returncode == 0
    check_job(f"{tmp_path}/out/{job}", millrace_json("status", job, env=slow_env))
    assert "a lease expired" not in after.log


def test_a_killed_worker_s_chunks_run_elsewhere_when_its_leases_expire(
    images: Path, tmp_path: Path, slow_env: dict[str, str]
) -> None:
    env = slow_env | {"MILLRACE_LEASE_S": "2", "MILLRACE_RECONCILE_S": "1"}
    with running_worker("--model", "slow", env=env, log=tmp_path / "worker.log") as worker:
        (process,) = {
            int(seen["worker"].partition("@")[0]) for seen in millrace_json("workers", env=env)
        }
        job = enqueue(images, tmp_path / "out", env)
        busy(job, env)
        os.kill(process, signal.SIGSTOP)  # or it hands back what it holds when its supervisor dies
        worker.process.kill()
        os.kill(process, signal.SIGKILL)
        worker.wait()
    with running_worker("--model", "slow", env=env, log=tmp_path / "next.log", ready=None) as after:
        assert millrace("status", job, "--watch", env=env).returncode == 0
        assert "a lease expired" in after.log
    check_job(f"{tmp_path}/out/{job}", millrace_json("status", job, env=env))


def test_worker_processes_end_with_the_supervisor_that_started_them(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running_worker(
        "--model", "tiny", "--processes", "2", env=env, log=tmp_path / "worker.log", ready=2
    ) as worker:
        worker.process.kill()
        worker.wait()
        wait_until(lambda: worker.log.count("every chunk in hand was finished") == 2, 90)
    assert millrace_json("workers", env=env) == []


def test_a_worker_process_that_dies_is_started_again(tmp_path: Path, env: dict[str, str]) -> None:
    with running_worker("--model", "tiny", env=env, log=tmp_path / "worker.log") as worker:
        (first,) = millrace_json("workers", env=env)
        os.kill(int(first["worker"].partition("@")[0]), signal.SIGKILL)
        wait_until(
            lambda: any(
                seen["worker"] != first["worker"] and seen["state"] == "idle"
                for seen in millrace_json("workers", env=env)
            ),
            90,
            "another process serves",
        )
        assert "restarting it" in worker.log
