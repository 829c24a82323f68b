"""What tests share: waiting on conditions, real workers, images, jobs, a known model."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from millrace.core.fleet import Fleet
from millrace.core.job import JobSpec
from millrace.core.model_ref import ModelRef
from millrace.core.redis_client import RedisClient
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.producer.submit import make_spec, submit_spec

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "real"
MILLRACE = [sys.executable, "-m", "millrace.cli.main"]


def wait_until(condition: Callable[[], Any], within_s: float = 30, what: str = "") -> Any:
    """Poll until `condition` is truthy and return it; fail with `what` after the deadline.

    A moment in which this process stood still is no time in which others could have worked: of
    each look's turn, no more than a second counts.
    """
    spent_s, last = 0.0, time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        if spent_s > within_s:
            raise AssertionError(f"not within {within_s} s: {what or condition}")
        time.sleep(0.02)
        now = time.monotonic()
        spent_s, last = spent_s + min(now - last, 1.0), now


def millrace(
    *arguments: str, env: Mapping[str, str], within_s: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run the real command to its end."""
    return subprocess.run(
        [*MILLRACE, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


def millrace_json(*arguments: str, env: Mapping[str, str]) -> Any:
    """The JSON a command that must succeed prints."""
    done = millrace(*arguments, "--json", env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class RunningWorker:
    """A `millrace worker` command in its own process group."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float = 60) -> int:
        """The exit code."""
        return self.process.wait(within_s)


@contextmanager
def running_worker(
    *arguments: str, env: Mapping[str, str], log: Path, ready: int | None = 1
) -> Iterator[RunningWorker]:
    """Start `millrace worker …`; wait until `ready` more processes are in the fleet.

    It is stopped at the end if it has not ended by itself; `ready=None` does not wait.
    """
    redis = RedisClient(Settings.load(redis_url=env["MILLRACE_REDIS_URL"]))
    before = set() if ready is None else _ready_workers(redis)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*MILLRACE, "worker", *arguments],
            env={**os.environ, **env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    worker = RunningWorker(process, log)
    try:
        if ready is not None:
            wait_until(
                lambda: process.poll() is not None or len(_ready_workers(redis) - before) >= ready,
                90,
                "the workers are ready",
            )
            assert process.poll() is None, worker.log
        yield worker
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        redis.close()


class RunningServer:
    """A `millrace serve` command."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")


@contextmanager
def running_server(
    *arguments: str,
    env: Mapping[str, str],
    log: Path,
    command: Sequence[str] = MILLRACE,
    port: int = 0,
) -> Iterator[RunningServer]:
    """Start `millrace serve …` and wait until it listens. It is stopped at the end, and must then
    end well, if it has not ended by itself."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "serve", "--port", str(port), *arguments],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=ROOT,
        )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said.startswith("serving on "), said + log.read_text(errors="replace")
        yield RunningServer(process, said.split()[-1], log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                ended = process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                ended = process.wait()
            assert ended == 0, log.read_text(errors="replace")
        process.stdout.close()


def _ready_workers(redis: RedisClient) -> set[str]:
    return {
        seen.info.worker for seen in Fleet(redis).workers() if seen.info.state in ("idle", "busy")
    }


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """What millrace logs inside the block: `event`, `log_level` and the fields."""
    entries: list[dict[str, Any]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = record.levelname.lower()
            entries.append({**vars(record), "event": record.getMessage(), "log_level": level})

    logger, handler = logging.getLogger("millrace"), Collector()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield entries
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """uint8 [height, width] or [height, width, 3] as a PNG file, which keeps every value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_pngs(folder: Path, count: int, *, digits: int = 1) -> Path:
    """Fill `folder` with `0.png`, `1.png`, … for `tiny`: number n is `random_pixels(n, (8, 8))`.

    `digits` pads the numbers with zeros. Returns the folder.
    """
    for n in range(count):
        write_png(folder / f"{n:0{digits}d}.png", random_pixels(n, (8, 8)))
    return folder


def submitted(
    services: Services, root: Path, *, model: str = "tiny", output: str | None = None, **asked: Any
) -> JobSpec:
    """Submit a job over what lies in `root/in`, its results in `root/out`."""
    spec = make_spec(
        services,
        str(root / "in"),
        model=ModelRef.parse(model),
        output=output or str(root / "out"),
        **asked,
    )
    submit_spec(services, spec)
    return spec


def random_pixels(seed: int, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def export_tiny(repository: Path, *, version: str = "1", seed: int = 7) -> None:
    """Put `tiny:1` there: random weights, 8 × 8 grey pixels, 4 classes."""
    from millrace.core.load_tensorflow import load_tensorflow

    load_tensorflow()
    import keras

    from millrace.export import export_keras

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    export_keras(
        model,
        name="tiny",
        version=version,
        repository=str(repository),
        labels=["north", "east", "south", "west"],
        scale="0,255",
        channels="L",
    )
