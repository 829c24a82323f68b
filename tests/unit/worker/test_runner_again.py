"""A chunk that is delivered twice, claimed too often, or run by two workers."""

from __future__ import annotations

import json
import threading

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.errors import ItemError, Stage
from millrace.core.job import JobSpec, JobState
from millrace.core.outcome import encode_lines, error_line
from tests.support import wait_until
from tests.unit.worker.runner_bench import MAX_ATTEMPTS, Bench, mean


def test_a_second_delivery_changes_nothing(bench: Bench) -> None:
    spec = bench.job(images=5)
    bench.handle(spec, 0)
    before, record = bench.predicted, bench.record(spec)
    (chunk,) = (bench.root / "out" / spec.job_id / "results").rglob("*.jsonl")
    written = chunk.stat()
    bench.handle(spec, 0, 0)
    assert bench.predicted == before
    assert bench.record(spec) == record
    assert chunk.stat() == written
    assert bench.attempts(spec, 0) == 0
    assert bench.in_hand.images == 3


def test_the_attempts_at_a_chunk_are_counted_until_it_is_finished(bench: Bench) -> None:
    spec = bench.job(images=5)
    bench.claims.release(bench.claim(spec, 0))
    seen: list[int] = []

    def noting(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(bench.attempts(spec, 0))
        return mean(batch)

    bench.predict = noting
    bench.handle(spec, 0)
    assert seen[0] == 2
    assert set(seen[1:]) == {1}  # one image survived: that is progress
    assert bench.attempts(spec, 0) == 0


def test_a_chunk_that_waits_while_another_is_alone_is_not_attempted(bench: Bench) -> None:
    """So that the death it may wait for is not held against it."""
    spec = bench.job(images=5)
    bench.claims.release(bench.claim(spec, 0))
    alone, go_on = threading.Event(), threading.Event()

    def slow(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(bench.attempts(spec, 1))
        alone.set()
        assert go_on.wait(30)
        return mean(batch)

    seen: list[int] = []
    bench.predict = slow
    suspect = threading.Thread(target=bench.handle, args=(spec, 0))
    suspect.start()
    assert alone.wait(30)
    innocent = threading.Thread(target=bench.handle, args=(spec, 1))
    innocent.start()
    running = bench.services.jobs.running_chunks
    wait_until(lambda: running(spec.job_id) == {0, 1} and bench.attempts(spec, 1) == 0, 10)
    go_on.set()
    suspect.join(30)
    innocent.join(30)
    assert set(seen[:3]) == {0}  # the suspect's three images, one by one
    assert set(seen[3:]) == {1}
    assert bench.record(spec).state is JobState.SUCCEEDED


def other_outcome(bench: Bench, spec: JobSpec) -> bytes:
    """What another worker committed for the first chunk: every image failed."""
    failure = ItemError(Stage.INFER, "elsewhere", "not here")
    return encode_lines(error_line(row, failure, 1) for row in bench.rows(spec)[:3])


def test_what_stands_is_counted_and_not_computed_again(bench: Bench) -> None:
    spec = bench.job(images=5)
    lost = bench.claim(spec, 0)  # a worker that committed and died before it could count
    body = other_outcome(bench, spec)
    bench.directory(spec).create_chunk(spec.plan, 0, body)
    bench.claims.release(lost)
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert bench.directory(spec).read_chunk(spec.plan, 0) == body
    assert (bench.record(spec).counts.succeeded, bench.record(spec).counts.failed) == (0, 3)
    assert bench.services.jobs.snapshot(spec.job_id).by_code == {"infer/elsewhere": 3}


def test_of_two_that_computed_a_chunk_the_first_to_commit_counts(bench: Bench) -> None:
    spec = bench.job(images=5)
    body = other_outcome(bench, spec)

    def overtaken(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        bench.directory(spec).create_chunk(spec.plan, 0, body)
        return mean(batch)

    bench.predict = overtaken
    bench.handle(spec, 0)
    assert bench.predicted == 3
    assert bench.directory(spec).read_chunk(spec.plan, 0) == body
    assert (bench.record(spec).counts.succeeded, bench.record(spec).counts.failed) == (0, 3)


def test_per_image_copies_are_written_from_what_stands(bench: Bench) -> None:
    spec = bench.job(images=3, layout="per-image")
    lost = bench.claim(spec, 0)
    bench.directory(spec).create_chunk(spec.plan, 0, other_outcome(bench, spec))
    bench.claims.release(lost)
    bench.handle(spec, 0)
    copy = bench.root / "out" / spec.job_id / "by-key" / "00.png.json"
    assert json.loads(copy.read_bytes())["error"]["code"] == "elsewhere"


@pytest.mark.parametrize("body", [b"", b"nonsense\n", b'{"key":"x","predictions":[]}\n' * 3])
def test_what_stands_and_is_no_outcome_of_the_chunk_is_not_counted(
    body: bytes, bench: Bench
) -> None:
    spec = bench.job(images=5)
    bench.directory(spec).create_chunk(spec.plan, 0, body)
    bench.handle(spec, 0)
    assert bench.record(spec).done == 0
    assert bench.leases() == []
    assert bench.attempts(spec, 0) == 1
    assert bench.directory(spec).read_chunk(spec.plan, 0) == body


def test_a_chunk_claimed_too_often_is_given_up_row_by_row(bench: Bench) -> None:
    spec = bench.job(images=5)
    for _ in range(MAX_ATTEMPTS):
        bench.claims.release(bench.claim(spec, 0))
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert [line["key"] for line in bench.lines(spec, 0)] == bench.keys(spec)[:3]
    for line in bench.lines(spec, 0):
        assert line["error"]["code"] == "worker_crashed"
        assert line["error"]["stage"] == "infer"
        assert line["error"]["retryable"] is True
        assert line["error"]["attempts"] == MAX_ATTEMPTS + 1
        assert f"{MAX_ATTEMPTS} times" in line["error"]["message"]
    bench.handle(spec, 1)
    assert bench.record(spec).state is JobState.COMPLETED_WITH_ERRORS


def test_a_chunk_claimed_too_often_but_committed_is_not_given_up(bench: Bench) -> None:
    spec = bench.job(images=3)
    for _ in range(MAX_ATTEMPTS):
        bench.claims.release(bench.claim(spec, 0))
    bench.directory(spec).create_chunk(spec.plan, 0, other_outcome(bench, spec))
    bench.handle(spec, 0)
    assert {line["error"]["code"] for line in bench.lines(spec, 0)} == {"elsewhere"}
