"""Locations: read from what people type, and written as a URL that reads back the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millrace.core.errors import BadLocation
from millrace.core.storage import Location

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)
buckets = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}[a-z0-9]", fullmatch=True)


@given(texts)
@example("://")
def test_any_path_reads_back_from_its_url(path: str) -> None:
    location = Location.parse(f"/{path}")
    assert Location.parse(location.uri) == location
    assert location.uri.isascii()


@given(st.sampled_from(["s3", "gs", "az", "memory"]), buckets, texts)
def test_any_prefix_reads_back_from_its_url(scheme: str, bucket: str, prefix: str) -> None:
    location = Location.parse(f"{scheme}://{bucket}/{prefix}")
    assert Location.parse(location.uri) == location
    assert location.prefix in (prefix, f"{prefix}/")
    assert str(location) == location.uri


@given(buckets, texts, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True))
def test_a_place_contains_itself_and_its_children(bucket: str, prefix: str, name: str) -> None:
    for place in (Location.parse(f"s3://{bucket}/{prefix}"), Location.parse(f"/{prefix}")):
        assert place.contains(place)
        assert place.contains(place.child(name))
        assert not place.child(name).contains(place)
        assert Location.parse(place.child(name).uri) == place.child(name)
        assert place.child(name).split() == (place, name)


def test_a_path_is_made_absolute() -> None:
    assert Location.parse("photos/") == Location("file", str(Path.cwd() / "photos"))
    assert Location.parse("/data//photos/../x/") == Location("file", "/data/x")
    assert Location.parse("~/photos") == Location("file", os.path.expanduser("~/photos"))


@pytest.mark.parametrize("url", ["file:///data/a%20b", "file://localhost/data/a%20b/"])
def test_a_file_url_is_unquoted(url: str) -> None:
    assert Location.parse(url) == Location("file", "/data/a b")


def test_a_path_that_is_not_utf8_reads_back_from_its_url() -> None:
    location = Location.parse(os.fsdecode(b"/data/caf\xe9"))
    assert location.uri == "file:///data/caf%E9"
    assert Location.parse(location.uri) == location


def test_a_path_is_taken_verbatim() -> None:
    assert Location.parse("/data/a%20b#c?d").root == "/data/a%20b#c?d"


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://b", "b", ""),
        ("s3://b/", "b", ""),
        ("s3://b/photos", "b", "photos/"),
        ("s3://b/photos/", "b", "photos/"),
        ("s3://b/a//b/", "b", "a//b/"),
        ("s3://b//", "b", "/"),
        ("s3://b/100%41#1?x=y&z", "b", "100%41#1?x=y&z/"),
        ("s3://b/a/../b", "b", "a/../b/"),
    ],
)
def test_the_path_of_an_s3_url_is_a_prefix_taken_verbatim(
    url: str, bucket: str, prefix: str
) -> None:
    assert Location.parse(url) == Location("s3", bucket, prefix)


def test_a_whole_bucket_is_written_without_a_slash() -> None:
    assert Location.parse("s3://b/").uri == "s3://b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://",
        "s3:///photos",
        "file://host/data",
        "memory://",
        "a\x00b",
        "s3://b/\x00",
        "file:///a?b",
        "file:///a#b",
        "s3://B ad/x",
        "s3://b?x/y",
        "s3://a&b/y",
        "s3://-a/y",
    ],
)
def test_what_is_not_a_place_is_refused(text: str) -> None:
    with pytest.raises(BadLocation):
        Location.parse(text)


@pytest.mark.parametrize("text", ["http://b/x", "S3://b/x", "ftp://b", "://b", "hdfs://n/x"])
def test_an_unknown_scheme_hints_at_those_there_are(text: str) -> None:
    with pytest.raises(BadLocation, match="unknown scheme") as caught:
        Location.parse(text)
    assert "s3://bucket/prefix" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("s3://b", "s3://b/x"),
        ("s3://b/x", "s3://b/x/y"),
        ("/data", "/data/x/y"),
        ("/", "/data"),
        ("memory://m", "memory://m/x"),
    ],
)
def test_what_lies_below_is_contained(outer: str, inner: str) -> None:
    assert Location.parse(outer).contains(Location.parse(inner))
    assert not Location.parse(inner).contains(Location.parse(outer))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://b/photos", "s3://b/photos2"),
        ("s3://b", "s3://b2"),
        ("/data/photos", "/data/photos2"),
        ("s3://b/x", "gs://b/x"),
        ("/b", "s3://b"),
        ("memory://a", "memory://b"),
    ],
)
def test_neighbours_do_not_contain_each_other(one: str, other: str) -> None:
    assert not Location.parse(one).contains(Location.parse(other))
    assert not Location.parse(other).contains(Location.parse(one))
