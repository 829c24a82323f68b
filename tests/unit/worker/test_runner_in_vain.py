"""A chunk that cannot be run or committed, or whose job ends meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from millrace.cli.embedded_server import free_port
from millrace.core.job import JobState, Reason
from tests.unit.worker.runner_bench import MAX_ATTEMPTS, Bench, bench_with, mean


def test_a_commit_that_fails_gives_the_lease_back_and_is_not_held_against_the_chunk(
    bench: Bench,
) -> None:
    spec = bench.job(images=3)
    results = bench.root / "out" / spec.job_id / "results"
    results.write_text("a file where the directory of chunks should be")
    # More often than a chunk may be attempted: storage that is away is no poison.
    for _ in range(7):
        bench.handle(spec, 0)
    assert bench.record(spec).done == 0
    assert bench.leases() == []
    assert bench.services.jobs.running_chunks(spec.job_id) == set()
    assert bench.in_hand.leases() == []
    assert bench.attempts(spec, 0) == 0
    results.unlink()
    bench.handle(spec, 0)
    assert bench.record(spec).state is JobState.SUCCEEDED
    assert bench.record(spec).counts.succeeded == 3


def test_storage_that_is_away_gives_the_attempt_back(
    bench: Bench, bucket: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.job(images=3, output=f"s3://{bucket}/out")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        with bench_with(redis_url, bench.root, storage_max_retries=0) as cut_off:
            for _ in range(MAX_ATTEMPTS + 1):
                cut_off.handle(spec, 0)
                assert cut_off.attempts(spec, 0) == 0
                assert cut_off.leases() == []
    assert bench.record(spec).state is JobState.RUNNING
    bench.handle(spec, 0)
    assert bench.record(spec).state is JobState.SUCCEEDED


def drop_manifest(job: Path) -> None:
    (job / "manifest" / "part-00000.jsonl").unlink()


def put_file_in_its_place(job: Path) -> None:
    job.rename(job.with_name("moved"))
    job.write_text("no directory")


@pytest.mark.parametrize("spoil", [drop_manifest, put_file_in_its_place])
def test_a_directory_no_chunk_can_be_run_in_ends_the_job_when_it_was_tried_often_enough(
    spoil: Callable[[Path], None], bench: Bench
) -> None:
    spec = bench.job(images=5)
    spoil(bench.root / "out" / spec.job_id)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        bench.handle(spec, 0)
        assert bench.attempts(spec, 0) == attempt
        assert bench.record(spec).state is JobState.RUNNING
        assert bench.leases() == []
    bench.handle(spec, 0)
    record = bench.record(spec)
    assert (record.state, record.reason) == (JobState.FAILED, Reason.JOB_DIRECTORY_UNUSABLE)
    assert (record.done, record.counts.cancelled) == (0, 5)
    assert bench.leases() == []
    assert bench.in_hand.leases() == []
    bench.handle(spec, 1)
    assert bench.predicted == 0


def test_a_directory_that_cannot_be_used_is_given_up_when_other_chunks_in_hand_have_ended(
    bench: Bench,
) -> None:
    spec = bench.job(images=5)
    other = bench.claim(spec, 1)
    drop_manifest(bench.root / "out" / spec.job_id)
    for _ in range(MAX_ATTEMPTS + 1):
        bench.handle(spec, 0)
    assert bench.record(spec).state is JobState.CANCELLING
    assert bench.claims.release(other)
    bench.services.finalizer.finalize(spec.job_id)
    summary = json.loads((bench.root / "out" / spec.job_id / "summary.json").read_bytes())
    assert (summary["state"], summary["reason"]) == ("failed", "job_directory_unusable")


def test_a_manifest_that_is_back_in_time_costs_nothing(bench: Bench) -> None:
    spec = bench.job(images=3)
    part = bench.root / "out" / spec.job_id / "manifest" / "part-00000.jsonl"
    part.rename(bench.root / "kept")
    for _ in range(MAX_ATTEMPTS - 1):
        bench.handle(spec, 0)
    (bench.root / "kept").rename(part)
    bench.handle(spec, 0)
    assert bench.record(spec).state is JobState.SUCCEEDED


def test_a_chunk_of_a_cancelled_job_in_hand_is_still_counted(bench: Bench) -> None:
    spec = bench.job(images=5)

    def cancelling(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        bench.services.jobs.stop(spec.job_id, JobState.CANCELLED, Reason.INTERRUPTED)
        return mean(batch)

    bench.predict = cancelling
    bench.handle(spec, 0)
    record = bench.record(spec)
    assert record.state is JobState.CANCELLED
    assert (record.counts.succeeded, record.counts.cancelled) == (3, 2)


def test_failing_in_the_last_chunk_of_a_cancelled_job_ends_it(bench: Bench) -> None:
    spec = bench.job(images=5)
    results = bench.root / "out" / spec.job_id / "results"

    def cancelling(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        bench.services.jobs.stop(spec.job_id, JobState.CANCELLED, Reason.INTERRUPTED)
        results.write_text("in the way")
        return mean(batch)

    bench.predict = cancelling
    bench.handle(spec, 0)
    assert bench.record(spec).counts.succeeded == 0
    # Its results cannot be listed, so it ends only when the way is free again.
    results.unlink()
    bench.services.finalizer.finalize(spec.job_id)
    assert bench.record(spec).state is JobState.CANCELLED
