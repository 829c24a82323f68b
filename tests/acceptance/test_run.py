"""`millrace run`: the whole job on this machine with nothing else running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.acceptance.test_job import fill
from tests.faults.gate import Gate
from tests.job_checks import check_job
from tests.support import MILLRACE, millrace, wait_until, write_pngs


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_pngs(tmp_path / "in" / "deep", 40, digits=2)
    return tmp_path / "in"


def test_a_directory_is_predicted_into_a_directory(
    images: Path, tmp_path: Path, repository: Path
) -> None:
    done = millrace(
        *("run", str(images), "--model", "tiny:1", "--models", str(repository)),
        *("--out", (tmp_path / "out dir").as_uri(), "--processes", "2", "--chunk-size", "7"),
        *("--top-k", "2", "--layout", "per-image", "--job-id", "mine", "--json"),
        env={},
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["job_id"] == "mine"
    outcomes = check_job(str(tmp_path / "out dir" / "mine"), status)
    assert len(outcomes) == 40
    assert all(len(outcome["predictions"]) == 2 for outcome in outcomes)
    copies = tmp_path / "out dir" / "mine" / "by-key"
    for outcome in outcomes:
        assert json.loads((copies / f"{outcome['key']}.json").read_text()) == outcome


def test_a_bucket_is_predicted_into_a_bucket(
    s3_env: dict[str, str], bucket: str, repository: Path
) -> None:
    fill(bucket, 30)
    done = millrace(
        *("run", f"s3://{bucket}/in", "--model", str(repository / "tiny" / "1")),
        *("--out", f"s3://{bucket}/out", "--json"),
        env=s3_env,
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert len(check_job(f"s3://{bucket}/out/{status['job_id']}", status)) == 30


def test_it_says_what_computed_the_job(images: Path, tmp_path: Path, repository: Path) -> None:
    arguments = (
        *("run", str(images), "--model", "tiny", "--models", str(repository)),
        *("--out", str(tmp_path / "out"), "--engine", "tensorflow", "--precision", "bfloat16"),
        *("--batch-size", "4"),
    )
    done = millrace(*arguments, env={})
    assert done.returncode == 0, done.stderr
    engine = "millrace: the engine is tensorflow (it was asked for), bfloat16, batches of 4\n"
    assert done.stderr.count(engine) == 1
    assert re.search(r"millrace: [\d.]+% of \d+ images answered as float32 would", done.stderr)
    done = millrace(*arguments, "--json", env={})
    assert done.returncode == 0, done.stderr
    assert "the engine is" not in done.stderr


def test_the_exit_code_says_that_some_images_failed(
    images: Path, tmp_path: Path, repository: Path
) -> None:
    (images / "notes.txt").write_text("not a picture")
    (images / "empty.png").write_bytes(b"")
    done = millrace(
        *("run", str(images), "--model", "tiny", "--models", str(repository)),
        *("--out", str(tmp_path / "out")),
        env={},
    )
    assert done.returncode == 3, done.stderr
    assert "completed with errors" in done.stdout
    assert "decode/not_an_image" in done.stdout
    assert "decode/empty" in done.stdout


def test_a_model_that_does_not_load_ends_the_run_with_one_line(
    images: Path, tmp_path: Path, repository: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"this is no graph")
    done = millrace(
        *("run", str(images), "--model", str(broken), "--size", "8", "--channels", "L"),
        *("--out", str(tmp_path / "out"), "--job-id", "mine"),
        env={},
    )
    assert done.returncode == 8
    assert "does not load" in done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "out" / "mine" / "summary.json").read_text())
    assert (summary["state"], summary["reason"]) == ("failed", "model_load_failed")


def test_workers_that_die_at_every_start_end_the_run(
    images: Path, tmp_path: Path, repository: Path
) -> None:
    dying = (
        "import os, signal, sys\n"
        "if 'millrace.worker.process' in sys.orig_argv:\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(dying)
    done = millrace(
        *("run", str(images), "--model", "tiny", "--models", str(repository)),
        *("--out", str(tmp_path / "out"), "--job-id", "mine"),
        env={"PYTHONPATH": str(tmp_path / "path")},
    )
    assert done.returncode == 8, done.stderr
    assert "the workers could not start" in done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "out" / "mine" / "summary.json").read_text())
    assert (summary["state"], summary["reason"]) == ("failed", "model_load_failed")
    assert summary["counts"]["cancelled"] == 40


def test_the_model_may_be_a_directory_named_by_the_environment(
    images: Path, tmp_path: Path, repository: Path
) -> None:
    done = millrace(
        *("run", str(images), "--out", str(tmp_path / "out"), "--job-id", "mine", "--json"),
        env={
            "MILLRACE_MODEL": str(repository / "tiny" / "1"),
            "MILLRACE_MODELS": str(tmp_path / "nowhere"),
        },
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["model"]["name"] == "tiny"
    assert len(check_job(str(tmp_path / "out" / "mine"), status)) == 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_everything_down(
    number: signal.Signals, images: Path, tmp_path: Path, repository: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    gate.hold(0.5)
    process = subprocess.Popen(
        [
            *(*MILLRACE, "run", str(images), "--model", "tiny", "--models", str(repository)),
            *("--out", str(tmp_path / "out"), "--job-id", "mine", "--chunk-size", "2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # One chunk in hand: the rest is there to be cancelled.
        env={**os.environ, **gate.environment, "MILLRACE_SLOTS": "1"},
    )
    results = tmp_path / "out" / "mine" / "results"
    wait_until(lambda: list(results.rglob("*.jsonl")), 90, "a chunk is done")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert b"Traceback" not in output
    wait_until(lambda: not any(child.is_running() for child in children), 60, "all are gone")
    summary = json.loads((tmp_path / "out" / "mine" / "summary.json").read_text())
    assert (summary["state"], summary["reason"]) == ("cancelled", "interrupted")
    written = sum(len(file.read_bytes().splitlines()) for file in results.rglob("*.jsonl"))
    assert summary["counts"]["succeeded"] == written
    assert summary["counts"]["cancelled"] == 40 - written
