"""Two workers, each behind a network of its own, that a module's tests put through it in turn."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt

from millrace.core.fleet import Fleet
from millrace.core.redis_client import RedisClient
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.status import JobStatus
from millrace.core.topology import JobKeys, QueueKeys
from millrace.producer import open_job, submit
from tests.faults.gate import Gate
from tests.faults.redis_server import MortalRedis
from tests.faults.tcp_proxy import TcpProxy
from tests.job_checks import assert_exact
from tests.support import RunningWorker, wait_until

LEASE_S = 2.0
SLOTS = 3
CHUNK = 4
QUEUE = "millrace.tiny"


@dataclass(frozen=True)
class Inputs:
    """Folders of images, and what to predict them with by itself."""

    few: Path
    many: Path
    bundle: Path
    pixels: Mapping[str, npt.NDArray[np.uint8]]

    def assert_exact(self, job: str, out: Path, env: Mapping[str, str]) -> None:
        assert_exact(job, str(out), env, self.bundle, self.pixels)


@dataclass
class Member:
    """A worker, the gate its images pass, and its way to Redis."""

    gate: Gate
    proxy: TcpProxy
    worker: RunningWorker

    @property
    def pid(self) -> int:
        """Of the process with the model."""
        return ready_pids(self.worker.log)[-1]

    def signal(self, number: int) -> None:
        """To the process with the model, not to its supervisor."""
        os.kill(self.pid, number)

    def heal(self) -> None:
        self.gate.open()
        self.proxy.heal()
        if self.worker.process.poll() is None:
            self.signal(signal.SIGCONT)


@dataclass
class Crew:
    redis: MortalRedis
    env: dict[str, str]
    inputs: Inputs
    out: Path
    near: Member
    far: Member

    @property
    def members(self) -> tuple[Member, Member]:
        return self.near, self.far

    def check_up(self) -> None:
        """Nobody ended in the test before, and both are idle now."""
        for member in self.members:
            assert member.worker.process.poll() is None, member.worker.log
        fleet = Fleet(RedisClient(self.settings))
        wait_until(
            lambda: [seen.info.state for seen in fleet.workers()] == ["idle"] * 2,
            90,
            "both workers are idle",
        )

    def heal(self) -> None:
        for member in self.members:
            member.heal()

    def close_gates(self) -> None:
        for member in self.members:
            member.gate.close()

    def open_gates(self) -> None:
        for member in self.members:
            member.gate.open()

    def enqueue(self, folder: Path | None = None, job_id: str | None = None) -> str:
        """A job of the few images, if no other folder is given."""
        return submit(
            str(folder or self.inputs.few),
            model="tiny",
            output=str(self.out),
            chunk_size=CHUNK,
            job_id=job_id,
            settings=self.settings,
        ).id

    def request(self, folder: Path) -> tuple[str, ...]:
        """The arguments that enqueue a folder."""
        options = ("--model", "tiny", "--out", str(self.out), "--chunk-size", str(CHUNK))
        return ("enqueue", str(folder), *options)

    def all_slots_taken(self) -> None:
        wait_until(lambda: self.leases() == 2 * SLOTS, 90, "every slot holds a chunk")

    def waiting(self, job: str) -> set[int]:
        """Chunks that stand in the queue and that nobody holds. A message may come twice."""
        queued = self._services.queue.waiting(self.queue)
        return {chunk for owner, chunk in queued if owner == job} - (
            self._services.jobs.running_chunks(job)
        )

    def leases(self) -> int:
        found: Any = self.redis.raw.zcard(QueueKeys(self.queue).leases)
        return int(found)

    def done(self, job: str) -> int:
        """Chunks that were counted."""
        return int(self.redis.raw.hget(JobKeys(job).record, "done") or 0)

    def fleet_size(self) -> int:
        """Workers that renewed within the length of a lease."""
        seconds, micros = self.redis.raw.time()
        now_ms = seconds * 1000 + micros // 1000
        return int(self.redis.raw.zcount(QueueKeys(self.queue).fleet, now_ms, "+inf"))

    @property
    def queue(self) -> str:
        """Jobs are pinned to the version of the model that the repository has."""
        return f"{QUEUE}:1"

    def committed(self, job: str) -> dict[Path, tuple[bytes, int]]:
        """What stands, and when it was written."""
        paths = (self.out / job / "results").rglob("*.jsonl")
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}

    @cached_property
    def _services(self) -> Services:
        return Services(self.settings)

    @property
    def settings(self) -> Settings:
        return Settings.load(redis_url=self.redis.url, models=self.env["MILLRACE_MODELS"])

    def status(self, job: str) -> JobStatus:
        return open_job(job, self.settings).status()

    def wait(self, job: str) -> None:
        """Until it has succeeded."""
        ended = open_job(job, self.settings).wait(180, poll_s=0.05)
        assert ended.state == "succeeded", self.logs()

    def assert_exact(self, job: str) -> None:
        self.inputs.assert_exact(job, self.out, self.env)

    def runs(self, job: str) -> dict[int, list[str]]:
        """Chunk → what each run of it was told at its end."""
        found: dict[int, list[str]] = {}
        for member in self.members:
            for chunk, answer in finished(member.worker.log, job):
                found.setdefault(chunk, []).append(answer)
        return found

    def logs(self) -> str:
        return "\n".join(member.worker.log for member in self.members)


def ready_pids(log: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"ready .*worker=(\d+)@", plain(log))]


def finished(log: str, job: str) -> list[tuple[int, str]]:
    """The chunks a worker finished, each with the answer."""
    lines = [line for line in plain(log).splitlines() if "finished a chunk" in line]
    fields = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]
    return [(int(each["chunk"]), each["answer"]) for each in fields if each["job"] == job]


def plain(log: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", log)


def through(proxy: TcpProxy, url: str) -> str:
    """The Redis URL by way of the proxy."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f":{parts.password}@127.0.0.1:{proxy.port}"))
