"""A job keeps the model it began with: real workers of two versions, on a real Redis."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.bundle import read_bundle
from millrace.core.claims import ModelIdentity
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.services import Services
from millrace.producer import Job
from millrace.producer.recover import restore
from millrace.producer.verify import verify
from millrace.worker.session import Session
from tests.faults.gate import Gate
from tests.support import (
    export_tiny,
    random_pixels,
    running_worker,
    submitted,
    wait_until,
    write_pngs,
)

IMAGES, CHUNK = 48, 4

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with `tiny:1` and `tiny:2`, which answer differently."""
    path = tmp_path_factory.mktemp("both")
    export_tiny(path)
    export_tiny(path, version="2", seed=8)
    return path


@pytest.fixture(scope="module")
def expected(both: Path) -> dict[str, list[int]]:
    """The best class of image n, by each version."""
    pixels = np.stack([random_pixels(n, (8, 8)) for n in range(IMAGES)])[..., np.newaxis]
    answers = {version: _best(both, version, pixels) for version in ("1", "2")}
    assert answers["1"] != answers["2"]
    return answers


def _best(repository: Path, version: str, pixels: npt.NDArray[np.uint8]) -> list[int]:
    scores = Session(read_bundle(repository / "tiny" / version)).predict(pixels)
    return [int(best) for best in scores.argmax(axis=1)]


class Stage:
    """A job, and workers that get no further than the gate lets them."""

    def __init__(self, services: Services, both: Path, root: Path) -> None:
        self.services, self.root, self.both = services, root, both
        self.gate = Gate(root / "gate")
        redis_url = services.settings.redis_url.get_secret_value()
        self.env = {
            "MILLRACE_REDIS_URL": redis_url,
            "MILLRACE_MODELS": str(both),
            "MILLRACE_SLOTS": "3",
            "MILLRACE_RECONCILE_S": "1",
            "MILLRACE_LEASE_S": "2",
            "MILLRACE_THREADS": "1",
            **self.gate.environment,
        }
        write_pngs(root / "in", IMAGES, digits=2)

    def worker(self, model: str, log: str) -> Any:
        return running_worker("--model", model, env=self.env, log=self.root / log)

    def begin_with_version_1(self, spec: JobSpec) -> None:
        """Let a worker of it run some chunks, and leave at once."""
        with self.worker("tiny:1", "one.log") as one:
            self.some_done(spec)
            one.signal()
            wait_until(lambda: "stopping" in one.log, 30)
            one.signal()
            one.wait()

    def digest(self, version: str) -> str:
        return read_bundle(self.both / "tiny" / version).digest

    def directory(self, spec: JobSpec) -> JobDirectory:
        return JobDirectory(self.services.stores, spec.directory)

    def done(self, spec: JobSpec) -> int:
        return self.services.jobs.record(spec.job_id).done

    def some_done(self, spec: JobSpec) -> None:
        """Let it get on, and not to its end."""
        self.gate.hold(0.15)
        wait_until(lambda: self.done(spec) >= 2, 60, "some chunks are done")
        self.gate.close()
        assert self.done(spec) < IMAGES // CHUNK

    def answers(self, spec: JobSpec) -> list[int]:
        """The best class of image n."""
        directory, plan = self.directory(spec), spec.plan
        found = {}
        for body in directory.read_chunks(plan, range(IMAGES // CHUNK)):
            for line in (body or b"").splitlines():
                outcome = json.loads(line)
                found[int(outcome["key"][:2])] = outcome["predictions"][0]["index"]
        return [found[n] for n in range(IMAGES)]

    def ends(self, spec: JobSpec) -> None:
        self.gate.open()
        job = Job(self.services, spec.job_id)
        wait_until(lambda: job.status().terminal, 90, "the job has ended")
        assert job.status().state is JobState.SUCCEEDED
        assert verify(self.services, self.directory(spec)).ok


@pytest.fixture
def stage(services: Services, both: Path, tmp_path: Path) -> Stage:
    """Its producer has no repository: the first claim says with which model a job begins."""
    return Stage(services, both, tmp_path)


def test_a_newer_version_s_worker_leaves_a_job_to_the_older_and_says_so(
    stage: Stage, expected: dict[str, list[int]]
) -> None:
    spec = submitted(stage.services, stage.root, chunk_size=CHUNK)
    assert (spec.model.version, spec.model.digest) == (None, None)
    with stage.worker("tiny:1", "one.log"):
        stage.some_done(spec)
        with stage.worker("tiny", "two.log") as two:
            wait_until(lambda: "left a job to the model it began with" in two.log, 60)
            stage.ends(spec)
    assert two.log.count("left a job to the model it began with") == 1
    record = stage.services.jobs.record(spec.job_id)
    assert (record.version, record.digest) == ("1", stage.digest("1"))
    assert stage.answers(spec) == expected["1"]


def test_a_job_keeps_the_model_it_began_with_though_redis_is_lost(
    stage: Stage, expected: dict[str, list[int]]
) -> None:
    spec = submitted(stage.services, stage.root, chunk_size=CHUNK)
    stage.begin_with_version_1(spec)
    began = stage.directory(spec).pinned_model()
    assert began == ModelIdentity("1", stage.digest("1"))
    stage.services.redis.raw.flushall()
    with stage.worker("tiny:2", "two.log") as two:
        job = restore(stage.services, stage.directory(spec))
        assert job.status().model.digest == stage.digest("1")
        before = stage.done(spec)
        wait_until(lambda: "left a job to the model it began with" in two.log, 60)
        assert job.status().health == "no_workers"
        with stage.worker("tiny:1", "again.log"):
            stage.ends(spec)
    assert before < IMAGES // CHUNK
    assert stage.answers(spec) == expected["1"]


def test_a_pin_that_redis_lost_and_gave_to_another_is_corrected_from_storage(
    stage: Stage, expected: dict[str, list[int]]
) -> None:
    spec = submitted(stage.services, stage.root, chunk_size=CHUNK)
    stage.begin_with_version_1(spec)
    # As if the record had been made anew in the moment before the first worker wrote.
    stage.services.jobs.pin(spec.job_id, ModelIdentity("", ""))
    stage.gate.open()
    with stage.worker("tiny:2", "two.log"):
        wait_until(
            lambda: stage.services.jobs.record(spec.job_id).version == "1", 60, "it is corrected"
        )
        with stage.worker("tiny:1", "again.log"):
            stage.ends(spec)
    assert stage.answers(spec) == expected["1"]


def test_a_version_published_while_a_job_is_under_way_changes_nothing(
    services: Services, tmp_path: Path, expected: dict[str, list[int]], both: Path
) -> None:
    """With a repository: version and digest are the spec's."""
    shelf = tmp_path / "models"
    export_tiny(shelf)
    known = Services(services.settings.model_copy(update={"models": str(shelf)}))
    stage = Stage(known, shelf, tmp_path)
    spec = submitted(known, stage.root, chunk_size=CHUNK)
    assert (spec.model.version, spec.model.digest) == ("1", stage.digest("1"))
    with stage.worker("tiny", "one.log"):
        stage.some_done(spec)
        shutil.copytree(both / "tiny" / "2", shelf / "tiny" / "2")
        with stage.worker("tiny", "two.log"):
            fleet = {seen.info.model for seen in known.fleet.workers()}
            assert fleet == {"tiny:1", "tiny:2"}
            stage.ends(spec)
    assert stage.answers(spec) == expected["1"]
    assert stage.directory(spec).pinned_model() is None
    later = submitted(known, stage.root, chunk_size=CHUNK, job_id="later")
    assert later.model.version == "2"
    known.redis.close()
