"""One message to its end: claim → run → commit → count → feed, on a real Redis and real files."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.cli.embedded_server import free_port
from millrace.core.card import Card
from millrace.core.claims import Answer, Claims, Lease, ModelIdentity
from millrace.core.errors import ItemError, RedisUnavailable, Stage
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.message import ChunkMessage
from millrace.core.model_ref import ModelRef
from millrace.core.outcome import encode_lines, error_line
from millrace.core.record import JobRecord
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import JobKeys, QueueKeys
from millrace.producer.submit import make_spec, submit_spec
from millrace.worker.batcher import BatchLimits, MicroBatcher
from millrace.worker.images import ImageDecoder
from millrace.worker.in_hand import InHand
from millrace.worker.pipeline import Pipeline, Threads
from millrace.worker.runner import ChunkRunner, Model
from tests.support import wait_until, write_png

QUEUE = "millrace.mean"
IDENTITY = ModelIdentity("1", "sha256:mean")
MAX_ATTEMPTS = 2


def mean(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The model: the mean grey of each picture."""
    means: npt.NDArray[np.float32] = batch.mean(axis=(1, 2, 3), dtype=np.float32)
    return means[:, np.newaxis]


def predictions_of(scores: npt.NDArray[np.float32], top_k: int | None) -> list[dict[str, Any]]:
    if scores[0] == 255:
        raise ItemError(Stage.INFER, "too_bright", "white as snow")
    if scores[0] == 254:
        raise ValueError("almost white")
    if scores[0] == 253:
        return [{"mean": object()}]
    return [{"mean": float(scores[0]), "top_k": top_k}]


@dataclass
class Bench:
    """A runner over real services, a model that can be changed, and jobs to run."""

    services: Services
    root: Path
    in_hand: InHand = field(default_factory=InHand)
    predict: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]] = mean
    predicted: int = 0

    def __post_init__(self) -> None:
        card = Card.make(name="mean", signature="s", height=2, width=2, channels="L")
        self.claims = Claims(
            self.services.redis, worker="bench", lease_s=30, max_attempts=MAX_ATTEMPTS
        )
        self.batcher = MicroBatcher(self._call, BatchLimits(4, 0.001))
        self.batcher.start()
        self.pipeline = Pipeline(
            ImageDecoder(card, max_pixels=1_000_000).decode, self.batcher, Threads(4, 2, 16)
        )
        self.runner = ChunkRunner(
            self.services,
            self.claims,
            self.pipeline,
            Model(IDENTITY, (QUEUE,), predictions_of),
            self.in_hand,
        )

    def _call(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.predicted += len(batch)
        return self.predict(batch)

    def close(self) -> None:
        self.pipeline.close()
        self.batcher.stop()

    def job(self, images: int = 5, *, model: str = "mean", **fields: Any) -> JobSpec:
        """Submit `images` pictures, number n of grey n, in chunks of three."""
        for n in range(images):
            write_png(self.root / "in" / f"{n:02d}.png", np.full((2, 2), n, np.uint8))
        spec = make_spec(
            self.services,
            str(self.root / "in"),
            model=ModelRef.parse(model),
            output=fields.pop("output", str(self.root / "out")),
            **({"chunk_size": 3} | fields),
        )
        submit_spec(self.services, spec)
        return spec

    def directory(self, spec: JobSpec) -> JobDirectory:
        return JobDirectory(self.services.stores, spec.directory)

    def handle(self, spec: JobSpec, *chunks: int) -> None:
        for chunk in chunks:
            self.runner.handle(ChunkMessage(job=spec.job_id, chunk=chunk))

    def lines(self, spec: JobSpec, chunk: int) -> list[dict[str, Any]]:
        body = self.directory(spec).read_chunk(spec.plan, chunk)
        assert body is not None
        return [json.loads(line) for line in body.splitlines()]

    def rows(self, spec: JobSpec) -> list[ManifestRow]:
        """The manifest, in its order: a directory is listed in any."""
        return [decode_row(line) for line in self.directory(spec).part_lines(0)]

    def keys(self, spec: JobSpec) -> list[str]:
        return [row.key for row in self.rows(spec)]

    def record(self, spec: JobSpec) -> JobRecord:
        return self.services.jobs.record(spec.job_id)

    def attempts(self, spec: JobSpec, chunk: int) -> int:
        return int(self.services.redis.raw.hget(JobKeys(spec.job_id).attempts, chunk) or 0)

    def leases(self) -> list[bytes]:
        found: list[bytes] = self.services.redis.raw.zrange(QueueKeys(QUEUE).leases, 0, -1)
        return found

    def claim(self, spec: JobSpec, chunk: int) -> Lease:
        """As another worker would."""
        answer, lease = self.claims.claim(QUEUE, spec.job_id, chunk, IDENTITY)
        assert answer.holds_lease
        return lease


@pytest.fixture
def bench(services: Services, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(services, tmp_path)
    yield made
    made.close()


@contextmanager
def bench_with(redis_url: str, root: Path, **settings: Any) -> Iterator[Bench]:
    """A bench whose settings are not the usual ones."""
    services = Services(Settings.load(redis_url=redis_url, **settings))
    made = Bench(services, root)
    try:
        yield made
    finally:
        made.close()
        services.redis.close()


# --- what is written and counted ---


def test_a_chunk_is_one_object_of_a_line_per_row_in_manifest_order(bench: Bench) -> None:
    spec = bench.job(images=5)
    bench.handle(spec, 1, 0)
    rows = [json.loads(line) for line in bench.directory(spec).part_lines(0)]
    for chunk in (0, 1):
        expected = "".join(
            f'{{"key":"{row["key"]}","etag":{json.dumps(row["etag"])},"predictions":'
            f'[{{"mean":{float(int(row["key"][:2]))},"top_k":null}}]}}\n'
            for row in rows[3 * chunk : 3 * chunk + 3]
        )
        body = bench.directory(spec).read_chunk(spec.plan, chunk)
        assert body is not None
        assert body.decode() == expected


def test_the_last_chunk_ends_the_job(bench: Bench) -> None:
    spec = bench.job(images=5)
    bench.handle(spec, 0)
    assert bench.record(spec).state is JobState.RUNNING
    assert bench.record(spec).counts.succeeded == 3
    bench.handle(spec, 1)
    record = bench.record(spec)
    assert record.state is JobState.SUCCEEDED
    assert (record.counts.total, record.counts.succeeded, record.counts.failed) == (5, 5, 0)
    assert (record.version, record.digest) == (IDENTITY.version, IDENTITY.digest)
    assert record.timing.fetch > 0
    assert record.timing.decode > 0
    assert record.timing.write > 0
    assert (bench.root / "out" / spec.job_id / "_SUCCESS").is_file()
    assert bench.leases() == []


def test_a_bad_image_is_one_error_line(bench: Bench) -> None:
    (bench.root / "in").mkdir()
    (bench.root / "in" / "note.txt").write_text("no picture")
    write_png(bench.root / "in" / "white.png", np.full((2, 2), 255, np.uint8))
    spec = bench.job(images=2, chunk_size=8)
    bench.handle(spec, 0)
    by_key = {line["key"]: line for line in bench.lines(spec, 0)}
    assert by_key["note.txt"]["error"] == {
        "stage": "decode",
        "code": "not_an_image",
        "message": "not a picture millrace reads",
        "retryable": False,
        "attempts": 1,
    }
    assert by_key["white.png"]["error"]["code"] == "too_bright"
    assert by_key["01.png"]["predictions"] == [{"mean": 1.0, "top_k": None}]
    assert bench.record(spec).state is JobState.COMPLETED_WITH_ERRORS
    assert (bench.record(spec).counts.succeeded, bench.record(spec).counts.failed) == (2, 2)
    assert bench.services.jobs.snapshot(spec.job_id).by_code == {
        "decode/not_an_image": 1,
        "infer/too_bright": 1,
    }


@pytest.mark.parametrize(
    ("grey", "message"),
    [(254, "ValueError: almost white"), (253, "TypeError: Type is not JSON serializable: object")],
    ids=["a head that raises", "predictions that are no JSON"],
)
def test_a_head_that_fails_for_one_image_is_one_error_line(
    bench: Bench, grey: int, message: str
) -> None:
    write_png(bench.root / "in" / "bright.png", np.full((2, 2), grey, np.uint8))
    spec = bench.job(images=2, chunk_size=8)
    bench.handle(spec, 0)
    by_key = {line["key"]: line for line in bench.lines(spec, 0)}
    assert by_key["bright.png"]["error"] == {
        "stage": "infer",
        "code": "internal",
        "message": message,
        "retryable": True,
        "attempts": 1,
    }
    assert "predictions" in by_key["00.png"]
    assert "predictions" in by_key["01.png"]
    assert bench.record(spec).state is JobState.COMPLETED_WITH_ERRORS
    assert bench.predicted == 3


def test_what_changed_since_it_was_listed_is_an_error_line(bench: Bench) -> None:
    spec = bench.job(images=3)
    write_png(bench.root / "in" / "00.png", np.full((4, 4), 9, np.uint8))
    (bench.root / "in" / "01.png").unlink()
    bench.handle(spec, 0)
    by_key = {line["key"]: line for line in bench.lines(spec, 0)}
    assert by_key["00.png"]["error"]["code"] == "source_changed"
    assert by_key["01.png"]["error"]["code"] == "not_found"
    assert "predictions" in by_key["02.png"]


def test_an_object_over_the_limit_is_an_error_line(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large.png").write_bytes(b"x" * 101)
    with bench_with(redis_url, tmp_path, max_object_bytes=100) as bench:
        spec = bench.job(images=1, chunk_size=8)
        bench.handle(spec, 0)
        by_key = {line["key"]: line for line in bench.lines(spec, 0)}
    assert by_key["large.png"]["error"]["stage"] == "fetch"
    assert by_key["large.png"]["error"]["code"] == "too_large"
    assert "predictions" in by_key["00.png"]


def test_an_error_of_the_model_is_an_error_line(bench: Bench) -> None:
    def moody(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if (batch == 1).any():
            raise RuntimeError("not this one")
        return mean(batch)

    bench.predict = moody
    spec = bench.job(images=3)
    bench.handle(spec, 0)
    by_key = {line["key"]: line for line in bench.lines(spec, 0)}
    assert by_key["01.png"]["error"]["stage"] == "infer"
    assert "predictions" in by_key["00.png"]
    assert "predictions" in by_key["02.png"]


def test_the_job_says_how_many_classes(bench: Bench) -> None:
    spec = bench.job(images=1, top_k=7)
    bench.handle(spec, 0)
    assert bench.lines(spec, 0)[0]["predictions"] == [{"mean": 0.0, "top_k": 7}]


def test_per_image_layout_adds_a_copy_of_each_line(bench: Bench) -> None:
    (bench.root / "in" / "sub").mkdir(parents=True)
    write_png(bench.root / "in" / "sub" / "a%b.png", np.full((2, 2), 7, np.uint8))
    (bench.root / "in" / "bad.png").write_bytes(b"bad")
    spec = bench.job(images=2, layout="per-image", chunk_size=8)
    bench.handle(spec, 0)
    by_key = bench.root / "out" / spec.job_id / "by-key"
    copies = {str(p.relative_to(by_key)) for p in by_key.rglob("*") if p.is_file()}
    assert copies == {"00.png.json", "01.png.json", "bad.png.json", "sub/a%25b.png.json"}
    for line in bench.lines(spec, 0):
        copy = by_key / f"{line['key'].replace('%', '%25')}.json"
        assert json.loads(copy.read_bytes()) == line


def test_finishing_a_chunk_feeds_the_next(redis_url: str, tmp_path: Path) -> None:
    with bench_with(redis_url, tmp_path, window=1) as bench:
        spec = bench.job(images=9)
        fed = bench.record(spec).fed
        assert fed < bench.record(spec).chunks
        bench.handle(spec, 0)
        assert bench.record(spec).fed > fed


def test_several_threads_run_a_job_to_its_end(bench: Bench) -> None:
    spec = bench.job(images=60)
    threads = [
        threading.Thread(target=bench.handle, args=(spec, *range(20)[n::2])) for n in (0, 1, 1, 0)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    record = bench.record(spec)
    assert record.state is JobState.SUCCEEDED
    assert (record.counts.succeeded, record.done) == (60, 20)
    assert [line["key"] for n in range(20) for line in bench.lines(spec, n)] == bench.keys(spec)
    assert bench.in_hand.images == 60
    assert bench.leases() == []


# --- what is delivered twice, late, or in vain ---


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
    assert set(seen) == {2}
    assert bench.attempts(spec, 0) == 0


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


# --- what is dropped ---


def test_a_message_of_no_job_is_dropped(bench: Bench) -> None:
    bench.runner.handle(ChunkMessage(job="never-heard-of", chunk=0))
    assert bench.in_hand.leases() == []


def test_a_message_of_no_chunk_is_dropped(bench: Bench) -> None:
    spec = bench.job(images=5)
    bench.handle(spec, 2, 1000)
    assert bench.record(spec).done == 0
    assert bench.leases() == []


@pytest.mark.parametrize("model", ["median", "mean:2"])
def test_a_chunk_of_another_models_queue_is_dropped(model: str, bench: Bench) -> None:
    spec = bench.job(images=3, model=model)
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert bench.record(spec).state is JobState.RUNNING
    assert bench.record(spec).done == 0
    assert bench.attempts(spec, 0) == 0


def test_a_job_begun_with_another_build_of_the_model_is_left_alone(bench: Bench) -> None:
    spec = bench.job(images=5)
    answer, _ = bench.claims.claim(QUEUE, spec.job_id, 1, ModelIdentity("1", "sha256:other"))
    assert answer is Answer.OK
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert bench.record(spec).done == 0
    assert bench.attempts(spec, 0) == 0


def test_a_chunk_another_worker_has_is_left_to_it(bench: Bench) -> None:
    spec = bench.job(images=3)
    bench.claim(spec, 0)
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert len(bench.leases()) == 1
    assert bench.attempts(spec, 0) == 1


def test_a_chunk_of_an_ended_job_is_dropped(bench: Bench) -> None:
    spec = bench.job(images=5)
    if bench.services.jobs.stop(spec.job_id, JobState.CANCELLED, Reason.INTERRUPTED):
        bench.services.finalizer.finalize(spec.job_id)
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert bench.record(spec).state is JobState.CANCELLED


def test_without_redis_a_message_is_dropped_with_a_log_line(bench: Bench) -> None:
    spec = bench.job(images=3)
    gone = Services(Settings.load(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    claims = Claims(gone.redis, worker="bench", lease_s=30, max_attempts=MAX_ATTEMPTS)
    model = Model(IDENTITY, (QUEUE,), predictions_of)
    runner = ChunkRunner(gone, claims, bench.pipeline, model, bench.in_hand)
    runner.handle(ChunkMessage(job=spec.job_id, chunk=0))
    assert bench.predicted == 0
    gone.redis.close()


# --- what is in hand ---


def test_a_chunk_is_in_hand_while_it_runs(bench: Bench) -> None:
    spec = bench.job(images=5)
    seen: list[list[Lease]] = []

    def noting(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(bench.in_hand.leases())
        return mean(batch)

    bench.predict = noting
    bench.handle(spec, 0)
    assert {(lease.queue, lease.job, lease.chunk, lease.attempt) for (lease,) in seen} == {
        (QUEUE, spec.job_id, 0, 1)
    }
    assert bench.in_hand.leases() == []
    assert bench.in_hand.images == 3
    bench.handle(spec, 1)
    assert bench.in_hand.images == 5


def test_a_stopping_worker_hands_a_chunk_back_without_an_attempt(bench: Bench) -> None:
    spec = bench.job(images=3)
    bench.in_hand.close()
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert bench.leases() == []
    assert bench.services.jobs.running_chunks(spec.job_id) == set()
    assert bench.attempts(spec, 0) == 0
    assert bench.record(spec).done == 0


def test_closing_waits_for_the_chunk_that_runs(bench: Bench) -> None:
    spec = bench.job(images=3)
    running, go_on = threading.Event(), threading.Event()

    def waiting(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        running.set()
        assert go_on.wait(30)
        return mean(batch)

    bench.predict = waiting
    threading.Thread(target=bench.handle, args=(spec, 0), daemon=True).start()
    assert running.wait(30)
    assert bench.in_hand.close() == 1
    go_on.set()
    bench.in_hand.wait_empty()
    wait_until(lambda: bench.record(spec).state is JobState.SUCCEEDED, 10)


def failing_finish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, times: int, then: Callable[[], object]
) -> None:
    """`finish` fails so often; `then` is called with the last failure."""
    honest, failures = bench.claims.finish, iter(range(1, times + 1))

    def finish(*arguments: Any) -> Any:
        failure = next(failures, None)
        if failure is None:
            return honest(*arguments)
        if failure == times:
            then()
        raise RedisUnavailable("gone")

    monkeypatch.setattr(bench.claims, "finish", finish)
    monkeypatch.setattr("millrace.worker.runner.AGAIN_S", 0.001)


def test_a_committed_chunk_is_counted_when_redis_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.job()
    held: list[int] = []
    failing_finish(bench, monkeypatch, 3, lambda: held.append(len(bench.in_hand.leases())))
    bench.handle(spec, 0)
    assert held == [1]
    assert bench.record(spec).done == 1
    assert bench.predicted == 3


def test_a_worker_that_is_told_to_stop_does_not_wait_for_redis(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bench.job()
    failing_finish(bench, monkeypatch, 3, bench.in_hand.close)
    bench.handle(spec, 0)
    assert bench.in_hand.leases() == []
    assert bench.record(spec).done == 0
    assert len(bench.lines(spec, 0)) == 3


def test_a_chunk_in_hand_is_not_run_a_second_time_beside_itself(bench: Bench) -> None:
    spec = bench.job()
    lease = bench.claim(spec, 0)
    bench.in_hand.add(lease)
    bench.services.redis.raw.zadd(QueueKeys(QUEUE).leases, {lease.member: 1})  # it ran out
    bench.handle(spec, 0)
    assert bench.predicted == 0
    (held,) = bench.in_hand.leases()
    assert held.token != lease.token
    bench.claims.renew(QUEUE, "3|bench", [held])
    assert bench.services.redis.raw.zscore(QueueKeys(QUEUE).leases, lease.member) > 1
