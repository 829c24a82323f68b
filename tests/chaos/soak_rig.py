"""What the soak shakes: a Redis, a store behind changing weather, and workers on networks of
their own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.chaos.crew import through
from tests.faults.redis_server import MortalRedis
from tests.faults.s3_proxy import Asked, Cut, Fault, Slow, Stall
from tests.faults.tcp_proxy import TcpProxy
from tests.support import MILLRACE


class Weather:
    """How the store behaves at the moment: the rules of an S3 proxy."""

    KINDS = ("throttling", "resetting", "truncating", "stalling", "losing answers", "crawling")

    def __init__(self, seed: str) -> None:
        self.kind = ""
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def instead(self, _: Asked) -> Fault | None:
        if self.kind == "throttling" and self._chance(0.4):
            return 503
        if self.kind == "resetting" and self._chance(0.2):
            return Cut()
        if self.kind == "stalling" and self._chance(0.03):
            return Stall()
        return None

    def afterwards(self, asked: Asked) -> Fault | None:
        if self.kind == "truncating" and self._chance(0.2):
            return Cut(7)
        if self.kind == "crawling" and asked.method == "GET" and self._chance(0.1):
            return Slow(100)
        if self.kind == "losing answers" and self._chance(0.3):
            return 500 if self._chance(0.5) else Cut()
        return None

    def _chance(self, share: float) -> bool:
        with self._lock:
            return self._random.random() < share


class SoakWorker:
    """`millrace worker` behind a network of its own; started again when it was killed whole."""

    def __init__(self, redis: MortalRedis, env: dict[str, str], log: Path) -> None:
        self.proxy = TcpProxy("127.0.0.1", redis.port)
        url = through(self.proxy, redis.url)
        self._env = {**os.environ, **env, "MILLRACE_REDIS_URL": url}
        self._log = log
        self._process = self._start()

    def revive(self) -> None:
        """Start it again if it has ended."""
        if self._process.poll() is not None:
            self._process = self._start()

    def kill_process(self) -> None:
        """The process with the model; its supervisor starts another."""
        self._signal(signal.SIGKILL)

    def kill_whole(self) -> None:
        """With its supervisor, as when the machine is gone."""
        children = self._children()
        self._process.kill()
        self._process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self._signal(signal.SIGSTOP)
        yield
        self._signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it as an operator would; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        finally:
            self._process.kill()
            self.proxy.close()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            command = [*MILLRACE, "worker", "--model", "tiny", "--threads", "1"]
            return subprocess.Popen(
                command, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        for child in self._children():
            with suppress(psutil.NoSuchProcess):
                child.send_signal(number)


class Rig:
    """Everything that can fail, and whether it still may."""

    def __init__(
        self, redis: MortalRedis, weather: Weather, workers: list[SoakWorker], until: float
    ) -> None:
        self.redis = redis
        self.weather = weather
        self.workers = workers
        self._until = until

    @property
    def over(self) -> bool:
        """No more faults."""
        return time.monotonic() >= self._until
