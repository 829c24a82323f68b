"""Going on with what a dead producer or a lost Redis left behind, on real stores."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from millrace.core import chunks, jobstore
from millrace.core.bitmaps import set_bits
from millrace.core.claims import Finish
from millrace.core.errors import CorruptRecord, JobConflict, JobNotFound, ObjectNotFound
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.outcome import tally
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.topology import JobKeys, QueueKeys, chunk_object
from millrace.producer.control import cancel, look_after, pause
from millrace.producer.enqueue import enqueue, give_up
from millrace.producer.job import Job
from millrace.producer.recover import go_on, repair, restore
from millrace.producer.source import image_references
from millrace.producer.verify import verify
from tests.support import wait_until
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_worker
from tests.unit.producer.support import listed_job, work

PART = 4
"""Rows to a part in the tests of listing, where no one wants to list 8192."""

FAILING = {0: "decode/corrupt", 5: "fetch/not_found", 6: "decode/corrupt", 13: "infer/internal"}


def directory_of(services: Services, spec: JobSpec) -> JobDirectory:
    return JobDirectory(services.stores, spec.directory)


def lose(services: Services) -> None:
    services.redis.raw.flushall()


def known(services: Services, job: str = "j") -> dict[str, Any]:
    """What Redis says of a job that storage can say as well."""
    snapshot = services.jobs.snapshot(job)
    record = snapshot.record
    return {
        "spec": record.spec,
        "counts": record.counts,
        "manifest": (record.parts, record.chunks, record.listing_complete),
        "done": [*set_bits(services.jobs.done_bitmap(job))],
        "failed": [*set_bits(services.jobs.failed_bitmap(job))],
        "by_code": snapshot.by_code,
        "samples": snapshot.samples,
    }


def waiting(services: Services, spec: JobSpec) -> list[int]:
    found = sorted(chunk for _, chunk in services.queue.waiting(spec.queue))
    assert services.redis.raw.llen(spec.queue) == len(found), "a chunk waits twice"
    return found


def object_of(spec: JobSpec, chunk: int) -> Path:
    return Path(spec.directory.root) / chunk_object(spec.plan.part_of(chunk), chunk)


# --- restore ---


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


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "PART_ROWS", PART)


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


# --- go on ---


class HalfListed:
    """A job whose producer died: `parts` stand, of which `published` were told to Redis."""

    def __init__(self, services: Services, source: str, output: str, **spec: object) -> None:
        self.services = services
        given = {"uri": source} | {
            name: spec.pop(name) for name in ("manifest", "include") if name in spec
        }
        self.spec = a_spec("j", input=given, output=output, **spec)
        self.directory = directory_of(services, self.spec)
        self.directory.create_spec(self.spec)
        services.jobs.create(self.spec)

    def die_after(self, parts: int, published: int) -> HalfListed:
        rows = image_references(
            self.services.stores, self.spec.input, Location.parse(self.spec.output)
        )
        for part in range(parts):
            self.directory.create_part(part, some := [*islice(rows, PART)])
            if part < published:
                count = self.spec.plan.chunks_in(len(some))
                self.services.jobs.publish_part("j", part, len(some), count)
        self.services.feeder.feed(self.spec)
        return self

    @property
    def manifest(self) -> list[ManifestRow]:
        parts = map(self.directory.part_lines, self.directory.parts())
        return [decode_row(line) for lines in parts for line in lines]

    @property
    def keys(self) -> list[str]:
        return [row.key for row in self.manifest]

    def finish(self) -> None:
        """Run all chunks; the job must thereby end, whole."""
        job = Job(self.services, "j")
        directory, worker = self.directory, a_worker(self.services)
        for chunk in range(self.services.jobs.record("j").chunks):
            lines = directory.part_lines(self.spec.plan.part_of(chunk))
            rows = decode_rows(lines, self.spec.plan, chunk)
            _, lease = worker.claim(self.spec.queue, "j", chunk, MODEL)
            body = b"".join(
                orjson.dumps({"key": row.key, "etag": row.etag, "predictions": []}) + b"\n"
                for row in rows
            )
            directory.create_chunk(self.spec.plan, chunk, body)
            worker.finish(lease, tally(body, rows), NO_TIME)
        assert job.status().state is JobState.SUCCEEDED
        assert job.status().counts.total == len(self.manifest)
        assert verify(self.services, directory).ok


@pytest.fixture
def photos(tmp_path: Path, small_parts: None) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"x" * number)
    return folder


@pytest.fixture
def half(services: Services, photos: Path, tmp_path: Path) -> HalfListed:
    """Ten files, of which one part is listed and told."""
    return HalfListed(services, str(photos), str(tmp_path / "out")).die_after(1, 1)


DEATHS = [(0, 0), (1, 0), (1, 1), (2, 1), (3, 1), (3, 3)]


@pytest.mark.parametrize(("parts", "published"), DEATHS)
def test_a_directory_is_listed_once_whenever_its_producer_died(
    services: Services, photos: Path, tmp_path: Path, parts: int, published: int
) -> None:
    half = HalfListed(services, str(photos), str(tmp_path / "out")).die_after(parts, published)
    assert go_on(services, "j").id == "j"
    assert sorted(half.keys) == [f"{n}.jpg" for n in range(10)]
    record = services.jobs.record("j")
    assert (record.counts.total, record.parts, record.chunks) == (10, 3, 5)
    assert record.listing_complete
    assert half.directory.manifest_size() == (3, 10)
    services.feeder.feed(half.spec)  # as any worker does
    assert waiting(services, half.spec) == [0, 1, 2, 3, 4]
    half.finish()


def test_what_was_told_as_whole_is_not_listed_again(
    services: Services, half: HalfListed, photos: Path
) -> None:
    go_on(services, "j")
    lose(services)
    (photos / "new.jpg").touch()
    services.jobs.create(half.spec)  # the producer died before it told any of it
    go_on(services, "j")
    assert sorted(half.keys) == [f"{n}.jpg" for n in range(10)]
    half.finish()


def test_in_a_directory_what_came_since_is_listed_too(
    services: Services, half: HalfListed, photos: Path
) -> None:
    (photos / "new").mkdir()
    for name in ("00.jpg", "new/a.jpg", "z.jpg"):
        (photos / name).touch()
    go_on(services, "j")
    assert sorted(half.keys) == sorted(
        [f"{n}.jpg" for n in range(10)] + ["00.jpg", "new/a.jpg", "z.jpg"]
    )
    half.finish()


def test_patterns_hold_for_the_rest_as_well(
    services: Services, photos: Path, tmp_path: Path
) -> None:
    for number in range(10):
        (photos / f"{number}.txt").touch()
    half = HalfListed(
        services, str(photos), str(tmp_path / "out"), include=["*.jpg"], chunk_size=2
    ).die_after(1, 1)
    go_on(services, "j")
    assert sorted(half.keys) == [f"{n}.jpg" for n in range(10)]


def test_the_output_below_the_input_is_not_listed(services: Services, photos: Path) -> None:
    half = HalfListed(services, str(photos), str(photos / "out")).die_after(1, 1)
    go_on(services, "j")
    assert sorted(half.keys) == [f"{n}.jpg" for n in range(10)]


@pytest.fixture
def put(bucket: str, s3_client: Any) -> Callable[..., None]:
    """Put empty objects into the test's bucket."""

    def objects(*keys: str) -> None:
        for key in keys:
            s3_client.put_object(Bucket=bucket, Key=key, Body=b"")

    return objects


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("parts", "published"), DEATHS)
def test_a_bucket_is_listed_once_whenever_its_producer_died(
    services: Services, bucket: str, put: Callable[..., None], parts: int, published: int
) -> None:
    keys = sorted([f"in/{n}.jpg" for n in range(8)] + ["in/ä.jpg", "in/～.jpg"])
    put(*keys, "in/", "other.jpg")
    half = HalfListed(services, f"s3://{bucket}/in", f"s3://{bucket}/in/out")
    half.die_after(parts, published)
    go_on(services, "j")
    assert half.keys == keys
    assert services.jobs.record("j").counts.total == 10
    half.finish()


@pytest.mark.usefixtures("small_parts")
def test_a_bucket_is_listed_on_after_the_last_known_key(
    services: Services, bucket: str, put: Callable[..., None]
) -> None:
    put(*(f"in/{n}.jpg" for n in range(10)))
    half = HalfListed(services, f"s3://{bucket}/in", f"s3://{bucket}/out").die_after(2, 1)
    put("in/00.jpg", "in/6z.jpg", "in/80.jpg", "in/zz.jpg")
    go_on(services, "j")
    assert half.keys[:8] == [f"in/{n}.jpg" for n in range(8)]
    assert half.keys[8:] == ["in/8.jpg", "in/80.jpg", "in/9.jpg", "in/zz.jpg"]
    half.finish()


@pytest.fixture
def list_file(tmp_path: Path, photos: Path) -> Path:
    """A user's manifest, which may name an image twice."""
    place = tmp_path / "list.txt"
    place.write_text("".join(f"{n % 7}.jpg\n" for n in range(10)))
    return place


@pytest.mark.parametrize(("parts", "published"), DEATHS)
def test_a_manifest_is_gone_on_with_line_by_line(
    services: Services, photos: Path, tmp_path: Path, list_file: Path, parts: int, published: int
) -> None:
    half = HalfListed(services, str(photos), str(tmp_path / "out"), manifest=list_file.as_uri())
    half.die_after(parts, published)
    go_on(services, "j")
    assert half.keys == [f"{n % 7}.jpg" for n in range(10)]
    half.finish()


@pytest.mark.parametrize("change", ["another", "shorter", "an etag"])
def test_a_manifest_that_begins_otherwise_now_is_a_conflict(
    services: Services, photos: Path, tmp_path: Path, list_file: Path, change: str
) -> None:
    half = HalfListed(services, str(photos), str(tmp_path / "out"), manifest=list_file.as_uri())
    half.die_after(2, 2)
    lines = list_file.read_text().splitlines(keepends=True)
    if change == "shorter":
        del lines[5:]
    else:
        lines[5] = "9.jpg\n" if change == "another" else '{"key": "5.jpg", "etag": "x"}\n'
    list_file.write_text("".join(lines))
    with pytest.raises(JobConflict, match=r"image 6 is no longer '5\.jpg'"):
        go_on(services, "j")
    assert half.keys == [f"{n % 7}.jpg" for n in range(8)]


def test_progress_counts_what_stood_already(services: Services, half: HalfListed) -> None:
    told: list[tuple[int, int]] = []
    go_on(services, "j", lambda progress: told.append((progress.images, progress.chunks)))
    assert told == [(8, 4), (10, 5)]


def test_while_its_producer_lives_a_job_is_not_listed(services: Services, half: HalfListed) -> None:
    with services.jobs.producing("j"):
        with pytest.raises(JobConflict, match="listed by another process"):
            go_on(services, "j")
        assert len(half.manifest) == PART
    go_on(services, "j")
    assert len(half.manifest) == 10


def test_the_lock_is_kept_as_long_as_its_producer_lives(
    services: Services, half: HalfListed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobstore, "PRODUCER_LOCK_S", 1.6)
    key, renewed, last = JobKeys("j").producer, 0, 1600

    def again() -> bool:
        nonlocal renewed, last
        left: int = services.redis.raw.pttl(key)
        assert left > 0, "the lock expired"
        renewed, last = renewed + (left > last), left
        return renewed >= 5  # which is longer than it lasts by itself

    with services.jobs.producing("j"):
        wait_until(again, 30, "the lock is renewed again and again")
        with pytest.raises(JobConflict):
            go_on(services, "j")
    assert not services.redis.raw.exists(key)


def test_a_dead_producer_s_lock_expires(services: Services, half: HalfListed) -> None:
    services.redis.raw.set(JobKeys("j").producer, "dead", px=400)
    with pytest.raises(JobConflict):
        go_on(services, "j")
    wait_until(lambda: Job(services, "j").status().health == "no_producer", 10)
    go_on(services, "j")
    half.finish()


def test_the_health_tells_of_the_missing_producer(services: Services, half: HalfListed) -> None:
    job = Job(services, "j")
    services.redis.raw.zadd(QueueKeys(half.spec.queue).fleet, {"3|w": 2**50})
    assert job.status().health == "no_producer"
    with services.jobs.producing("j"):
        assert job.status().health != "no_producer"
    go_on(services, "j")
    assert job.status().health == "ok"


def test_a_job_that_is_paused_and_half_listed_is_listed_and_runs(
    services: Services, half: HalfListed
) -> None:
    pause(services, "j")
    services.redis.raw.delete(half.spec.queue)  # workers drop a paused job's messages
    assert Job(services, "j").status().health == "ok"
    go_on(services, "j")
    status = Job(services, "j").status()
    assert (status.state, status.counts.total) == (JobState.RUNNING, 10)
    assert waiting(services, half.spec) == [0, 1, 2, 3, 4]
    half.finish()


def test_a_paused_job_goes_on(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    pause(services, "j")
    go_on(services, "j")
    assert Job(services, "j").status().state is JobState.RUNNING
    work(services, spec, 0, 1, 2)
    assert Job(services, "j").status().state is JobState.SUCCEEDED


def test_going_on_with_a_job_under_way_changes_nothing(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 1)
    before = known(services)
    go_on(services, "j")
    assert known(services) == before


def test_a_job_that_has_ended_does_not_go_on(services: Services, half: HalfListed) -> None:
    give_up(services, "j", JobState.CANCELLED, Reason.REQUESTED)
    with pytest.raises(JobConflict, match="cancelled; it cannot be resumed"):
        go_on(services, "j")
    assert len(half.manifest) == PART


def test_a_job_whose_chunks_are_ending_is_not_listed(services: Services, half: HalfListed) -> None:
    a_worker(services).claim(half.spec.queue, "j", 0, MODEL)
    cancel(services, "j")
    with pytest.raises(JobConflict, match="cancelling; it cannot be resumed"):
        go_on(services, "j")


def test_a_job_that_is_not_there_does_not_go_on(services: Services) -> None:
    with pytest.raises(JobNotFound):
        go_on(services, "nobody")


def test_half_a_listing_with_a_hole_is_corrupt(services: Services, half: HalfListed) -> None:
    half.directory.create_part(2, [])
    with pytest.raises(CorruptRecord, match="parts of the manifest are missing"):
        go_on(services, "j")


@pytest.mark.parametrize(("parts", "published"), DEATHS)
def test_a_lost_and_half_listed_job_is_restored_and_listed(
    services: Services, photos: Path, tmp_path: Path, parts: int, published: int
) -> None:
    half = HalfListed(services, str(photos), str(tmp_path / "out")).die_after(parts, published)
    lose(services)
    job = restore(services, half.directory)
    record = services.jobs.record("j")
    # A last part that is short tells that the listing had come to its end.
    assert record.listing_complete == (parts == 3)
    assert (record.parts, record.counts.total) == (parts, min(10, PART * parts))
    if not record.listing_complete:
        assert job.status().health == "no_producer"
        go_on(services, "j")
    assert half.directory.manifest_size() == (3, 10)
    assert sorted(half.keys) == [f"{n}.jpg" for n in range(10)]
    half.finish()


# --- repair ---


@pytest.fixture
def ended(services: Services, tmp_path: Path) -> JobSpec:
    """A job of 19 images, four of which failed."""
    spec = listed_job(services, tmp_path, images=19)
    run_all(services, spec)
    return spec


def run_all(services: Services, spec: JobSpec) -> None:
    services.redis.raw.delete(spec.queue)  # the messages are taken
    work(services, spec, *range(10), failing=FAILING)
    assert verify(services, directory_of(services, spec)).ok


def contents(spec: JobSpec) -> dict[str, bytes]:
    root = Path(spec.directory.root)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "summary.json"
    }


def mend(services: Services, spec: JobSpec) -> Job:
    directory = directory_of(services, spec)
    found = verify(services, directory)
    assert not found.ok
    return repair(services, directory, found)


@pytest.mark.parametrize("damage", ["removed", "ruined", "both"])
def test_exactly_what_is_missing_runs_again(
    services: Services, ended: JobSpec, damage: str
) -> None:
    before, counts = contents(ended), Job(services, "j").status().counts
    lost = []
    if damage != "ruined":
        object_of(ended, 3).unlink()
        lost.append(3)
    if damage != "removed":
        object_of(ended, 7).write_bytes(b"what is this?\n")
        lost.append(7)
    job = mend(services, ended)
    assert waiting(services, ended) == lost
    assert job.status().state is JobState.RUNNING
    assert job.status().counts.pending == 2 * len(lost)
    work(services, ended, *lost, failing=FAILING)
    assert (job.status().state, job.status().counts) == ("completed_with_errors", counts)
    assert verify(services, directory_of(services, ended)).ok
    assert contents(ended) == before


@pytest.mark.parametrize("name", ["summary.json", "errors.jsonl", "_SUCCESS"])
def test_a_file_of_the_finalizer_is_written_again(
    services: Services, ended: JobSpec, name: str
) -> None:
    before = contents(ended)
    (Path(ended.directory.root) / name).unlink()
    assert mend(services, ended).status().state is JobState.COMPLETED_WITH_ERRORS
    assert verify(services, directory_of(services, ended)).ok
    assert contents(ended) == before
    assert waiting(services, ended) == []


def test_a_summary_that_says_otherwise_is_written_again(services: Services, ended: JobSpec) -> None:
    place = Path(ended.directory.root) / "summary.json"
    summary = json.loads(place.read_text())
    summary["counts"]["succeeded"] += 1
    place.write_text(json.dumps(summary))
    mend(services, ended)
    assert verify(services, directory_of(services, ended)).ok


def test_errors_that_say_otherwise_are_written_again(services: Services, ended: JobSpec) -> None:
    place = Path(ended.directory.root) / "errors.jsonl"
    whole = place.read_bytes()
    place.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    mend(services, ended)
    assert place.read_bytes() == whole
    assert verify(services, directory_of(services, ended)).ok


@pytest.mark.parametrize("field", ["total", "succeeded", "failed", "cancelled"])
def test_counts_of_redis_are_derived_anew(services: Services, ended: JobSpec, field: str) -> None:
    before = known(services)
    services.redis.raw.hincrby(JobKeys("j").record, field, 1)
    mend(services, ended)
    assert known(services) == before
    assert verify(services, directory_of(services, ended)).ok


def test_codes_of_redis_are_derived_anew(services: Services, ended: JobSpec) -> None:
    before = known(services)
    services.redis.raw.hset(JobKeys("j").errors, "decode/corrupt", 40)
    mend(services, ended)
    assert known(services) == before


def test_a_finished_chunk_of_a_running_job_runs_again(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1)
    services.redis.raw.delete(spec.queue)
    object_of(spec, 1).unlink()
    job = mend(services, spec)
    assert waiting(services, spec) == [1, 2]
    work(services, spec, 1, 2)
    assert (job.status().state, job.status().counts.succeeded) == (JobState.SUCCEEDED, 6)
    assert verify(services, directory_of(services, spec)).ok


def test_of_a_job_that_was_ended_early_nothing_is_removed(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0)
    cancel(services, "j")
    look_after(services, "j")
    object_of(spec, 0).write_bytes(b"ruined\n")
    before, files = known(services), contents(spec)
    directory = directory_of(services, spec)
    found = verify(services, directory)
    assert found.corrupt_chunks == [0]
    with pytest.raises(JobConflict, match="ended early"):
        repair(services, directory, found)
    assert known(services) == before
    assert contents(spec) == files


def test_a_repaired_job_on_a_bucket_is_whole(
    services: Services, bucket: str, s3_client: Any
) -> None:
    spec = listed_job(services, f"s3://{bucket}/out", images=19)
    run_all(services, spec)
    key = f"out/j/{chunk_object(0, 4)}"
    whole = s3_client.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3_client.put_object(Bucket=bucket, Key=key, Body=whole[:-20])
    mend(services, spec)
    assert waiting(services, spec) == [4]
    work(services, spec, 4, failing=FAILING)
    assert s3_client.get_object(Bucket=bucket, Key=key)["Body"].read() == whole
    assert verify(services, directory_of(services, spec)).ok


# --- what must not be touched ---


def test_a_copy_of_a_directory_is_not_gone_on_with(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0)
    lose(services)
    copy = tmp_path / "copy" / spec.job_id
    shutil.copytree(spec.directory.root, copy)
    elsewhere = JobDirectory(services.stores, Location.parse(str(copy)))
    found = verify(services, elsewhere)
    with pytest.raises(JobConflict, match="copy"):
        restore(services, elsewhere)
    with pytest.raises(JobConflict, match="copy"):
        repair(services, elsewhere, found)
    assert services.redis.raw.keys() == []


def test_another_job_of_the_same_name_is_left_alone(services: Services, tmp_path: Path) -> None:
    lost = listed_job(services, tmp_path / "a")
    lose(services)
    other = listed_job(services, tmp_path / "b")
    before = known(services)
    directory = directory_of(services, lost)
    with pytest.raises(JobConflict):
        repair(services, directory, verify(services, directory))
    assert known(services) == before
    assert services.jobs.spec("j") == other


def test_a_producer_that_stood_still_leaves_the_job_to_another(
    services: Services, tmp_path: Path
) -> None:
    photos = tmp_path / "in"
    photos.mkdir()
    for n in range(3):
        (photos / f"{n}.jpg").touch()
    spec = a_spec("j", input={"uri": str(photos)}, output=str(tmp_path / "out"))
    directory_of(services, spec).create_spec(spec)
    services.jobs.create(spec)

    def frozen() -> Iterator[ManifestRow]:
        yield from image_references(services.stores, spec.input, Location.parse(spec.output))
        services.redis.raw.delete(JobKeys("j").producer)  # as it does by itself after a minute
        go_on(services, "j")

    with services.jobs.producing("j") as ours, pytest.raises(JobConflict, match="goes on"):
        enqueue(services, spec, frozen(), still_ours=ours)
    assert Job(services, "j").status().state == "running"
    assert known(services)["manifest"][2]


def test_a_stray_object_is_removed_where_the_manifest_is_whole(
    services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, *range(services.jobs.record("j").chunks))
    stray = object_of(spec, 77)
    stray.write_bytes(b"")
    directory = directory_of(services, spec)
    repair(services, directory, verify(services, directory))
    assert not stray.exists()
    assert verify(services, directory).ok
