"""Finalization: what is published, how a job ends, and that it ends once."""

from __future__ import annotations

import inspect
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.chunks import PART_ROWS
from millrace.core.errors import (
    AccessDenied,
    CorruptRecord,
    ItemError,
    JobNotFound,
    ObjectNotFound,
    Stage,
    StorageUnavailable,
)
from millrace.core.finalize import now_and_then, verdict
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.locks import FINALIZER_LOCK_S, finalizing
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line, tally
from millrace.core.record import Counts, JobRecord, TimingTotals, initial_fields
from millrace.core.services import Services
from millrace.core.status import status_of
from millrace.core.topology import JobKeys
from tests.faults.s3_proxy import Asked, s3_proxy
from tests.unit.core.support import MODEL, a_spec, a_tally, a_worker, created, standing_job

QUEUE = "millrace.tiny"
BAD = ItemError(Stage.DECODE, "bad_image", "no image")


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return a_spec("j", output=str(tmp_path))


def work(services: Services, spec: JobSpec, chunk: int, *, good: str) -> bool:
    """Run a chunk of two rows the way a worker does; `good` holds the keys that succeed."""
    rows = [ManifestRow(str(2 * chunk)), ManifestRow(str(2 * chunk + 1))]
    lines = [
        prediction_line(row, []) if row.key in good else error_line(row, BAD, 1) for row in rows
    ]
    directory = JobDirectory(services.stores, spec.directory)
    body = directory.create_chunk(spec.plan, chunk, encode_lines(lines))
    worker = a_worker(services)
    _, lease = worker.claim(QUEUE, spec.job_id, chunk, MODEL)
    return worker.finish(lease, tally(body, rows), TimingTotals(1, 1, 1, 1))[1]


def published(spec: JobSpec, name: str) -> bytes | None:
    file = Path(spec.directory.root, name)
    return file.read_bytes() if file.exists() else None


def summary(spec: JobSpec) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(published(spec, "summary.json") or b"null")
    return found


def test_a_job_without_errors_succeeds(services: Services, spec: JobSpec) -> None:
    standing_job(services, spec, rows=4)
    assert not work(services, spec, 0, good="01")
    assert work(services, spec, 1, good="23")
    assert services.finalizer.finalize("j")
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.SUCCEEDED, None)
    assert record.completed_at is not None
    assert published(spec, "_SUCCESS") == b""
    assert published(spec, "errors.jsonl") == b""


def test_the_errors_are_published_in_one_place_in_order(services: Services, spec: JobSpec) -> None:
    standing_job(services, spec, rows=6)
    work(services, spec, 2, good="4")
    work(services, spec, 0, good="1")
    work(services, spec, 1, good="23")
    assert services.finalizer.finalize("j")
    assert services.jobs.record("j").state is JobState.COMPLETED_WITH_ERRORS
    lines = (published(spec, "errors.jsonl") or b"").splitlines()
    assert lines == [error_line(ManifestRow(key), BAD, 1) for key in ("0", "5")]
    assert published(spec, "_SUCCESS") == b""


def test_a_job_of_which_nothing_succeeded_has_failed(services: Services, spec: JobSpec) -> None:
    standing_job(services, spec, rows=2)
    work(services, spec, 0, good="")
    services.finalizer.finalize("j")
    assert services.jobs.record("j").state is JobState.FAILED
    assert published(spec, "_SUCCESS") is None
    assert len((published(spec, "errors.jsonl") or b"").splitlines()) == 2


def test_a_cancelled_job_publishes_what_there_is(services: Services, spec: JobSpec) -> None:
    standing_job(services, spec, rows=6)
    work(services, spec, 0, good="0")
    assert services.jobs.stop("j", JobState.CANCELLED, "interrupted")
    services.finalizer.finalize("j")
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.CANCELLED, "interrupted")
    assert record.counts == Counts(total=6, succeeded=1, failed=1, skipped=0, cancelled=4)
    assert published(spec, "_SUCCESS") is None
    assert len((published(spec, "errors.jsonl") or b"").splitlines()) == 1


def uncounted(services: Services, spec: JobSpec) -> JobDirectory:
    """A cancelled job of two chunks, both in storage; one's worker died before it was counted."""
    standing_job(services, spec, rows=4)
    work(services, spec, 0, good="01")
    directory = JobDirectory(services.stores, spec.directory)
    body = encode_lines(prediction_line(ManifestRow(key), []) for key in "23")
    directory.create_chunk(spec.plan, 1, body)
    assert services.jobs.stop("j", JobState.CANCELLED, "requested")
    return directory


def test_a_chunk_that_was_never_counted_does_not_outlive_the_job(
    services: Services, spec: JobSpec
) -> None:
    directory = uncounted(services, spec)
    services.finalizer.finalize("j")
    assert list(directory.committed_chunks(spec.plan)) == [0]
    counts = summary(spec)["counts"]
    assert (counts["succeeded"], counts["cancelled"]) == (2, 2)


def test_a_chunk_that_must_not_be_removed_holds_up_no_end(
    services: Services, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = uncounted(services, spec)

    def refuse(*_: object) -> None:
        raise AccessDenied("no deleting here")

    monkeypatch.setattr(JobDirectory, "delete_chunk", refuse)
    assert services.finalizer.finalize("j")
    assert services.jobs.record("j").state is JobState.CANCELLED
    assert sorted(directory.committed_chunks(spec.plan)) == [0, 1]


def test_nothing_is_removed_once_redis_has_forgotten_what_counts(
    services: Services, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = uncounted(services, spec)
    done_bitmap = services.jobs.done_bitmap

    def wiped(job: str) -> bytes:
        services.redis.raw.flushdb()
        return done_bitmap(job)

    monkeypatch.setattr(services.jobs, "done_bitmap", wiped)
    assert not services.finalizer.finalize("j")
    assert sorted(directory.committed_chunks(spec.plan)) == [0, 1]


def test_an_input_without_images_has_failed_and_says_why(services: Services, spec: JobSpec) -> None:
    created(services, spec)
    services.jobs.listing_done("j")
    services.finalizer.finalize("j")
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.FAILED, "no_inputs")


def test_the_summary_is_the_last_status_without_what_was_live(
    services: Services, spec: JobSpec
) -> None:
    standing_job(services, spec, rows=6)
    work(services, spec, 0, good="0")
    services.jobs.stop("j", JobState.CANCELLED, "interrupted")
    services.finalizer.finalize("j")
    found = summary(spec)
    assert (found["state"], found["terminal"], found["reason"]) == (
        "cancelled",
        True,
        "interrupted",
    )
    assert found["counts"] == {
        "total": 6,
        "pending": 0,
        "succeeded": 1,
        "failed": 1,
        "skipped": 0,
        "cancelled": 4,
    }
    assert found["errors"]["by_code"] == {"decode/bad_image": 1}
    assert found["model"] == {"name": "tiny", "version": MODEL.version, "digest": MODEL.digest}
    assert found["timing_share"] == dict.fromkeys(("fetch", "decode", "infer", "write"), 0.25)
    assert found["completed_at"]
    assert found["millrace_version"]
    assert not {"health", "workers", "progress"} & set(found)


def test_the_summary_tells_of_the_whole_run_as_the_status_does_afterwards(
    services: Services, tmp_path: Path
) -> None:
    spec = a_spec("j", output=str(tmp_path), chunk_size=PART_ROWS)
    standing_job(services, spec, rows=PART_ROWS)
    worker = a_worker(services)
    _, lease = worker.claim(QUEUE, "j", 0, MODEL)
    an_hour_ago = int(services.redis.raw.hget(JobKeys("j").record, "started_ms")) - 3_600_000
    services.redis.raw.hset(JobKeys("j").record, "started_ms", an_hour_ago)
    worker.finish(lease, a_tally(PART_ROWS), TimingTotals(1, 1, 1, 1))
    assert services.finalizer.finalize("j")
    afterwards = status_of(services.jobs.snapshot("j")).model_dump(mode="json")
    assert afterwards["rate_images_per_s"] == pytest.approx(PART_ROWS / 3600, rel=0.05)
    for what in ("rate_images_per_s", "completed_at", "started_at", "state", "counts", "eta_s"):
        assert summary(spec)[what] == afterwards[what], what


def test_only_a_finalizing_job_is_finalized(services: Services, spec: JobSpec) -> None:
    standing_job(services, spec, rows=4)
    assert not services.finalizer.finalize("j")
    assert published(spec, "summary.json") is None
    with pytest.raises(JobNotFound):
        services.finalizer.finalize("nobody")


def test_a_job_is_finalized_once(services: Services, spec: JobSpec) -> None:
    created(services, spec)
    services.jobs.listing_done("j")
    ran: list[bool] = []
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        ran.append(services.finalizer.finalize("j"))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ran) == [False, False, False, True]
    assert not services.finalizer.finalize("j")


def test_while_another_process_finalizes_nobody_else_does(
    services: Services, spec: JobSpec
) -> None:
    created(services, spec)
    services.jobs.listing_done("j")
    with finalizing(services.redis, "j"):
        assert not services.finalizer.finalize("j")
    assert services.jobs.record("j").state is JobState.FINALIZING


def test_a_finalization_that_failed_is_left_to_the_next_reader(
    services: Services, spec: JobSpec
) -> None:
    standing_job(services, spec, rows=2)
    work(services, spec, 0, good="0")
    chunk = Path(spec.directory.root, "results/part-00000/chunk-0000000.jsonl")
    outcome = chunk.read_bytes()
    chunk.write_bytes(b"not an outcome\n")
    with pytest.raises(CorruptRecord):
        services.finalizer.finalize("j")
    assert services.jobs.record("j").state is JobState.FINALIZING
    assert published(spec, "_SUCCESS") is None
    chunk.write_bytes(outcome)
    assert services.finalizer.finalize("j")
    assert services.jobs.record("j").state is JobState.COMPLETED_WITH_ERRORS


def test_a_finalizer_that_died_midway_is_made_good(services: Services, spec: JobSpec) -> None:
    standing_job(services, spec, rows=2)
    work(services, spec, 0, good="0")
    services.finalizer.finalize("j")
    first = summary(spec)
    # As if it had died after `_SUCCESS` and before the record was concluded.
    services.redis.raw.hset(JobKeys("j").record, "state", "finalizing")
    assert services.finalizer.finalize("j")
    assert summary(spec)["counts"] == first["counts"]
    assert services.jobs.record("j").state is JobState.COMPLETED_WITH_ERRORS


def test_a_job_without_a_directory_ends_though_nothing_can_be_published(
    services: Services, tmp_path: Path
) -> None:
    standing_job(services, a_spec("j", output=str(tmp_path / "out")), rows=2)
    (tmp_path / "out").rename(tmp_path / "away")
    services.jobs.stop("j", JobState.FAILED, Reason.JOB_DIRECTORY_UNUSABLE)
    assert services.finalizer.finalize("j")
    record = services.jobs.record("j")
    assert (record.state, record.reason) == (JobState.FAILED, "job_directory_unusable")
    assert (record.counts.cancelled, record.counts.pending) == (2, 0)


def test_a_job_whose_directory_is_usable_after_all_is_published(
    services: Services, spec: JobSpec
) -> None:
    standing_job(services, spec, rows=2)
    services.jobs.stop("j", JobState.FAILED, Reason.JOB_DIRECTORY_UNUSABLE)
    assert services.finalizer.finalize("j")
    assert summary(spec)["reason"] == "job_directory_unusable"


@pytest.mark.parametrize("reason", [Reason.INTERRUPTED, Reason.MODEL_LOAD_FAILED])
def test_any_other_job_is_published_or_does_not_end(
    services: Services, tmp_path: Path, reason: Reason
) -> None:
    standing_job(services, a_spec("j", output=str(tmp_path / "out")), rows=2)
    (tmp_path / "out").rename(tmp_path / "away")
    (tmp_path / "out").touch()
    services.jobs.stop("j", JobState.FAILED, reason)
    with pytest.raises((ObjectNotFound, StorageUnavailable)):
        services.finalizer.finalize("j")
    assert services.jobs.record("j").state is JobState.FINALIZING
    (tmp_path / "out").unlink()
    (tmp_path / "away").rename(tmp_path / "out")
    assert services.finalizer.finalize("j")


def test_a_finalizer_that_was_overtaken_says_so(
    services: Services, s3: EmbeddedS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was so slow that its lock ran out, and another one concluded the job meanwhile."""
    spec = a_spec("j", output=f"s3://{bucket}/out")
    concluded: list[bool] = []

    def overtake(asked: Asked) -> None:
        if asked.path.endswith("summary.json") and not concluded:
            concluded.append(False)
            services.redis.raw.delete(JobKeys("j").finalizer)
            concluded.append(Services(services.settings).finalizer.finalize("j"))

    with s3_proxy(s3.endpoint, instead=overtake) as endpoint:
        created(Services(services.settings), spec)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        services.jobs.listing_done("j")
        assert not services.finalizer.finalize("j")
    assert concluded == [False, True]
    assert services.jobs.record("j").state is JobState.FAILED


@pytest.mark.parametrize(("every_s", "calls"), [(0, 3), (3600, 0)])
def test_a_call_is_made_between_items_when_it_is_time(every_s: float, calls: int) -> None:
    called: list[None] = []
    items = now_and_then(lambda: called.append(None), iter("abc"), every_s)
    assert called == []
    assert list(items) == ["a", "b", "c"]
    assert len(called) == calls


def test_the_lock_is_kept_more_often_than_it_runs_out() -> None:
    default = inspect.signature(now_and_then).parameters["every_s"].default
    assert default * 2 < FINALIZER_LOCK_S


def a_record(*counts: int, ending: str = "", listed: bool = True, reason: str = "") -> JobRecord:
    names = ("total", "succeeded", "failed", "skipped")
    fields = {
        **initial_fields(a_spec()),
        "created_ms": 1,
        "updated_ms": 1,
        "ending": ending,
        "reason": reason,
        "listing_complete": int(listed),
        **dict(zip(names, (sum(counts[:3]) + sum(counts[3:]), *counts[:3]), strict=True)),
    }
    return JobRecord.read({name.encode(): str(value).encode() for name, value in fields.items()})


@pytest.mark.parametrize(
    ("succeeded", "failed", "skipped", "state"),
    [
        (5, 0, 0, JobState.SUCCEEDED),
        (0, 0, 5, JobState.SUCCEEDED),
        (4, 0, 1, JobState.SUCCEEDED),
        (4, 1, 0, JobState.COMPLETED_WITH_ERRORS),
        (1, 4, 3, JobState.COMPLETED_WITH_ERRORS),
        (0, 5, 0, JobState.FAILED),
        (0, 3, 2, JobState.FAILED),
    ],
)
def test_a_job_ends_as_its_counts_say(
    succeeded: int, failed: int, skipped: int, state: JobState
) -> None:
    assert verdict(a_record(succeeded, failed, skipped)) == (state, None)


def test_a_job_given_up_ends_as_it_was_given_up() -> None:
    record = a_record(2, 1, 0, 3, ending="failed", reason="input_listing_failed")
    assert verdict(record) == (JobState.FAILED, "input_listing_failed")


def test_a_job_given_up_during_the_listing_is_given_up_even_if_nothing_is_pending() -> None:
    record = a_record(2, 0, 0, ending="cancelled", reason="interrupted", listed=False)
    assert verdict(record) == (JobState.CANCELLED, "interrupted")


def test_a_job_cancelled_after_its_last_image_ended_as_if_it_had_not_been() -> None:
    record = a_record(2, 0, 0, ending="cancelled", reason="interrupted")
    assert verdict(record) == (JobState.SUCCEEDED, None)


few = st.integers(0, 3)


@given(few, few, few, few, st.sampled_from(["", "cancelled", "failed", "expired"]), st.booleans())
def test_every_job_has_an_ending(
    succeeded: int, failed: int, skipped: int, pending: int, ending: str, listed: bool
) -> None:
    state, _ = verdict(a_record(succeeded, failed, skipped, pending, ending=ending, listed=listed))
    assert state.terminal
    assert state is not JobState.SUCCEEDED or not failed
