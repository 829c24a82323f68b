"""What is restored from a job's directory when Redis has lost the job, and what is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.core.claims import Answer, Finish, ModelIdentity
from millrace.core.errors import CorruptRecord, JobConflict, ObjectNotFound
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.jobdir import decode_rows
from millrace.core.outcome import tally
from millrace.core.record import TimingTotals
from millrace.core.services import Services
from millrace.producer.control import cancel
from millrace.producer.job import Job
from millrace.producer.recover import restore
from millrace.producer.verify import verify
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_worker
from tests.unit.producer.support import (
    FAILING,
    directory_of,
    known,
    listed_job,
    lose,
    object_of,
    waiting,
    work,
)


@pytest.mark.parametrize(
    "done", [[], [0], [3, 4], [0, 2, 3, 6, 7], [*range(9)]], ids=lambda done: f"done={len(done)}"
)
def test_a_restored_record_equals_the_lost_one(
    services: Services, tmp_path: Path, done: list[int]
) -> None:
    spec = listed_job(services, tmp_path, images=19)
    work(services, spec, *done, failing=FAILING)
    before = known(services)
    lose(services)
    assert restore(services, directory_of(services, spec)).id == "j"
    assert known(services) == before
    assert waiting(services, spec) == [c for c in range(10) if c not in done][:8]


def test_samples_are_the_first_ten_errors(services: Services, tmp_path: Path) -> None:
    failing = dict.fromkeys(range(3, 30), "decode/corrupt")
    spec = listed_job(services, tmp_path, images=40)
    work(services, spec, *range(19), failing=failing)
    lose(services)
    restore(services, directory_of(services, spec))
    found = known(services)
    assert [sample["key"] for sample in found["samples"]] == [f"{n}.jpg" for n in range(3, 13)]
    assert found["by_code"] == {"decode/corrupt": 27}


def test_only_missing_chunks_run_again(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=60)
    done = {0, 1, 5, 9, 12, 28, 29}
    work(services, spec, *done)
    lose(services)
    job = restore(services, directory_of(services, spec))
    ran = []
    while not job.status().terminal:
        assert len(waiting(services, spec)) <= services.settings.window
        chunk = waiting(services, spec)[0]
        services.redis.raw.rpop(spec.queue)
        work(services, spec, chunk)
        services.feeder.feed(spec)
        ran.append(chunk)
    assert sorted(ran) == sorted(set(range(30)) - done)
    assert job.status().counts.succeeded == 60
    assert verify(services, directory_of(services, spec)).ok


def test_with_everything_done_it_ends_at_once(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=19)
    work(services, spec, *range(10), failing=FAILING)
    directory = directory_of(services, spec)
    before, summary = known(services), directory.read_summary()
    published = list(directory.published_errors() or ())
    lose(services)
    status = restore(services, directory).status()
    assert status.state is JobState.COMPLETED_WITH_ERRORS
    assert known(services) == before
    assert waiting(services, spec) == []
    after = directory.read_summary()
    assert summary is not None
    assert after is not None
    for name in ("state", "reason", "counts", "errors"):
        assert after[name] == summary[name]
    assert list(directory.published_errors() or ()) == published
    assert services.jobs.active_jobs(spec.queue) == []
    assert verify(services, directory).ok


@pytest.mark.parametrize("images", [0, 4, 19])
def test_a_job_that_had_ended_is_not_ended_again(
    services: Services, tmp_path: Path, images: int
) -> None:
    spec = listed_job(services, tmp_path, images=images)
    time = TimingTotals(1, 2, 3, 4, wait_fetch=1, wait_decode=2, wait_write=4)
    work(services, spec, *range(-(-images // 2)), failing=FAILING, time=time)
    before, written = Job(services, "j").status(), files(spec)
    lose(services)
    after = restore(services, directory_of(services, spec)).status()
    # Of many errors some are shown: the first to come, or the first in order.
    assert after.model_dump(exclude={"errors"}) == before.model_dump(exclude={"errors"})
    assert after.errors.by_code == before.errors.by_code
    assert files(spec) == written
    assert services.jobs.active_jobs(spec.queue) == []


def test_what_runs_again_runs_on_the_model_of_before(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=4)
    work(services, spec, 0, 1)
    before = Job(services, "j").status()
    object_of(spec, 1).unlink()
    lose(services)
    job = restore(services, directory_of(services, spec))
    assert not (Path(spec.directory.root) / "_SUCCESS").exists()
    other = ModelIdentity("2", "sha256:def")
    assert a_worker(services).claim(spec.queue, "j", 1, other)[0] is Answer.WRONG_MODEL
    work(services, spec, 1)
    after = job.status()
    assert after.state is JobState.SUCCEEDED
    assert (after.model, after.started_at) == (before.model, before.started_at)
    assert verify(services, directory_of(services, spec)).ok


def test_a_job_under_way_keeps_the_model_it_began_with(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=4)
    directory = directory_of(services, spec)
    directory.pin_model(MODEL)  # as a worker does
    work(services, spec, 0)
    lose(services)
    job = restore(services, directory)
    assert (job.status().model.version, job.status().model.digest) == (MODEL.version, MODEL.digest)
    other = ModelIdentity("2", "sha256:def")
    assert a_worker(services).claim(spec.queue, "j", 1, other)[0] is Answer.WRONG_MODEL
    work(services, spec, 1)
    assert job.status().state is JobState.SUCCEEDED
    assert verify(services, directory).ok


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"state": "succeeded"}'])
def test_a_summary_that_cannot_be_read_is_written_again(
    services: Services, tmp_path: Path, text: str
) -> None:
    spec = listed_job(services, tmp_path, images=4)
    work(services, spec, 0, 1)
    (Path(spec.directory.root) / "summary.json").write_text(text)
    lose(services)
    job = restore(services, directory_of(services, spec))
    assert job.status().state is JobState.SUCCEEDED
    assert verify(services, directory_of(services, spec)).ok


def files(spec: JobSpec) -> dict[Path, tuple[bytes, int]]:
    root = Path(spec.directory.root)
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_crash_before_the_summary_is_made_up_for(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=4)
    work(services, spec, 0, 1)
    directory = directory_of(services, spec)
    root = Path(spec.directory.root)
    for name in ("summary.json", "errors.jsonl", "_SUCCESS"):
        (root / name).unlink()
    lose(services)
    assert restore(services, directory).status().state is JobState.SUCCEEDED
    assert verify(services, directory).ok


def test_a_job_without_images_ends_as_it_did(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=0)
    lose(services)
    status = restore(services, directory_of(services, spec)).status()
    assert (status.state, status.reason) == (JobState.FAILED, Reason.NO_INPUTS)


def test_a_deadline_that_is_over_does_not_undo_what_was_done(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path, images=4)
    work(services, spec, 0, 1)
    # As if it had been given one, which passed only after its end.
    late = spec.model_copy(update={"deadline": "1s"})
    (Path(spec.directory.root) / "job.json").write_text(late.model_dump_json())
    lose(services)
    assert restore(services, directory_of(services, spec)).status().state is JobState.SUCCEEDED


def test_what_has_been_read_is_told(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=19)
    lose(services)
    told: list[int] = []
    restore(services, directory_of(services, spec), told.append)
    assert told == [19]


def test_images_of_before_do_not_count_as_speed(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=6)
    work(services, spec, 0, 1)
    lose(services)
    job = restore(services, directory_of(services, spec))
    assert services.jobs.record("j").restored == 4
    assert job.status().rate_images_per_s == 0
    assert job.status().progress == pytest.approx(4 / 6, abs=1e-4)


def test_a_job_that_redis_knows_is_left_alone(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 1)
    before, messages = known(services), waiting(services, spec)
    with pytest.raises(JobConflict, match="Redis knows job j"):
        restore(services, directory_of(services, spec))
    assert (known(services), waiting(services, spec)) == (before, messages)


def test_a_job_that_was_ended_early_stays_ended(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 1)
    cancel(services, "j")
    lose(services)
    with pytest.raises(JobConflict, match="was ended early: cancelled"):
        restore(services, directory_of(services, spec))
    assert services.redis.raw.keys() == []


def test_a_directory_without_a_job_is_not_restored(services: Services, tmp_path: Path) -> None:
    nobody = a_spec("nobody", output=str(tmp_path))
    with pytest.raises(ObjectNotFound):
        restore(services, directory_of(services, nobody))


@pytest.mark.parametrize(
    ("ruin", "says"),
    [
        (lambda body: body.splitlines(keepends=True)[0], "1 outcome lines for 2 manifest rows"),
        (lambda body: b"".join(reversed(body.splitlines(keepends=True))), "outcome of '5.jpg'"),
        (lambda body: b"{" + body, "not an outcome line"),
        (lambda body: b"", "0 outcome lines"),
    ],
    ids=["short", "out of order", "not JSON", "empty"],
)
def test_a_corrupt_chunk_restores_nothing(
    services: Services, tmp_path: Path, ruin: Callable[[bytes], bytes], says: str
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 2)
    place = object_of(spec, 2)
    place.write_bytes(ruin(place.read_bytes()))
    lose(services)
    with pytest.raises(CorruptRecord, match=says):
        restore(services, directory_of(services, spec))
    assert services.redis.raw.keys() == []


def test_only_copies_that_are_missing_are_written(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, layout="per-image")
    work(services, spec, 0, 2)
    directory = directory_of(services, spec)
    directory.put_by_key("1.jpg", b"as it was")
    lose(services)
    restore(services, directory)
    copies = Path(spec.directory.root, "by-key")
    lines = object_of(spec, 0).read_bytes() + object_of(spec, 2).read_bytes()
    stand = {path.name: path.read_bytes() for path in copies.iterdir()}
    assert sorted(stand) == ["0.jpg.json", "1.jpg.json", "4.jpg.json", "5.jpg.json"]
    assert stand.pop("1.jpg.json") == b"as it was"
    assert set(stand.values()) < set(lines.splitlines())


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("part", [0, 1, 4])
def test_a_missing_part_of_the_manifest_is_corrupt(
    services: Services, tmp_path: Path, part: int
) -> None:
    spec = listed_job(services, tmp_path, images=19)
    (Path(spec.directory.root) / f"manifest/part-0000{part}.jsonl").unlink()
    lose(services)
    with pytest.raises(CorruptRecord, match=r"parts of the manifest|held 19 images"):
        restore(services, directory_of(services, spec))
    assert services.redis.raw.keys() == []


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("images", [1, 4, 8, 19])
def test_a_manifest_of_any_number_of_parts_is_read(
    services: Services, tmp_path: Path, images: int
) -> None:
    spec = listed_job(services, tmp_path, images=images)
    work(services, spec, 0)
    before = known(services)
    lose(services)
    restore(services, directory_of(services, spec))
    assert known(services) == before


def test_of_two_restorations_at_once_one_wins(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=60)
    work(services, spec, *range(20), failing=FAILING)
    before = known(services)
    lose(services)
    barrier, outcomes = threading.Barrier(4), list[str]()

    def try_it() -> None:
        directory = directory_of(services, spec)
        barrier.wait()
        try:
            outcomes.append(restore(services, directory).id)
        except JobConflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 3 + ["j"]
    assert known(services) == before
    assert waiting(services, spec) == [*range(20, 28)]


@pytest.mark.parametrize("when", ["committed before", "counted before", "committed after"])
def test_a_chunk_in_hand_while_redis_was_lost_counts_once(
    services: Services, tmp_path: Path, when: str
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0)
    directory, worker = directory_of(services, spec), a_worker(services)
    body = object_of(spec, 0).read_bytes().replace(b"0.jpg", b"2.jpg").replace(b"1.jpg", b"3.jpg")
    body = body.replace(b'\\"0\\"', b'\\"2\\"').replace(b'\\"1\\"', b'\\"3\\"')
    rows = decode_rows(directory.part_lines(0), spec.plan, 1)
    _, lease = worker.claim(spec.queue, "j", 1, MODEL)
    lose(services)
    if when != "committed after":
        directory.create_chunk(spec.plan, 1, body)
    if when == "counted before":
        assert worker.finish(lease, tally(body, rows), NO_TIME)[0] is Finish.UNKNOWN
    job = restore(services, directory)
    directory.create_chunk(spec.plan, 1, body)
    answer, _ = worker.finish(lease, tally(body, rows), NO_TIME)
    assert answer is (Finish.FIRST if when == "committed after" else Finish.REPEAT)
    assert job.status().counts.succeeded == 4
    work(services, spec, 2)
    assert job.status().state is JobState.SUCCEEDED
    assert verify(services, directory).ok
