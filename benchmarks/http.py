"""What polling and watching cost: `python -m benchmarks.http`.

`GET /v1/jobs/{id}` of a real server, with its token, beside a FastAPI handler that returns a
constant and a Go `net/http` handler that does, all asked by `wrk` in turns; the processor time of
open event streams while nothing happens, for so long that each job is read again (once a minute if
it is paused, else every ten seconds); and a server's memory while it streams a million results.
Prints JSON. Needs `wrk` (Debian: `apt-get install wrk`); Go's part is left out, and says so, where
there is no `go` (Debian: `apt-get install golang-go`).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import httpx
import orjson
import psutil

from benchmarks.machine import this_machine
from benchmarks.services import environment
from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.errors import MissingExtra
from millrace.core.job import JobSpec
from millrace.core.restored import Restored
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import chunk_object

TOKEN = "a-benchmark-s-token-1234"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
CONNECTIONS = 64
STREAMS = 200
TARGETS = {"of_fastapi": 0.5, "p99_ms": 50.0, "streams_percent": 5.0, "growth_mb": 64.0}

FASTAPI = """
import socket, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
async def constant():
    return {"status": "ok"}
listening = socket.create_server(("127.0.0.1", 0))
print("serving on http://127.0.0.1:%d" % listening.getsockname()[1], flush=True)
config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
uvicorn.Server(config).run(sockets=[listening])
"""
GO = Path(__file__).parent / "peers" / "http.go"


@contextmanager
def running(*command: str, env: Mapping[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """A server that says where it serves; its URL and process."""
    with subprocess.Popen([*command], env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            if not said.startswith("serving on "):
                raise RuntimeError(f"{command[0]} did not start: {said}")
            yield said.split()[-1], psutil.Process(server.pid)
        finally:
            server.terminate()


def wrk(url: str, seconds: float, headers: Mapping[str, str]) -> dict[str, float]:
    """Requests a second, and the 99th percentile in milliseconds, with 64 connections."""
    given = [word for name, text in headers.items() for word in ("-H", f"{name}: {text}")]
    said = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", *given, url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    late = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    if rate is None or late is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    return {
        "per_s": float(rate[1]),
        "p99_ms": float(late[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[late[2]],
    }


def races(servers: Mapping[str, tuple[str, Mapping[str, str]]], rounds: int, seconds: float) -> Any:
    """The servers in turns, after a moment's warm-up each; medians, and all that was measured."""
    for url, headers in servers.values():
        wrk(url, 1, headers)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, (url, headers) in servers.items():
            found[name].append(wrk(url, seconds, headers))
    return {
        name: {
            "per_s": round(median(run["per_s"] for run in runs)),
            "p99_ms": round(median(run["p99_ms"] for run in runs), 2),
            "runs": runs,
        }
        for name, runs in found.items()
    }


def a_job(services: Services, root: Path, job: str, *, images: int = 0) -> JobSpec:
    """A job under way, of which so many images have an outcome and one chunk has none."""
    spec = JobSpec.make(
        job_id=job,
        created_at=datetime.now(UTC),
        model={"name": "tiny"},
        input={"uri": (root / "in").as_uri()},
        output=(root / "out").as_uri(),
    )
    size, plan = spec.chunk_size, spec.plan
    done = range(images // size)
    for chunk in done:
        file = Path(spec.directory.root) / chunk_object(plan.part_of(chunk), chunk)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(a_line(chunk * size + row) for row in range(size)))
    services.jobs.restore(
        spec,
        Restored(
            parts=len(done) // plan.chunks_per_part + 1,
            chunks=len(done) + 1,
            total=(len(done) + 1) * size,
            succeeded=len(done) * size,
            failed=0,
            done=[*done],
            with_errors=[],
            by_code={},
            samples=[],
            listing_complete=True,
            said={},
            corrupt=[],
        ),
    )
    return spec


def a_line(row: int) -> bytes:
    best = [{"label": f"class {n}", "index": n, "score": 1 / (n + 2)} for n in range(5)]
    key = f"photos/{row:08d}.jpg"
    return orjson.dumps({"key": key, "etag": f'"{row:032x}"', "predictions": best}) + b"\n"


def streams(url: str, server: psutil.Process, jobs: list[str], seconds: float) -> float:
    """Percent of a core that open event streams cost while nothing happens."""
    host, _, port = url.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        for number in range(STREAMS):
            opened = stack.enter_context(socket.create_connection((host, int(port))))
            path = f"/v1/jobs/{jobs[number % len(jobs)]}/events"
            asked = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
            opened.sendall(asked.encode())
            if b"200 OK" not in opened.recv(4096):
                raise RuntimeError("no stream was opened")
        time.sleep(2)
        before, begun = server.cpu_times(), time.perf_counter()
        time.sleep(seconds)
        after, took = server.cpu_times(), time.perf_counter() - begun
    spent = after.user + after.system - before.user - before.system
    return round(100 * spent / took, 2)


def streamed(url: str, server: psutil.Process, job: str) -> dict[str, float]:
    """A job's results, read to the end: how long it took, and how far the server's memory grew."""
    before = peak = server.memory_info().rss
    over = Event()

    def look() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, server.memory_info().rss)

    looking = Thread(target=look)
    looking.start()
    begun, size, lines = time.perf_counter(), 0, 0
    try:
        with httpx.stream(
            "GET", f"{url}/v1/jobs/{job}/results", headers=HEADERS, timeout=60
        ) as answer:
            answer.raise_for_status()
            for block in answer.iter_raw():
                size += len(block)
                lines += block.count(b"\n")
    finally:
        over.set()
        looking.join()
    took = time.perf_counter() - begun
    return {
        "lines": lines,
        "mb": round(size / 1e6, 1),
        "s": round(took, 1),
        "lines_per_s": round(lines / took),
        "before_mb": round(before / 1e6, 1),
        "growth_mb": round((peak - before) / 1e6, 1),
    }


def measure(rounds: int, seconds: float, images: int, idle_seconds: float) -> dict[str, Any]:
    if shutil.which("wrk") is None:
        raise MissingExtra("wrk (Debian: apt-get install wrk)", "http")
    go = shutil.which("go")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-http-")))
        redis = stack.enter_context(EmbeddedRedis())
        services = Services(Settings.load(redis_url=redis.url))
        env = environment(
            {
                "MILLRACE_REDIS_URL": redis.url,
                "MILLRACE_OPERATOR_TOKEN": TOKEN,
                "MILLRACE_ALLOWED_LOCATIONS": root.as_uri(),
                "MILLRACE_LOG_LEVEL": "warning",
            }
        )
        a_job(services, root, "running")
        python = sys.executable
        serve = (python, "-m", "millrace.cli.main", "serve", "--port", "0")
        ours, _ = stack.enter_context(running(*serve, env=env))
        constant, _ = stack.enter_context(running(python, "-c", FASTAPI, env=env))
        servers: dict[str, tuple[str, Mapping[str, str]]] = {
            "millrace": (f"{ours}/v1/jobs/running", HEADERS),
            "fastapi_constant": (f"{constant}/", {}),
        }
        if go:
            binary = str(root / "constant")
            subprocess.run([go, "build", "-o", binary, str(GO)], check=True, env=env)
            servers["go_constant"] = (stack.enter_context(running(binary, env=env))[0], {})
        raced = races(servers, rounds, seconds)
        paused = [f"paused-{number}" for number in range(STREAMS)]
        under_way = [f"running-{number}" for number in range(STREAMS)]
        for job in (*paused, *under_way):
            a_job(services, root, job)
        for job in paused:
            services.jobs.pause(job)
        # A server of its own, which has done nothing before.
        idle, process = stack.enter_context(running(*serve, env=env))
        watched = {
            "of_one_job": paused[:1],
            "of_200_paused_jobs": paused,
            "of_200_running_jobs": under_way,
        }
        percent = {
            name: streams(idle, process, jobs, idle_seconds) for name, jobs in watched.items()
        }
        a_job(services, root, "large", images=images)
        large, process = stack.enter_context(running(*serve, env=env))
        httpx.get(f"{large}/v1/jobs/large", headers=HEADERS, timeout=60).raise_for_status()
        memory = streamed(large, process, "large")
    return {
        "machine": this_machine(),
        "status": raced,
        "of_fastapi": round(raced["millrace"]["per_s"] / raced["fastapi_constant"]["per_s"], 2),
        "go": "measured" if go else "left out: there is no `go` here (apt-get install golang-go)",
        "p99_ms": raced["millrace"]["p99_ms"],
        "streams_percent": percent,
        "results": memory,
    }


def missed(found: Mapping[str, Any]) -> list[str]:
    """The targets that were not met."""
    checks = {
        "of_fastapi": found["of_fastapi"] >= TARGETS["of_fastapi"],
        "p99_ms": found["p99_ms"] < TARGETS["p99_ms"],
        "streams_percent": max(found["streams_percent"].values()) < TARGETS["streams_percent"],
        "growth_mb": found["results"]["growth_mb"] < TARGETS["growth_mb"],
    }
    return [name for name, met in checks.items() if not met]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--idle-seconds", type=float, default=70)
    given = parser.parse_args()
    found = measure(given.rounds, given.seconds, given.images, given.idle_seconds)
    print(json.dumps(found, indent=2, default=vars))
    if short := missed(found):
        sys.exit(f"missed: {', '.join(short)}")


if __name__ == "__main__":
    main()
