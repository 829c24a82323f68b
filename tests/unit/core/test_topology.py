"""Names: spelled once, read back exactly, never two things under one."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millrace.core.storage.via_obstore import obstore_can_express
from millrace.core.topology import (
    JobKeys,
    QueueKeys,
    by_key_object,
    chunk_object,
    is_unfinished_chunk,
    lease_member,
    manifest_part,
    parse_chunk_object,
    parse_manifest_part,
    queue_name,
    split_lease_member,
    worker_key,
)

nasty_keys = st.one_of(
    st.text(st.sampled_from("a./%2FE5\x00\x1f\x7f~"), max_size=8),
    st.text(max_size=8),
    st.text(st.sampled_from("é/a"), min_size=200, max_size=1024),
)


def test_a_model_has_one_queue() -> None:
    assert queue_name("resnet50", None) == "millrace.resnet50"


def test_a_pinned_version_has_a_queue_of_its_own() -> None:
    assert queue_name("resnet50", "3") == "millrace.resnet50:3"


def test_parts_and_chunks_sort_by_number() -> None:
    assert manifest_part(7) == "manifest/part-00007.jsonl"
    assert chunk_object(2, 130) == "results/part-00002/chunk-0000130.jsonl"
    assert sorted(chunk_object(0, n) for n in (100, 9, 10)) == [
        chunk_object(0, n) for n in (9, 10, 100)
    ]


@given(st.integers(0, 10**6), st.integers(0, 2**31 - 1))
def test_a_chunk_object_carries_its_number(part: int, chunk: int) -> None:
    assert parse_chunk_object(chunk_object(part, chunk)) == (part, chunk)
    assert parse_chunk_object(f"predictions/job/{chunk_object(part, chunk)}") == (part, chunk)


@pytest.mark.parametrize(
    "name",
    [
        "results/part-00000/chunk-17.jsonl",
        "results/part-0/chunk-0000017.jsonl",
        "results/part-00000/chunk-0000017.jsonl.tmp",
        "results/part-00000/chunk-0000017.json",
        "results/chunk-0000017.jsonl",
        "results/part-00000/chunk-0000017.jsonl\n",
        "results/part-00000/chunk-00000017.jsonl",
        "myresults/part-00000/chunk-0000017.jsonl",
        "manifest/part-00000.jsonl",
        "_SUCCESS",
        "",
    ],
)
def test_a_foreign_name_is_no_chunk(name: str) -> None:
    assert parse_chunk_object(name) is None


def test_what_a_killed_writer_leaves_of_a_chunk_is_told_from_other_names() -> None:
    chunk = f"out/job/{chunk_object(0, 17)}"
    assert is_unfinished_chunk(f"{chunk}#1")
    assert is_unfinished_chunk(f"{chunk}#20")
    for name in (chunk, f"{chunk}#", f"{chunk}#x", "out/photo#1", "results/photo.jsonl#1", "#1"):
        assert not is_unfinished_chunk(name), name


@given(st.integers(0, 10**6))
def test_a_manifest_part_carries_its_number(part: int) -> None:
    assert parse_manifest_part(manifest_part(part)) == part
    assert parse_manifest_part(f"predictions/job/{manifest_part(part)}") == part


@pytest.mark.parametrize(
    "name",
    [
        "manifest/part-1.jsonl",
        "manifest/part-000001.jsonl",
        "manifest/part-00001.json",
        "manifest/part-00001.jsonl\n",
        "mymanifest/part-00001.jsonl",
        "results/part-00000/chunk-0000017.jsonl",
        "",
    ],
)
def test_a_foreign_name_is_no_part(name: str) -> None:
    assert parse_manifest_part(name) is None


def test_the_keys_of_a_job_share_its_hash_tag_and_differ() -> None:
    keys = JobKeys("photos-1")
    names = [
        keys.record,
        keys.done,
        keys.failed,
        keys.attempts,
        keys.owners,
        keys.errors,
        keys.samples,
        keys.pace,
        keys.finalizer,
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("millrace:{photos-1}:") for name in names)


def test_all_the_keys_of_a_job_are_known() -> None:
    """Those that are there and not among them would outlive the job."""
    keys = JobKeys("j")
    properties = {name for name, what in vars(JobKeys).items() if isinstance(what, property)}
    single = properties - {"all", "contents"}
    assert sorted(keys.all) == sorted(getattr(keys, name) for name in single)
    assert set(keys.all) - set(keys.contents) == {keys.finalizer, keys.producer}


def test_the_keys_of_a_queue_differ() -> None:
    keys = QueueKeys("millrace.tiny")
    names = {keys.active, keys.leases, keys.fleet, keys.reconciler}
    assert len(names) == 4
    assert all(name.endswith(":millrace.tiny") for name in names)


def test_a_worker_key_names_the_worker() -> None:
    assert worker_key("1@host/ab") == "millrace:worker:1@host/ab"


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True), st.integers(0, 2**31))
def test_a_lease_member_is_split_as_it_was_joined(job: str, chunk: int) -> None:
    assert split_lease_member(lease_member(job, chunk)) == (job, chunk)


@given(st.sets(nasty_keys, max_size=30))
@example({"a//b", "a/%2F/b", "a/%2Fb", "a%2F/b", "a/b", "/a/b", "%2Fa/b", "a/b/", "a/b//"})
@example({".", "..", "%2E", "%2E%2E", "./a", "a/.", "a/..", "a/../b", "a/%2E%2E/b"})
@example({"\x00", "%00", "\x7f", "%7F", "%", "%25", ""})
@example({"x" * 1024, "x" * 1023 + "y", "%sha256-0"})
def test_no_two_keys_share_a_by_key_object(keys: set[str]) -> None:
    assert len({by_key_object(key) for key in keys}) == len(keys)


@given(nasty_keys)
@example("/")
@example("a//")
@example("../../etc/passwd")
@example("é" * 512)
@example("/".join("a" * 500))
def test_a_by_key_object_is_a_safe_path(key: str) -> None:
    name = by_key_object(key)
    assert name.startswith("by-key/")
    assert name.endswith(".json")
    assert obstore_can_express(name)
    segments = name.split("/")
    assert not {"", ".", ".."} & set(segments)
    assert all(len(segment.encode()) <= 255 for segment in segments)
    # Room for the output's own prefix and the job's id within 1024 bytes.
    assert len(name.encode()) <= 830


def test_a_plain_key_keeps_its_name() -> None:
    assert by_key_object("photos/2024/a b#1.jpg") == "by-key/photos/2024/a b#1.jpg.json"


def test_a_key_too_long_for_a_path_is_named_by_its_hash() -> None:
    assert re.fullmatch(r"by-key/%sha256-[0-9a-f]{64}\.json", by_key_object("x" * 250))
