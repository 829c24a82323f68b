"""One worker process's engine, whole: a real model, real Redis, real files."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.bundle import Bundle, read_bundle
from millrace.core.celery_app import make_app
from millrace.core.claims import Claims, ModelIdentity
from millrace.core.errors import ModelError
from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.message import ChunkMessage
from millrace.core.outcome import Tally
from millrace.core.record import TimingTotals
from millrace.core.running import Running
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage.local import LocalStore
from millrace.core.topology import JobKeys, QueueKeys, chunk_object
from millrace.worker.agreement import Crew
from millrace.worker.engine import Engine, queues_of
from millrace.worker.options import WorkerOptions
from millrace.worker.session import Session
from tests.support import random_pixels, submitted, wait_until, write_pngs
from tests.unit.worker.saved_models import Workshop

pytestmark = pytest.mark.usefixtures("no_environment")

SOON_S = 5
"""Sooner than the heart beats by itself."""

LABELS = ("north", "east", "south", "west")


@pytest.fixture(scope="module")
def bundle(repository: Path) -> Bundle:
    return read_bundle(repository / "tiny" / "1")


def engine_of(settings: Settings, bundle: Bundle, crew: int = 1, **options: Any) -> Engine:
    wanted = {"model": "tiny", "batch_size": 4, "decode_threads": 2, "threads": 1} | options
    return Engine(
        settings, WorkerOptions.load(**wanted), bundle, make_app(settings), Crew(crew=crew)
    )


@pytest.fixture
def engine(settings: Settings, bundle: Bundle) -> Iterator[Engine]:
    made = engine_of(settings, bundle)
    made.load()
    yield made
    made.stop()


def job(services: Services, root: Path, images: int, **fields: Any) -> JobSpec:
    write_pngs(root / "in", images)
    return submitted(services, root, chunk_size=4, **fields)


def state(services: Services, engine: Engine) -> str | None:
    states = {seen.info.worker: seen.info.state for seen in services.fleet.workers()}
    return states.get(engine.name)


def test_it_predicts_what_the_model_predicts(
    engine: Engine, bundle: Bundle, services: Services, tmp_path: Path
) -> None:
    spec = job(services, tmp_path, 6, top_k=2)
    for chunk in (1, 0):
        engine.handle(ChunkMessage(job=spec.job_id, chunk=chunk))
    record = services.jobs.record(spec.job_id)
    assert record.state is JobState.SUCCEEDED
    assert (record.version, record.digest) == ("1", bundle.digest)
    session = Session(bundle)
    directory = JobDirectory(services.stores, spec.directory)
    lines = [
        json.loads(line)
        for chunk in (0, 1)
        for line in (directory.read_chunk(spec.plan, chunk) or b"").splitlines()
    ]
    assert len(lines) == 6
    for line in lines:
        pixels = random_pixels(int(line["key"][0]), (8, 8))
        (row,) = session.predict(pixels[np.newaxis, :, :, np.newaxis])
        best = sorted(range(4), key=lambda index: -row[index])[:2]
        assert [p["index"] for p in line["predictions"]] == best
        assert [p["label"] for p in line["predictions"]] == [LABELS[index] for index in best]
        scores = [p["score"] for p in line["predictions"]]
        np.testing.assert_allclose(scores, row[best], atol=1e-4)


def test_it_is_in_the_fleet_from_loading_to_its_end(
    settings: Settings, bundle: Bundle, services: Services
) -> None:
    engine = engine_of(settings, bundle)
    assert state(services, engine) is None
    engine.load()
    wait_until(lambda: state(services, engine) == "idle", 10)
    engine.begin_stop()
    engine.stop()
    assert state(services, engine) is None


def test_the_fleet_knows_how_it_runs_the_model_and_soon_how_that_agrees_with_float32(
    settings: Settings, bundle: Bundle, services: Services, tmp_path: Path
) -> None:
    assert settings.lease_s / 3 > SOON_S
    engine = engine_of(settings, bundle, crew=4, engine="tensorflow", precision="bfloat16")

    def running() -> Running | None:
        return next(seen.info.running for seen in services.fleet.workers())

    engine.load()
    try:
        loaded = Running("tensorflow", "it was asked for", "bfloat16", 4, to_compare=16)
        wait_until(lambda: running() == loaded, SOON_S)
        spec = job(services, tmp_path, 4)
        engine.handle(ChunkMessage(job=spec.job_id, chunk=0))
        wait_until(lambda: (running() or loaded).compared == 4, SOON_S)
        told = running()
        assert told is not None
        assert told.top_1_agreement is not None
    finally:
        engine.stop()


def test_once_stopping_it_takes_no_more(engine: Engine, services: Services, tmp_path: Path) -> None:
    spec = job(services, tmp_path, 4)
    assert engine.begin_stop() == 0
    engine.handle(ChunkMessage(job=spec.job_id, chunk=0))
    assert services.jobs.record(spec.job_id).done == 0
    assert services.jobs.running_chunks(spec.job_id) == set()


class Slow:
    """Files whose readers wait until they are let go."""

    def __init__(self) -> None:
        self._gates: dict[str, threading.Event] = {}

    def wait(self, path: Path) -> None:
        if gate := self._gates.get(str(path)):
            gate.wait(60)

    def hold(self, path: Path) -> None:
        self._gates[str(path)] = threading.Event()

    def let_go(self) -> None:
        for gate in self._gates.values():
            gate.set()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made, get = Slow(), LocalStore.get

    def wait_and_get(self: LocalStore, key: str, **options: Any) -> bytes:
        made.wait(Path(self._root, key))
        return get(self, key, **options)

    monkeypatch.setattr(LocalStore, "get", wait_and_get)
    yield made
    made.let_go()


def stuck_job(services: Services, root: Path, slow: Slow) -> JobSpec:
    """A job whose second image is not an image, and does not come."""
    (root / "in").mkdir(parents=True)
    (root / "in" / "slow.png").touch()
    slow.hold(root / "in" / "slow.png")
    return job(services, root, 1)


@pytest.fixture
def stuck(services: Services, tmp_path: Path, slow: Slow) -> JobSpec:
    return stuck_job(services, tmp_path, slow)


def test_stopping_waits_for_the_chunk_in_hand(
    settings: Settings, bundle: Bundle, services: Services, stuck: JobSpec, slow: Slow
) -> None:
    spec = stuck
    engine = engine_of(settings, bundle)
    engine.load()
    message = ChunkMessage(job=spec.job_id, chunk=0)
    threading.Thread(target=engine.handle, args=(message,), daemon=True).start()
    wait_until(lambda: engine.meters.leases() == 1, 10)
    assert engine.begin_stop() == 1
    stopping = threading.Thread(target=engine.stop, daemon=True)
    stopping.start()
    stopping.join(0.2)  # time enough to end, if it did not wait
    assert stopping.is_alive()
    slow.let_go()
    stopping.join(20)
    assert not stopping.is_alive()
    counts = services.jobs.record(spec.job_id).counts
    assert (counts.succeeded, counts.failed) == (1, 1)


def test_handing_back_frees_the_chunk_and_queues_it_again(
    engine: Engine, services: Services, stuck: JobSpec, slow: Slow
) -> None:
    spec = stuck
    services.redis.raw.delete(spec.queue)
    message = ChunkMessage(job=spec.job_id, chunk=0)
    running = threading.Thread(target=engine.handle, args=(message,), daemon=True)
    running.start()
    wait_until(lambda: engine.meters.leases() == 1, 10)
    assert engine.hand_back() == 1
    assert services.jobs.running_chunks(spec.job_id) == set()
    assert services.queue.waiting(spec.queue) == {(spec.job_id, 0)}
    assert services.redis.raw.hget(JobKeys(spec.job_id).attempts, 0) == b"0"
    slow.let_go()
    running.join(20)
    # What it computed after all is counted like any other outcome, once.
    assert services.jobs.record(spec.job_id).done == 1


def test_a_job_that_is_slow_to_finalize_costs_no_lease(
    redis_url: str, bundle: Bundle, tmp_path: Path, slow: Slow
) -> None:
    """Reconciling may take longer than a lease: the heart beats on meanwhile."""
    settings = Settings.load(redis_url=redis_url, lease_s=1, reconcile_s=0.6)
    engine = engine_of(settings, bundle)
    services = Services(settings)
    ending = job(services, tmp_path / "ending", 1)
    slow.hold(end_but_for_an_object(services, ending, bundle))
    spec = stuck_job(services, tmp_path / "stuck", slow)
    engine.load()
    raw = services.redis.raw
    wait_until(lambda: raw.exists(JobKeys(ending.job_id).finalizer), 10, "it is finalizing")
    message = ChunkMessage(job=spec.job_id, chunk=0)
    threading.Thread(target=engine.handle, args=(message,), daemon=True).start()
    wait_until(lambda: services.jobs.running_chunks(spec.job_id) == {0}, 10)
    leases = QueueKeys(spec.queue).leases
    ((_, first),) = raw.zrange(leases, 0, -1, withscores=True)
    try:
        wait_until(
            lambda: services.redis.now_ms() > first + 50, 10, "the lease's first term is over"
        )
        wait_until(
            lambda: raw.zcount(leases, services.redis.now_ms(), "+inf") == 1, 10, "it is renewed"
        )
    finally:
        slow.let_go()
        engine.stop()
        services.redis.close()


def end_but_for_an_object(services: Services, spec: JobSpec, bundle: Bundle) -> Path:
    """Finish a job's one chunk as an error; returns where its object belongs, which whoever
    finalizes the job reads."""
    claims = Claims(services.redis, worker="other", lease_s=30, max_attempts=3)
    identity = ModelIdentity("1", bundle.digest)
    _, lease = claims.claim(spec.queue, spec.job_id, 0, identity)
    tally = Tally(failed=1, by_code=Counter({"infer/internal": 1}))
    _, ready = claims.finish(lease, tally, TimingTotals())
    assert ready
    return Path(spec.directory.root) / chunk_object(0, 0)


def test_a_model_that_cannot_be_used_is_said_when_loading(
    settings: Settings, services: Services, made: Workshop
) -> None:
    engine = engine_of(settings, made("by_operations").bundle(tags=("serve",)))
    with pytest.raises(ModelError, match="tags"):
        engine.load()
    assert state(services, engine) is None


def test_labels_that_do_not_fit_are_said_when_loading(settings: Settings, bundle: Bundle) -> None:
    engine = engine_of(settings, Bundle(bundle.path, bundle.card, (*LABELS, "up")))
    with pytest.raises(ModelError, match="5 labels"):
        engine.load()


def test_it_serves_unpinned_jobs_and_those_of_its_version(bundle: Bundle) -> None:
    assert queues_of(bundle) == ("millrace.tiny", "millrace.tiny:1")
    plain = Bundle(bundle.path, bundle.card.model_copy(update={"version": None}), ())
    assert queues_of(plain) == ("millrace.tiny",)
