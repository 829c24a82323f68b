"""Careful mode, on a real Redis: who dies with the same image twice names it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from millrace.core.claims import CONVICTED, Claims, Lease
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import JobKeys
from millrace.worker.batcher import BatchLimits, MicroBatcher
from millrace.worker.careful import Careful
from millrace.worker.pipeline import Image, Pipeline, Threads

ROWS = [ManifestRow(f"{number}.png") for number in range(4)]


@pytest.fixture
def services(settings: Settings) -> Services:
    return Services(settings)


@pytest.fixture
def claims(services: Services) -> Claims:
    return Claims(services.redis, worker="w", lease_s=30, max_attempts=5)


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    batcher = MicroBatcher(
        lambda batch: batch.astype(np.float32).reshape(len(batch), 1), BatchLimits(4, 0)
    )
    batcher.start()
    made = Pipeline(lambda data: np.frombuffer(data, np.uint8), batcher, Threads(1, 1, 4))
    yield made
    made.close()
    batcher.stop()


def lease(chunk: int = 3) -> Lease:
    return Lease("millrace.tiny", "job", chunk, "w/token", 2)


def fetch(row: ManifestRow) -> bytes:
    return bytes([int(row.key[0])])


def run(claims: Claims, pipeline: Pipeline) -> list[Image]:
    return Careful(claims, pipeline).run(lease(), ROWS, fetch)


def attempts(services: Services) -> int | None:
    noted = services.redis.raw.hget(JobKeys("job").attempts, "3")
    return None if noted is None else int(noted)


def test_images_that_harm_nobody_are_predicted_and_forgotten(
    claims: Claims, pipeline: Pipeline
) -> None:
    images = run(claims, pipeline)
    assert [image.scores.tolist() for image in images if image.scores is not None] == [
        [0.0],
        [1.0],
        [2.0],
        [3.0],
    ]
    assert claims.suspects(lease()) == {}


def test_an_image_is_noted_while_it_is_alone_in_flight(claims: Claims, pipeline: Pipeline) -> None:
    seen: list[dict[int, int]] = []

    def watched(row: ManifestRow) -> bytes:
        seen.append(claims.suspects(lease()))
        return fetch(row)

    Careful(claims, pipeline).run(lease(), ROWS, watched)
    assert seen == [{0: 1}, {1: 1}, {2: 1}, {3: 1}]


def test_dying_once_with_an_image_proves_nothing(claims: Claims, pipeline: Pipeline) -> None:
    claims.suspect(lease(), 2, 1)  # as a process notes that is gone a moment later
    assert all(image.error is None for image in run(claims, pipeline))
    assert claims.suspects(lease()) == {}


def test_dying_twice_with_it_does(claims: Claims, pipeline: Pipeline, services: Services) -> None:
    services.redis.raw.hset(JobKeys("job").attempts, "3", 4)
    claims.suspect(lease(), 2, 2)
    images = run(claims, pipeline)
    assert [image.row.key for image in images if image.error] == ["2.png"]
    assert images[2].error is not None
    assert images[2].error.code == "worker_crashed"
    # The chunk may hold others, which are to have their own tries.
    assert attempts(services) == 1
    assert claims.suspects(lease()) == {2: CONVICTED}


def test_one_that_is_named_stays_named_and_resets_nothing(
    claims: Claims, pipeline: Pipeline, services: Services
) -> None:
    run(claims, pipeline)
    claims.convict(lease(), 2)
    services.redis.raw.hset(JobKeys("job").attempts, "3", 3)
    assert [image.row.key for image in run(claims, pipeline) if image.error] == ["2.png"]
    assert attempts(services) == 3


def test_only_attempts_without_progress_count(
    claims: Claims, pipeline: Pipeline, services: Services
) -> None:
    services.redis.raw.hset(JobKeys("job").attempts, "3", 4)
    claims.acquit(lease(), 0)
    assert attempts(services) == 1
    services.redis.raw.hset(JobKeys("job").attempts, "3", 4)
    claims.acquit(lease(), 0)  # another attempt came no further
    assert attempts(services) == 4
    claims.acquit(lease(), 1)
    assert attempts(services) == 1


def test_other_chunks_are_not_suspected(claims: Claims, pipeline: Pipeline) -> None:
    claims.suspect(lease(33), 2, 2)
    assert all(image.error is None for image in run(claims, pipeline))
    assert claims.suspects(lease(33)) == {2: 2}


def test_a_process_that_is_told_to_end_blames_nobody(claims: Claims, pipeline: Pipeline) -> None:
    careful = Careful(claims, pipeline)
    claims.suspect(lease(), 1, 1)

    def stopped_midway(row: ManifestRow) -> bytes:
        if row.key == "1.png":
            careful.stopped(lease())
            assert claims.suspects(lease())[1] == 1
        return fetch(row)

    careful.run(lease(), ROWS, stopped_midway)
    assert claims.suspects(lease()) == {1: 1}
    careful.stopped(lease())
    assert claims.suspects(lease()) == {1: 1}
