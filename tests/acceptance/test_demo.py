"""`millrace demo`, which is what `make demo` runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import orjson
import psutil

from tests.support import MILLRACE, millrace, wait_until


@contextmanager
def running(
    *command: str, tmp_path: Path, stdout: int | None = None, stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A demo whose temporary files are below `tmp_path / "tmp"`; it does not outlive the test."""
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [*MILLRACE, *command], stdout=stdout, stderr=stderr, text=True, env=env
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def test_the_demo_predicts_the_held_out_digits(tmp_path: Path) -> None:
    done = millrace("demo", "--keep", str(tmp_path / "kept"), env={})
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


def test_ctrl_c_takes_the_demo_down(tmp_path: Path) -> None:
    def everything_runs() -> bool:
        """redis-server, the S3 endpoint, and two workers."""
        assert process.poll() is None, process.communicate()
        return len(parent.children(recursive=True)) >= 4

    with running(
        *("demo", "--keep", str(tmp_path / "kept")),
        tmp_path=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        parent = psutil.Process(process.pid)
        wait_until(everything_runs, 300)  # it trains first, and the machine may be busy
        children = parent.children(recursive=True)
        assert len(list((tmp_path / "tmp").glob("millrace-embedded*"))) == 2
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    wait_until(lambda: not any(child.is_running() for child in children), 60, "all are gone")
    assert list((tmp_path / "tmp").glob("millrace-embedded*")) == []


def test_the_web_demo_shows_its_job_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with running("demo-web", tmp_path=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = ""
        while "the job:" not in said:
            said = process.stderr.readline()
            assert said, process.poll()
        url = said.split()[-1]
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3  # redis-server, the S3 endpoint, and a worker
        status = url.replace("/jobs/", "/v1/jobs/")
        get = partial(httpx.get, timeout=60)
        wait_until(lambda: get(status).json()["terminal"], 300, "the job ends")
        counts = get(status).json()["counts"]
        assert (counts["total"], counts["succeeded"], counts["failed"]) == (604, 599, 5)
        assert "completed with errors" in get(url).text
        thumbnail = get(f"{url}/thumbnails/0")
        assert thumbnail.headers["content-type"] == "image/webp"
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    wait_until(lambda: not any(child.is_running() for child in children), 60, "all are gone")
    assert list((tmp_path / "tmp").glob("millrace-embedded*")) == []
