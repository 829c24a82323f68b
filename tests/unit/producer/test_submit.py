"""Submitting: what is asked for becomes a job, once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.core.card import CARD_FILE, Card
from millrace.core.errors import (
    BadLocation,
    JobConflict,
    LocationNotAllowed,
    ModelNotFound,
    ObjectNotFound,
    RedisUnavailable,
    UsageError,
)
from millrace.core.fleet import SILENT_AFTER_S, WorkerInfo
from millrace.core.job import JobSpec, JobState, Layout, Priority
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import WORKERS
from millrace.producer import Job, ListingProgress, submit
from millrace.producer.submit import make_spec, resolve_model, submit_spec
from tests.support import wait_until


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five files that pass for images: nothing here looks into them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(b"x" * number)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def digest_of(version: str) -> str:
    return "sha256:" + 64 * version


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A repository that holds `tiny` in versions 1 and 2."""
    for version in ("1", "2"):
        bundle = tmp_path / "models" / "tiny" / version
        (bundle / "assets.extra").mkdir(parents=True)
        (bundle / "saved_model.pb").touch()
        card = Card.make(
            name="tiny",
            version=version,
            height=8,
            width=8,
            signature="s",
            digest=digest_of(version),
        )
        (bundle / CARD_FILE).write_text(card.model_dump_json())
    return tmp_path / "models"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_submitted_job_is_listed_written_down_and_fed(
    settings: Settings, services: Services, photos: Path, out: Path
) -> None:
    job = submit(str(photos), model="tiny", output=str(out), chunk_size=2, settings=settings)
    status = job.status()
    assert (status.state, status.counts.total) == (JobState.RUNNING, 5)
    assert status.input.listing_complete
    assert status.health == "no_workers"
    assert services.queue.waiting("millrace.tiny") == {(job.id, chunk) for chunk in range(3)}
    assert files(out / job.id) == {
        "job.json",
        "manifest/part-00000.jsonl",
        "manifest/complete.json",
    }


def test_a_job_gets_an_id_of_its_own(settings: Settings, photos: Path, out: Path) -> None:
    one, other = (
        submit(str(photos), model="tiny", output=str(out), settings=settings) for _ in range(2)
    )
    assert one.id != other.id
    assert one.id.startswith("tiny-")


def test_submitting_the_same_again_is_the_same_job(
    settings: Settings, services: Services, photos: Path, out: Path
) -> None:
    def again() -> Job:
        return submit(str(photos), model="tiny", output=str(out), job_id="j", settings=settings)

    first = again()
    (photos / "new.jpg").touch()
    before = first.status()
    assert again().status().model_dump() == before.model_dump() | {"updated_at": before.updated_at}
    assert services.redis.raw.llen("millrace.tiny") == 1


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"chunk_size": 3}, {"include": ["*.png"]}, {"top_k": 1}],
    ids=str,
)
def test_another_request_under_the_same_id_is_a_conflict(
    settings: Settings, photos: Path, out: Path, change: dict[str, object]
) -> None:
    asked: dict[str, object] = {"model": "tiny", "output": str(out), "job_id": "j"}
    submit(str(photos), **asked, settings=settings)  # type: ignore[arg-type]
    with pytest.raises(JobConflict, match="exists with another spec"):
        submit(str(photos), **(asked | change), settings=settings)  # type: ignore[arg-type]


def test_submitting_again_does_not_need_the_source_any_more(
    settings: Settings, photos: Path, out: Path
) -> None:
    def again() -> Job:
        return submit(str(photos), model="tiny", output=str(out), job_id="j", settings=settings)

    first = again()
    shutil.rmtree(photos)
    assert again().id == first.id == "j"
    assert again().status().counts.total == 5


def test_the_same_manifest_is_the_same_job_from_wherever_it_is_named(
    settings: Settings, photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "list.txt").write_text("1.jpg\n2.jpg\n")

    def by(manifest: str) -> Job:
        asked = {"model": "tiny", "output": str(out), "job_id": "j", "manifest": manifest}
        return submit(str(photos), **asked, settings=settings)  # type: ignore[arg-type]

    monkeypatch.chdir(tmp_path / "one")
    assert by("list.txt").status().counts.total == 2
    monkeypatch.chdir(tmp_path / "other")
    for same in ("../one/list.txt", (tmp_path / "one" / "list.txt").as_uri()):
        assert by(same).id == "j"
    with pytest.raises(JobConflict):
        by("list.txt")


def test_a_manifest_may_be_called_anything(
    settings: Settings, photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a#b?c%41 ü.txt"
    (tmp_path / name).write_text("1.jpg\n")
    monkeypatch.chdir(tmp_path)
    job = submit(str(photos), model="tiny", output=str(out), manifest=name, settings=settings)
    assert job.status().input.manifest == (tmp_path / name).as_uri()
    assert job.status().counts.total == 1


def test_a_refused_id_leaves_nothing_in_the_new_output(
    settings: Settings, services: Services, photos: Path, tmp_path: Path
) -> None:
    def to(name: str) -> None:
        submit(
            str(photos), model="tiny", output=str(tmp_path / name), job_id="j", settings=settings
        )

    to("one")
    with pytest.raises(JobConflict):
        to("other")
    assert not (tmp_path / "other").exists()
    assert services.jobs.spec("j").output == (tmp_path / "one").as_uri()


def test_another_output_under_the_same_id_is_a_conflict(
    settings: Settings, photos: Path, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        asked = {"model": "tiny", "output": str(tmp_path / name), "job_id": "j"}
        if name == "one":
            submit(str(photos), **asked, settings=settings)  # type: ignore[arg-type]
        else:
            with pytest.raises(JobConflict):
                submit(str(photos), **asked, settings=settings)  # type: ignore[arg-type]


def test_a_job_redis_has_forgotten_is_not_begun_again(
    settings: Settings, services: Services, photos: Path, out: Path
) -> None:
    submit(str(photos), model="tiny", output=str(out), job_id="j", settings=settings)
    services.redis.raw.flushdb()
    with pytest.raises(JobConflict, match="Redis no longer knows"):
        submit(str(photos), model="tiny", output=str(out), job_id="j", settings=settings)
    # So that what the hint says can be done.
    assert services.redis.raw.keys("millrace*") == []


def test_an_input_without_images_makes_a_job_that_failed(
    settings: Settings, photos: Path, out: Path
) -> None:
    job = submit(str(photos), model="tiny", output=str(out), include=["*.png"], settings=settings)
    status = job.status()
    assert (status.state, status.reason) == (JobState.FAILED, "no_inputs")


def test_an_input_that_is_not_there_makes_no_job(
    settings: Settings, services: Services, tmp_path: Path, out: Path
) -> None:
    with pytest.raises(ObjectNotFound):
        submit(str(tmp_path / "nowhere"), model="tiny", output=str(out), settings=settings)
    assert services.jobs.recent_jobs(10) == []
    assert not out.exists()


def test_without_redis_nothing_is_written(photos: Path, out: Path) -> None:
    from millrace.cli.embedded_server import free_port

    settings = Settings.load(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(RedisUnavailable):
        submit(str(photos), model="tiny", output=str(out), settings=settings)
    assert not out.exists()


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"model": "a/b"}, UsageError),
        ({"source": "http://x/y"}, BadLocation),
        ({"output": ""}, BadLocation),
        ({"chunk_size": 0}, UsageError),
        ({"priority": "urgent"}, UsageError),
        ({"layout": "tree"}, UsageError),
        ({"job_id": "a/b"}, UsageError),
        ({"top_k": 0}, UsageError),
        ({"include": ["["]}, UsageError),
        ({"manifest": "s3://bucket"}, BadLocation),
        ({"manifest": "s3://bucket/"}, BadLocation),
        ({"manifest": "http://x/y"}, BadLocation),
    ],
    ids=str,
)
def test_a_request_that_makes_no_sense_is_a_usage_error(
    settings: Settings,
    services: Services,
    photos: Path,
    out: Path,
    what: dict[str, object],
    error: type[Exception],
) -> None:
    asked: dict[str, object] = {"source": str(photos), "model": "tiny", "output": str(out)}
    with pytest.raises(error):
        submit(**(asked | what), settings=settings)  # type: ignore[arg-type]
    assert services.jobs.recent_jobs(10) == []


def test_the_spec_holds_what_was_asked_for(services: Services, photos: Path) -> None:
    spec = make_spec(
        services,
        str(photos),
        model=ModelRef.parse("tiny:1"),
        output="s3://b/out/",
        include=["*.jpg"],
        exclude=["x/**"],
        manifest="list.txt",
        chunk_size=64,
        priority="high",
        top_k=3,
        layout="per-image",
        job_id="j",
    )
    assert spec.input.uri == photos.as_uri()
    assert (spec.input.include, spec.input.exclude) == (("*.jpg",), ("x/**",))
    assert spec.input.manifest == Path("list.txt").absolute().as_uri()
    assert spec.output == "s3://b/out"
    assert (spec.priority, spec.layout) == (Priority.HIGH, Layout.PER_IMAGE)
    assert (spec.chunk_size, spec.top_k, spec.job_id) == (64, 3, "j")
    assert spec.model.requested_version == "1"


def test_a_model_is_resolved_in_the_repository(redis_url: str, shelf: Path) -> None:
    services = Services(Settings.load(redis_url=redis_url, models=str(shelf)))
    assert resolve_model(services, ModelRef("tiny")) == ("2", digest_of("2"))
    assert resolve_model(services, ModelRef("tiny", "1")) == ("1", digest_of("1"))
    with pytest.raises(ModelNotFound):
        resolve_model(services, ModelRef("huge"))


@pytest.fixture
def with_shelf(redis_url: str, shelf: Path) -> Iterator[Services]:
    services = Services(Settings.load(redis_url=redis_url, models=str(shelf)))
    yield services
    services.redis.close()


def announce(services: Services, model: str, queues: str) -> None:
    services.fleet.announce(WorkerInfo("w", model, queues, "idle", 1, 0, 0.0, 0))


def test_a_model_the_repository_lacks_may_be_served_by_a_live_worker(with_shelf: Services) -> None:
    announce(with_shelf, "huge", "millrace.huge")
    assert resolve_model(with_shelf, ModelRef("huge")) == (None, None)
    for other in (ModelRef("huge", "2"), ModelRef("hug")):
        with pytest.raises(ModelNotFound):
            resolve_model(with_shelf, other)


def test_a_worker_of_a_version_may_serve_the_queue_of_the_name(with_shelf: Services) -> None:
    announce(with_shelf, "huge:1", "millrace.huge:1 millrace.huge")
    assert resolve_model(with_shelf, ModelRef("huge")) == (None, None)
    assert resolve_model(with_shelf, ModelRef("huge", "1")) == ("1", None)
    with pytest.raises(ModelNotFound):
        resolve_model(with_shelf, ModelRef("huge", "2"))


def test_a_worker_that_was_lost_serves_nobody(with_shelf: Services) -> None:
    announce(with_shelf, "huge", "millrace.huge")
    with_shelf.redis.raw.zincrby(WORKERS, -(SILENT_AFTER_S + 1) * 1000, "w")
    (seen,) = with_shelf.fleet.workers()
    assert seen.lost
    with pytest.raises(ModelNotFound):
        resolve_model(with_shelf, ModelRef("huge"))


def test_a_job_that_stands_is_the_same_job_when_its_model_is_gone(
    with_shelf: Services, shelf: Path, photos: Path, out: Path
) -> None:
    def asked(model: str = "tiny", job_id: str | None = "j") -> JobSpec:
        reference = ModelRef.parse(model)
        return make_spec(with_shelf, str(photos), model=reference, output=str(out), job_id=job_id)

    first = submit_spec(with_shelf, asked())
    shutil.rmtree(shelf / "tiny")
    assert submit_spec(with_shelf, asked()).id == first.id
    for model, job_id in (("tiny", "other"), ("tiny", None), ("tiny:2", "j")):
        with pytest.raises(ModelNotFound):
            asked(model, job_id)


def test_without_a_repository_the_model_is_taken_at_its_word(services: Services) -> None:
    assert resolve_model(services, ModelRef("tiny", "1")) == ("1", None)
    assert resolve_model(services, ModelRef("tiny")) == (None, None)


def test_a_job_is_pinned_to_the_version_the_repository_held(
    redis_url: str, shelf: Path, photos: Path, out: Path
) -> None:
    settings = Settings.load(redis_url=redis_url, models=str(shelf))
    job = submit(str(photos), model="tiny", output=str(out), settings=settings)
    assert job.status().model.version == "2"
    assert Services(settings).queue.waiting("millrace.tiny:2") == {(job.id, 0)}


def test_progress_is_told_part_by_part(settings: Settings, photos: Path, out: Path) -> None:
    told: list[ListingProgress] = []
    submit(
        str(photos),
        model="tiny",
        output=str(out),
        chunk_size=2,
        settings=settings,
        progress=told.append,
    )
    assert told == [ListingProgress(images=5, bytes=10, chunks=3)]


def test_settings_come_from_the_environment(
    redis_url: str, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_REDIS_URL", redis_url)
    monkeypatch.delenv("MILLRACE_MODELS", raising=False)
    job = submit(str(photos), model="tiny", output=str(out))
    assert wait_until(lambda: job.status().counts.total == 5)


@pytest.mark.parametrize("missing", ["in", "out"])
def test_a_job_outside_the_allowed_places_is_not_made(
    services: Services, photos: Path, out: Path, missing: str
) -> None:
    place = out if missing == "in" else photos
    settings = services.settings.model_copy(update={"allowed_locations": str(place)})
    with pytest.raises(LocationNotAllowed):
        submit(str(photos), model="tiny", output=str(out), settings=settings)
    assert services.jobs.recent_jobs(1) == []
    assert not out.exists()
    both = settings.model_copy(update={"allowed_locations": f"{photos} {out}"})
    assert submit(str(photos), model="tiny", output=str(out), settings=both).id
