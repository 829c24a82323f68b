"""The dry run: what a job would do, without a trace of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.cli.embedded_server import free_port
from millrace.core.errors import ObjectNotFound
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.producer import preview as module
from millrace.producer.enqueue import ListingProgress
from millrace.producer.preview import FIRST_KEYS, create_only_problem, preview, write_problem
from tests.faults.s3_proxy import Asked, Rule, s3_proxy
from tests.unit.core.support import a_spec

root_may_write_anywhere = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


@pytest.fixture
def services() -> Services:
    """A dry run needs no Redis: nobody listens here."""
    return Services(Settings.load(redis_url=f"redis://127.0.0.1:{free_port()}/0"))


def put(services: Services, *keys: str) -> None:
    store = services.stores.open(Location.parse("memory://photos"))
    for key in keys:
        store.put(key, b"12345")


def test_images_are_counted_by_kind(services: Services) -> None:
    put(services, "a.jpg", "b.JPG", "x.y/c.png", "noextension", ".hidden", "x.y/none", "d.tar.gz")
    found = preview(services, a_spec("j", chunk_size=2))
    assert (found.images, found.bytes, found.chunks) == (7, 35, 4)
    assert found.types == {".jpg": 2, ".png": 1, "(none)": 3, ".gz": 1}
    assert next(iter(found.types)) == "(none)"


def test_a_few_keys_are_shown(services: Services) -> None:
    put(services, *(f"{number:02}.jpg" for number in range(20)))
    found = preview(services, a_spec())
    assert found.first_keys == [f"{number:02}.jpg" for number in range(FIRST_KEYS)]


def test_chunks_are_counted_as_they_would_be_made(services: Services) -> None:
    put(services, *(str(number) for number in range(13)))
    # Rows per part are a multiple of 3000: the part holds 6000 of them.
    assert preview(services, a_spec(chunk_size=5)).chunks == 3
    assert preview(services, a_spec(chunk_size=3000)).chunks == 1


def test_an_empty_input_is_counted_as_such(services: Services) -> None:
    found = preview(services, a_spec())
    assert (found.images, found.chunks, found.types, found.first_keys) == (0, 0, {}, [])


def test_filters_apply(services: Services) -> None:
    put(services, "a.jpg", "b.txt")
    spec = a_spec(input={"uri": "memory://photos", "include": ("*.jpg",)})
    assert preview(services, spec).first_keys == ["a.jpg"]


def test_an_input_that_is_not_there_is_raised(services: Services, tmp_path: Path) -> None:
    spec = a_spec(input={"uri": str(tmp_path / "nowhere")})
    with pytest.raises(ObjectNotFound):
        preview(services, spec)


def test_nothing_is_left_at_the_output(services: Services, tmp_path: Path) -> None:
    found = preview(services, a_spec("j", output=str(tmp_path / "out")))
    assert found.output_problem is None
    assert found.output == (tmp_path / "out" / "j").as_uri()
    assert list((tmp_path / "out").iterdir()) == []


def test_what_stands_in_the_jobs_directory_is_counted(services: Services) -> None:
    spec = a_spec("j")
    assert preview(services, spec).standing == 0
    store = services.stores.open(spec.directory)
    for name in ("j/job.json", "j/manifest/part-00000.jsonl", "j2/job.json"):
        store.put(name, b"")
    assert preview(services, spec).standing == 2


def test_an_output_that_cannot_be_written_is_a_problem(services: Services, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = preview(services, a_spec(output=str(tmp_path / "file")))
    assert found.output_problem is not None


@root_may_write_anywhere
def test_a_directory_one_may_not_write_to_is_a_problem(services: Services, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "denied" in (write_problem(services, Location.parse(str(tmp_path))) or "")


def test_a_missing_bucket_is_a_problem(services: Services, bucket: str) -> None:
    assert write_problem(services, Location.parse(f"s3://{bucket}/out")) is None
    problem = write_problem(services, Location.parse(f"s3://{bucket}-missing/out"))
    assert "there is no such bucket" in (problem or "")


@contextmanager
def a_store_that(
    rule: Rule, s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> Iterator[Services]:
    """Services that see the S3 endpoint through `rule`."""
    with s3_proxy(s3.endpoint, instead=rule) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield Services(Settings.load(storage_max_retries=0, **settings))


def test_who_may_not_delete_may_still_write(
    s3: EmbeddedS3, bucket: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Location.parse(f"s3://{bucket}/out")
    with a_store_that(
        lambda asked: 403 if asked.method == "DELETE" else None, s3, monkeypatch
    ) as services:
        assert write_problem(services, place) is None
        assert create_only_problem(services, place) is None
    left = [item["Key"] for item in s3_client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert len(left) == 2
    assert all(key.startswith("out/.millrace-probe-") for key in left)


def test_who_may_not_write_has_a_problem(
    s3: EmbeddedS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_store_that(
        lambda asked: 403 if asked.method == "PUT" else None, s3, monkeypatch
    ) as services:
        problem = write_problem(services, Location.parse(f"s3://{bucket}/out"))
        assert "denied" in (problem or "")


@pytest.mark.parametrize("overwrite", [False, True])
def test_create_only_writes_are_tried_out(tmp_path: Path, bucket: str, overwrite: bool) -> None:
    services = Services(Settings.load(storage_overwrite=overwrite))
    for place in (str(tmp_path), "memory://out/deep", f"s3://{bucket}/out"):
        location = Location.parse(place)
        assert create_only_problem(services, location) is None
        assert list(services.stores.open(location).list()) == []


def refuse_conditions(asked: Asked) -> int | None:
    return 501 if "If-None-Match" in asked.headers else None


def ignore_conditions(asked: Asked) -> None:
    del asked.headers["If-None-Match"]


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (refuse_conditions, "the store refuses If-None-Match: "),
        (ignore_conditions, "the store ignores If-None-Match: "),
    ],
)
def test_a_store_without_conditional_writes_is_a_problem_unless_one_overwrites(
    s3: EmbeddedS3, bucket: str, monkeypatch: pytest.MonkeyPatch, rule: Rule, what: str
) -> None:
    spec = a_spec("j", output=f"s3://{bucket}/out")
    with a_store_that(rule, s3, monkeypatch) as services:
        assert write_problem(services, Location.parse(spec.output)) is None
        problem = preview(services, spec).output_problem
        assert (problem or "").startswith(what)
        assert "\n" not in (problem or "")
    with a_store_that(rule, s3, monkeypatch, storage_overwrite=True) as services:
        assert preview(services, spec).output_problem is None
        assert list(services.stores.open(Location.parse(spec.output)).list()) == []


def test_the_preview_is_json(services: Services) -> None:
    put(services, "a.jpg")
    shown = orjson.loads(orjson.dumps(preview(services, a_spec("j")).as_json()))
    assert shown["job_id"] == "j"
    assert shown["model"]["name"] == "tiny"
    assert shown["output"] == "memory://predictions/j"


def test_what_stands_there_is_counted_up_to_a_bound(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_STANDING", 3)
    store = services.stores.open(Location.parse("memory://predictions"))
    for number in range(5):
        store.put(f"j/{number}", b"")
    assert preview(services, a_spec("j")).standing == 3


@pytest.mark.parametrize("manifest", [False, True])
@pytest.mark.parametrize("include", [(), ("*.nosuch",)])
def test_a_listing_is_left_off_after_what_was_looked_at(
    services: Services, tmp_path: Path, include: tuple[str, ...], manifest: bool
) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    put(services, *names)
    (tmp_path / "list.txt").write_text("\n".join(names))
    given = {"manifest": str(tmp_path / "list.txt")} if manifest else {}
    spec = a_spec(input={"uri": "memory://photos", "include": include, **given})
    for most, complete in ((3, False), (4, False), (5, True), (6, True)):
        found = preview(services, spec, enough=most.__le__)
        assert found.complete == complete
        assert found.images == (0 if include else min(most, 5))


def test_what_lies_under_the_output_is_looked_at_too(services: Services) -> None:
    put(services, *(f"out/{number}" for number in range(5)))
    spec = a_spec(input={"uri": "memory://photos"}, output="memory://photos/out")
    assert not preview(services, spec, enough=lambda objects: objects >= 3).complete


def test_progress_is_told_every_ten_thousand(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("\n".join(str(number) for number in range(25_000)))
    told: list[ListingProgress] = []
    spec = a_spec(input={"uri": "memory://photos", "manifest": str(file)})
    assert preview(services, spec, told.append).images == 25_000
    assert [progress.images for progress in told] == [10_000, 20_000]
