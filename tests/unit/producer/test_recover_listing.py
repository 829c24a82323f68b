"""Listing on from where a dead producer stopped: every image once, on real stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.core import status
from millrace.core.errors import CorruptRecord, JobConflict
from millrace.core.services import Services
from millrace.producer.recover import go_on, restore
from tests.unit.producer.half_listed import DEATHS, PART, HalfListed
from tests.unit.producer.support import lose, waiting


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


def test_half_a_listing_with_a_hole_is_corrupt(services: Services, half: HalfListed) -> None:
    half.directory.create_part(2, [])
    with pytest.raises(CorruptRecord, match="parts of the manifest are missing"):
        go_on(services, "j")


@pytest.mark.parametrize(("parts", "published"), DEATHS)
def test_a_lost_and_half_listed_job_is_restored_and_listed(
    services: Services,
    photos: Path,
    tmp_path: Path,
    parts: int,
    published: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status, "UNLISTED_AFTER_S", -1)
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
