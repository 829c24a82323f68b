"""How fast one process enqueues, in how much memory: `python -m benchmarks.enqueue`.

The listing is synthetic; everything after it is the producer's own path: filters, manifest
parts written to a real directory, a real redis-server, messages through Celery.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.synthetic import SOURCE, SyntheticStores
from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.model_ref import ModelRef
from millrace.core.redis_client import RedisClient
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import JobKeys
from millrace.producer.enqueue import ListingProgress
from millrace.producer.submit import make_spec, submit_spec

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Enqueued:
    """Seconds are of wall time and of this process's CPU; memory is of this process in MiB, and
    what Redis needs for the job in KiB: by how much its memory in use grew, and by its keys."""

    images: int
    seconds: float
    cpu_seconds: float
    images_per_s: float
    rss_at_a_tenth_mib: float
    rss_peak_mib: float
    redis_grown_kib: float
    redis_keys_kib: float
    redis_commands: int


def measure(images: int, directory: Path) -> Enqueued:
    """Submit a job over so many images, its manifest below `directory`."""
    with EmbeddedRedis() as server:
        settings = Settings.load(redis_url=server.url)
        services = Services(settings)
        services.stores = SyntheticStores(settings, images)
        try:
            return _measure(services, images, directory)
        finally:
            services.redis.close()


def _measure(services: Services, images: int, directory: Path) -> Enqueued:
    process = psutil.Process()
    seen: list[int] = []

    def sample(progress: ListingProgress) -> None:
        seen.append(process.memory_info().rss)

    spec = make_spec(services, SOURCE, model=ModelRef("none", None), output=str(directory))
    services.redis.ping()
    used, commands = _used(services.redis), _commands(services.redis)
    cpu, started = time.process_time(), time.perf_counter()
    submit_spec(services, spec, sample)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    # Every INFO is a command too.
    commands = _commands(services.redis) - commands - 1
    keys = [*JobKeys(spec.job_id).all, spec.queue]
    return Enqueued(
        images=services.jobs.record(spec.job_id).counts.total,
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu, 2),
        images_per_s=round(images / seconds),
        rss_at_a_tenth_mib=round(max(seen[: max(1, len(seen) // 10)]) / MIB, 1),
        rss_peak_mib=round(max(seen) / MIB, 1),
        redis_grown_kib=round((_used(services.redis) - used) / KIB, 1),
        redis_keys_kib=round(sum(_memory(services.redis, key) for key in keys) / KIB, 1),
        redis_commands=commands,
    )


def _used(redis: RedisClient) -> int:
    return int(redis.raw.info("memory")["used_memory"])


def _commands(redis: RedisClient) -> int:
    return int(redis.raw.info("stats")["total_commands_processed"])


def _memory(redis: RedisClient, key: str) -> int:
    return int(redis.raw.memory_usage(key, samples=0) or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asdict(measure(images, Path(directory))), indent=2))


if __name__ == "__main__":
    main()
