"""What contenders read from and talk to: an S3 endpoint, a Redis, and their environment."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.cli.embedded_server import free_port

SAID_ELSEWHERE = ("MILLRACE_", "AWS_", "CELERY_", "RAY_", "DAFT_", "TF_")
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "true",
    "DAFT_PROGRESS_BAR": "0",
}


def environment(*more: Mapping[str, str]) -> dict[str, str]:
    """A contender's: nothing of the caller's settings, what it prints kept short, and `more`."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(SAID_ELSEWHERE)}
    for given in (QUIET, *more):
        kept |= given
    return kept


@contextmanager
def redis() -> Iterator[dict[str, str]]:
    """A redis-server of its own; yields the environment that names it as Celery's broker."""
    with EmbeddedRedis() as server:
        yield {"CELERY_BROKER_URL": server.url}


@contextmanager
def store(root: Path, latency_ms: float) -> Iterator[tuple[dict[str, str], Callable[[], float]]]:
    """An S3 endpoint over `root`, whose folders are its buckets.

    Yields the environment that points clients at it, and what stops it and tells the CPU
    seconds it used.
    """
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.store", str(root), "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--latency-ms", str(latency_ms)], stdout=subprocess.PIPE, text=True
    )

    def stop() -> float:
        server.terminate()
        said, _ = server.communicate(timeout=10)
        return float(json.loads(said)["cpu_seconds"])

    try:
        _wait_for(port, server)
        yield (
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench-secret",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_REGION": "us-east-1",
            },
            stop,
        )
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[str]) -> None:
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            server.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise RuntimeError(f"the S3 endpoint ended with {server.returncode}")
