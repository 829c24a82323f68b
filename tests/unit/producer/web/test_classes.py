"""Best labels counted a chunk at a time, each chunk once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.core.bitmaps import bitmap
from millrace.core.job import JobSpec
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, prediction_line
from millrace.core.services import Services
from millrace.producer.web.classes import ClassCounts, Classes
from millrace.producer.web.job_files import JobFiles
from tests.support import wait_until
from tests.unit.producer.support import directory_of, listed_job, work


@pytest.fixture
def classes(services: Services) -> Iterator[Classes]:
    made = Classes(services, JobFiles(services))
    yield made
    made.close()


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    """Ten images in five chunks; the first image fails, the others are cats."""
    return listed_job(services, tmp_path / "out", images=10)


def counted(classes: Classes, services: Services, spec: JobSpec) -> ClassCounts:
    """Once nothing waits any more."""

    def done() -> ClassCounts | None:
        found = classes.of(spec, services.jobs.done_bitmap(spec.job_id), 10)
        return None if found.waiting else found

    found: ClassCounts = wait_until(done, 10, "the classes are counted")
    return found


def test_what_is_finished_is_counted_and_later_what_is_added(
    services: Services, classes: Classes, job: JobSpec
) -> None:
    assert classes.of(job, b"", 10) == ClassCounts([], 0, 0, 0, 0)
    work(services, job, 0, 3, failing={0: "decode/corrupt"})
    assert counted(classes, services, job) == ClassCounts([("cat", 3)], 0, 1, 3, 0)
    work(services, job, 1, 2, 4)
    assert counted(classes, services, job) == ClassCounts([("cat", 9)], 0, 1, 9, 0)


def test_a_chunk_is_read_once(services: Services, classes: Classes, job: JobSpec) -> None:
    work(services, job, 0, 1)
    counted(classes, services, job)
    for path in Path(job.directory.root).rglob("chunk-*.jsonl"):
        path.unlink()
    assert counted(classes, services, job).images == 4


def test_looking_reads_nothing(services: Services, classes: Classes, job: JobSpec) -> None:
    work(services, job, 0)
    classes.close()
    found = classes.of(job, services.jobs.done_bitmap("j"), 10)
    assert found == ClassCounts([], 0, 0, 0, 1)


def test_the_most_frequent_come_first_and_the_others_are_summed(
    services: Services, classes: Classes, job: JobSpec
) -> None:
    directory = directory_of(services, job)
    for chunk, labels in enumerate([("a", "b"), ("b", "c"), ("b", "<b>")]):
        lines = [
            prediction_line(ManifestRow(f"{n}.jpg"), [{"label": x, "index": 0, "score": 1.0}])
            for n, x in enumerate(labels)
        ]
        directory.create_chunk(job.plan, chunk, encode_lines(lines))
    services.redis.raw.set("millrace:{j}:done", bitmap([0, 1, 2]))
    counted(classes, services, job)
    found = classes.of(job, services.jobs.done_bitmap("j"), 1)
    assert found == ClassCounts([("b", 3)], 3, 4, 6, 0)


def test_a_chunk_that_is_damaged_takes_nothing_but_itself_away(
    services: Services, classes: Classes, job: JobSpec
) -> None:
    work(services, job, 0, 1, 2)
    broken = next(Path(job.directory.root).rglob("chunk-0000001.jsonl"))
    broken.write_bytes(b"nonsense\n")
    assert counted(classes, services, job).images == 4


def test_what_cannot_be_read_is_waited_for_only_now_and_then(
    services: Services, classes: Classes, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(services, job, 0)
    record = Path(job.directory.root) / "job.json"
    kept = record.read_bytes()
    record.unlink()
    found = counted(classes, services, job)
    assert (found.images, found.waiting, found.away) == (0, 0, True)
    record.write_bytes(kept)
    assert counted(classes, services, job).away
    monkeypatch.setattr("millrace.producer.web.classes.AGAIN_S", 0)
    assert counted(classes, services, job) == ClassCounts([("cat", 2)], 0, 1, 2, 0)
