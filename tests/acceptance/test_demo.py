"""`millrace demo`, which is what `make demo` runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from tests.support import MILLRACE, millrace, wait_until


def test_the_demo_predicts_the_held_out_digits(tmp_path: Path) -> None:
    done = millrace("demo", "--keep", str(tmp_path / "kept"), env={}, within_s=200)
    assert done.returncode == 0, done.stderr
    table = dict(
        line.split(None, 1) for line in done.stdout.splitlines() if len(line.split(None, 1)) == 2
    )
    assert table["images"].strip() == table["succeeded"].strip() == "599"
    assert table["failed"].strip() == "0"
    assert float(table["accuracy"].strip().rstrip("%")) > 95
    assert float(table["images/s"].replace(",", "")) > 0
    lines = (tmp_path / "kept" / "predictions.jsonl").read_bytes().splitlines()
    assert len({orjson.loads(line)["key"] for line in lines}) == 599
    endpoint = re.search(r"S3 endpoint at http://127\.0\.0\.1:(\d+)", done.stderr)
    assert endpoint is not None
    assert not any(
        connection.laddr and connection.laddr.port == int(endpoint.group(1))
        for connection in psutil.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_the_demo_down(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [*MILLRACE, "demo", "--keep", str(tmp_path / "kept")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    parent = psutil.Process(process.pid)
    # redis-server, the S3 endpoint, and two workers.
    wait_until(lambda: len(parent.children(recursive=True)) >= 4, 120, "everything runs")
    children = parent.children(recursive=True)
    assert len(list((tmp_path / "tmp").glob("millrace-embedded*"))) == 2
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert b"Traceback" not in output, output.decode()
    wait_until(lambda: not any(child.is_running() for child in children), 10, "all are gone")
    assert list((tmp_path / "tmp").glob("millrace-embedded*")) == []


def test_the_web_demo_shows_its_job_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [*MILLRACE, "demo-web"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert process.stderr is not None
    said = ""
    while "the job:" not in said:
        said = process.stderr.readline()
        assert said, process.poll()
    url = said.split()[-1]
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3  # redis-server, the S3 endpoint, and a worker
    status = url.replace("/jobs/", "/v1/jobs/")
    wait_until(lambda: httpx.get(status).json()["terminal"], 60, "the job ends")
    assert httpx.get(status).json()["counts"] == {
        "total": 604, "pending": 0, "succeeded": 599, "failed": 5, "skipped": 0, "cancelled": 0,
    }  # fmt: skip
    assert "completed with errors" in httpx.get(url).text
    thumbnail = httpx.get(f"{url}/thumbnails/0")
    assert thumbnail.headers["content-type"] == "image/webp"
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    wait_until(lambda: not any(child.is_running() for child in children), 10, "all are gone")
    assert list((tmp_path / "tmp").glob("millrace-embedded*")) == []
