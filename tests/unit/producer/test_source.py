"""What the input holds: listed from a store or named, without our own output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millrace.core.errors import BadManifest, ObjectNotFound, UsageError
from millrace.core.job import InputSpec
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores
from millrace.producer.source import image_references


class Source:
    """An input and the objects in it."""

    def __init__(self, uri: str) -> None:
        self.location = Location.parse(uri)
        self.stores = Stores(StorageSettings.load())
        self.store = self.stores.open(self.location)

    def put(self, *keys: str, data: bytes = b"image") -> None:
        for key in keys:
            self.store.put(self.location.prefix + key, data)

    def keys(self, output: str = "memory://elsewhere", **spec: object) -> list[str]:
        """The keys found, relative to the input and sorted."""
        wanted = InputSpec.model_validate({"uri": self.location.uri, **spec})
        rows = image_references(self.stores, wanted, Location.parse(output))
        found = sorted(row.key for row in rows)
        assert all(key.startswith(self.location.prefix) for key in found)
        return [key.removeprefix(self.location.prefix) for key in found]


@pytest.fixture(params=["directory", "bucket", "prefix"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    places = {
        "directory": str(tmp_path / "photos"),
        "bucket": "memory://photos",
        "prefix": "memory://bucket/my/photos",
    }
    return Source(places[request.param])


def test_everything_under_the_input_is_listed(source: Source) -> None:
    source.put("a.jpg", "x/b.png", "x/y/c")
    assert source.keys() == ["a.jpg", "x/b.png", "x/y/c"]


def test_a_row_is_the_object_as_it_was_listed(source: Source) -> None:
    source.put("a.jpg", data=b"12345")
    spec = InputSpec(uri=source.location.uri)
    (row,) = image_references(source.stores, spec, Location.parse("memory://elsewhere"))
    listed = source.store.head(source.location.prefix + "a.jpg")
    assert (row.key, row.etag, row.size) == (listed.key, listed.etag, 5)


def test_patterns_see_keys_relative_to_the_input(source: Source) -> None:
    source.put("a.jpg", "a.txt", "x/b.jpg", "x/small/c.jpg", "my/photos/d.jpg")
    assert source.keys(include=["*.jpg"]) == [
        "a.jpg",
        "my/photos/d.jpg",
        "x/b.jpg",
        "x/small/c.jpg",
    ]
    assert source.keys(include=["/*.jpg"]) == ["a.jpg"]
    assert source.keys(include=["x/**"], exclude=["**/small/*"]) == ["x/b.jpg"]
    assert source.keys(include=["my/photos/*"]) == ["my/photos/d.jpg"]


def test_a_bad_pattern_is_refused_before_anything_is_listed() -> None:
    with pytest.raises(UsageError):
        Source("/nowhere/at/all").keys(include=["["])


def test_the_output_inside_the_input_is_not_input(source: Source) -> None:
    output = source.location.child("predictions").uri
    source.put("a.jpg", "predictions/j/job.json", "predictions/j/results/x.jsonl", "predictions2/b")
    assert source.keys(output) == ["a.jpg", "predictions2/b"]


def test_the_output_deep_inside_the_input_is_not_input(source: Source) -> None:
    output = source.location.child("x").child("out").uri
    source.put("x/a.jpg", "x/out/j/job.json", "x/outer.jpg")
    assert source.keys(output) == ["x/a.jpg", "x/outer.jpg"]


def test_the_output_cannot_be_the_input(source: Source) -> None:
    source.put("a.jpg")
    with pytest.raises(UsageError, match="cannot be the input") as caught:
        source.keys(source.location.uri)
    assert f"{source.location}/predictions" in (caught.value.hint or "")


def test_the_input_may_lie_inside_the_output(source: Source) -> None:
    source.put("photos/a.jpg")
    spec = InputSpec(uri=source.location.child("photos").uri)
    (row,) = image_references(source.stores, spec, source.location)
    assert row.key.endswith("a.jpg")


def test_an_empty_input_has_no_images(tmp_path: Path) -> None:
    assert Source("memory://nothing").keys() == []
    assert Source(str(tmp_path)).keys() == []


def test_an_input_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        Source(str(tmp_path / "nowhere")).keys()


def test_folder_markers_are_passed_over_and_empty_images_are_not(
    bucket: str, s3_client: Any
) -> None:
    for key, body in (
        ("photos/", b""),
        ("photos/x/", b""),
        ("photos/full/", b"bytes after all"),
        ("photos/empty.jpg", b""),
        ("photos/x/a.jpg", b"image"),
        ("photos2/b.jpg", b"image"),
        ("photos//c.jpg", b"image"),
    ):
        s3_client.put_object(Bucket=bucket, Key=key, Body=body)
    source = Source(f"s3://{bucket}/photos")
    assert source.keys() == ["/c.jpg", "empty.jpg", "full/", "x/a.jpg"]


def test_a_manifest_takes_the_place_of_listing(source: Source, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    prefix = source.location.prefix
    file.write_text(f"{prefix}a.jpg\n{prefix}gone.jpg\n{prefix}notes.txt\n")
    source.put("a.jpg", "b.jpg")
    found = source.keys(manifest=str(file), include=["*.jpg"])
    assert found == ["a.jpg", "gone.jpg"]


def test_a_bad_manifest_is_named(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("elsewhere/a.jpg\n")
    with pytest.raises(BadManifest, match="line 1"):
        Source("memory://bucket/my/photos").keys(manifest=str(file))
