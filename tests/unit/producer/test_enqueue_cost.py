"""What enqueuing asks of Redis and leaves there: a constant per part, and next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.core.chunks import DEFAULT_CHUNK_SIZE, PART_ROWS
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer.enqueue import enqueue
from tests.unit.core.support import a_spec, created

COMMANDS_PER_PART = 40
"""Publish and feed, with what their scripts do; a part is 64 chunks."""


def rows(count: int) -> Iterator[ManifestRow]:
    return (ManifestRow(str(number), None, 1) for number in range(count))


def enqueued(services: Services, root: Path, parts: int) -> tuple[int, int]:
    """The commands Redis carried out for a job of so many parts, and the bytes it holds of it."""
    fields = {"output": str(root), "chunk_size": DEFAULT_CHUNK_SIZE}
    spec = created(services, a_spec(f"job-of-{parts:03d}", model=f"m{parts}", **fields))
    raw = services.redis.raw
    before = raw.info("stats")["total_commands_processed"]
    enqueue(services, spec, rows(parts * PART_ROWS))
    commands = raw.info("stats")["total_commands_processed"] - before
    keys = (*JobKeys(spec.job_id).all, spec.queue)
    return commands, sum(raw.memory_usage(key, samples=0) or 0 for key in keys)


@pytest.fixture
def costs(services: Services, tmp_path: Path) -> list[tuple[int, int]]:
    enqueued(services, tmp_path, 1)  # scripts are loaded, connections opened
    return [enqueued(services, tmp_path, parts) for parts in (2, 5, 8)]


def test_each_part_costs_the_same_few_commands(costs: list[tuple[int, int]]) -> None:
    (few, _), (more, _), (most, _) = costs
    assert most - more == more - few
    assert more - few < 3 * COMMANDS_PER_PART


def test_what_redis_holds_does_not_grow_with_the_manifest(costs: list[tuple[int, int]]) -> None:
    (_, few), _, (_, most) = costs
    assert most - few < 256, "longer numbers at most"
