"""One message to its end: claim → run → commit → count → feed, on a real Redis and real files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from millrace.cli.embedded_server import free_port
from millrace.core.bottleneck import bottleneck_of
from millrace.core.claims import Answer, Claims, ModelIdentity
from millrace.core.job import JobState, Reason
from millrace.core.message import ChunkMessage
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.worker.runner import ChunkRunner, Model
from tests.support import capture_logs, write_png
from tests.unit.worker.runner_bench import (
    IDENTITY,
    MAX_ATTEMPTS,
    QUEUE,
    Bench,
    bench_with,
    mean,
    predictions_of,
)

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
    assert bottleneck_of(record.timing) is not None
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


def test_a_job_begun_with_another_version_is_handed_over_to_its_workers(bench: Bench) -> None:
    spec = bench.job(images=9)
    answer, _ = bench.claims.claim(QUEUE, spec.job_id, 2, ModelIdentity("2", "sha256:other"))
    assert answer is Answer.OK
    with capture_logs() as logs:
        bench.handle(spec, 0, 1)
    assert bench.services.queue.waiting(f"{QUEUE}:2") == {(spec.job_id, 0), (spec.job_id, 1)}
    assert bench.predicted == 0
    assert bench.attempts(spec, 0) == 0
    (told,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert told["event"] == "left a job to the model it began with"
    assert told["began_with"] == "version 2, sha256:other"


def test_the_model_a_job_begins_with_is_written_down_once(bench: Bench) -> None:
    spec = bench.job(images=9)
    bench.handle(spec, 0, 1, 2)
    assert bench.directory(spec).pinned_model() == IDENTITY


def test_storage_says_which_model_a_job_began_with(bench: Bench) -> None:
    """Redis had lost it, and let us claim."""
    spec = bench.job(images=5)
    began = ModelIdentity("2", "sha256:other")
    bench.directory(spec).pin_model(began)
    bench.handle(spec, 0)
    assert bench.predicted == 0
    assert bench.directory(spec).read_chunk(spec.plan, 0) is None
    assert bench.attempts(spec, 0) == 0
    assert bench.leases() == []
    record = bench.record(spec)
    assert (record.version, record.digest) == (began.version, began.digest)
    assert bench.claims.claim(QUEUE, spec.job_id, 0, IDENTITY)[0] is Answer.WRONG_MODEL
    assert bench.claims.claim(QUEUE, spec.job_id, 0, began)[0] is Answer.OK


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
