"""Enqueuing streams: workers start before listing ends, and memory does not grow with keys."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from millrace.core.job import JobSpec
from millrace.core.manifest import ManifestRow
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.producer.enqueue import enqueue
from millrace.producer.job import Job
from millrace.producer.submit import make_spec
from tests.job_checks import check_job
from tests.support import random_pixels, running_worker, wait_until, write_png

PART = 8192


def prepared(services: Services, source: Path, out: Path) -> JobSpec:
    """A job that is made, but has nothing listed yet."""
    from millrace.core.jobdir import JobDirectory

    spec = make_spec(services, str(source), model=ModelRef("tiny"), output=str(out))
    JobDirectory(services.stores, spec.directory).create_spec(spec)
    services.jobs.create(spec)
    return spec


def test_workers_start_before_the_listing_ends(
    redis_url: str, repository: Path, tmp_path: Path
) -> None:
    write_png(tmp_path / "in" / "a.png", random_pixels(1, (8, 8)))
    services = Services(Settings.load(redis_url=redis_url, models=str(repository)))
    spec = prepared(services, tmp_path / "in", tmp_path / "out")
    go_on = threading.Event()

    def slow_listing() -> Iterator[ManifestRow]:
        for _ in range(PART):
            yield ManifestRow("a.png", None, None)
        assert go_on.wait(300)
        yield ManifestRow("a.png", None, None)

    producer = threading.Thread(target=enqueue, args=(services, spec, slow_listing()))
    env = {"MILLRACE_REDIS_URL": redis_url, "MILLRACE_MODELS": str(repository)}
    with running_worker("--model", "tiny", env=env, log=tmp_path / "worker.log"):
        producer.start()
        job = Job(services, spec.job_id)
        # Everything listed so far is predicted while the listing hangs.
        early = wait_until(
            lambda: (s := job.status()).counts.succeeded == PART and s,
            240,
            "the first part is done",
        )
        assert not early.input.listing_complete
        assert not early.terminal
        assert early.eta_s is None
        go_on.set()
        producer.join()
        status = job.wait(90)
    assert status.state == "succeeded"
    assert len(check_job(spec.directory.uri, status.model_dump(mode="json"))) == PART + 1


ENQUEUE = """
import json, resource, sys
from millrace.producer import submit
job = submit(sys.argv[1], model="any", output=sys.argv[2], manifest=sys.argv[3], job_id=sys.argv[4])
total = job.status().counts.total
print(json.dumps([total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def test_memory_does_not_grow_with_the_number_of_keys(redis_url: str, tmp_path: Path) -> None:
    services = Services(Settings.load(redis_url=redis_url))
    (tmp_path / "in").mkdir()
    megabytes = {}
    empty = services.redis.raw.info("memory")["used_memory"]
    for rows in (20_000, 400_000):
        manifest = tmp_path / f"{rows}.txt"
        with manifest.open("w") as file:
            file.writelines(f"some/folder/image-{n:08d}.jpg\n" for n in range(rows))
        done = subprocess.run(
            [
                *(sys.executable, "-c", ENQUEUE, str(tmp_path / "in"), str(tmp_path / "out")),
                *(str(manifest), f"job-{rows}"),
            ],
            env={"MILLRACE_REDIS_URL": redis_url, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        total, kilobytes = json.loads(done.stdout)
        assert total == rows
        megabytes[rows] = kilobytes / 1024
    assert megabytes[400_000] - megabytes[20_000] < 25, megabytes
    # Redis holds a window of messages and a record, not the keys.
    assert services.redis.raw.info("memory")["used_memory"] - empty < 500_000
    assert services.redis.raw.llen("millrace.any") == 2 * services.settings.window
