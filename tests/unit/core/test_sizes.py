"""What is read back is measured first: oversized objects are refused by name, unread."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from millrace.core import sizes
from millrace.core.bundle import read_labels
from millrace.core.chunks import PART_ROWS, ChunkPlan
from millrace.core.errors import (
    AlreadyExists,
    CorruptRecord,
    MillraceError,
    ModelError,
    ObjectTooLarge,
)
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow, decode_row, encode_rows
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores

PLAN = ChunkPlan(2)
ROWS = [ManifestRow("a")]


@pytest.fixture
def directory(tmp_path: Path) -> JobDirectory:
    return JobDirectory(Stores(Settings.load()), Location.parse(str(tmp_path)))


def grow(file: Path, size: int) -> None:
    """A file of that length which takes no room on the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.truncate(file, size)


READERS: list[tuple[str, int, Callable[[JobDirectory], Any]]] = [
    ("job.json", sizes.MAX_SPEC_BYTES, lambda d: d.read_spec()),
    ("model.json", sizes.MAX_MODEL_BYTES, lambda d: d.pinned_model()),
    ("manifest/part-00000.jsonl", sizes.MAX_PART_BYTES, lambda d: d.part_lines(0)),
    ("manifest/complete.json", sizes.MAX_COMPLETE_BYTES, lambda d: d.manifest_size()),
    (
        "results/part-00000/chunk-0000000.jsonl",
        sizes.MAX_CHUNK_BYTES,
        lambda d: d.read_chunk(PLAN, 0),
    ),
    (
        "results/part-00000/chunk-0000000.jsonl",
        sizes.MAX_CHUNK_BYTES,
        lambda d: d.create_chunk(PLAN, 0, b"x\n"),
    ),
    ("summary.json", sizes.MAX_SUMMARY_BYTES, lambda d: d.read_summary()),
]


@pytest.mark.parametrize(("name", "limit", "read"), READERS)
def test_no_object_of_a_job_is_read_beyond_its_limit(
    directory: JobDirectory,
    tmp_path: Path,
    name: str,
    limit: int,
    read: Callable[[JobDirectory], Any],
) -> None:
    grow(tmp_path / name, limit + 1)
    with pytest.raises(ObjectTooLarge, match=f"over the limit of {limit}"):
        read(directory)


def test_a_longer_object_is_another_one(directory: JobDirectory, tmp_path: Path) -> None:
    grow(tmp_path / "manifest" / "part-00000.jsonl", sizes.MAX_PART_BYTES + 1)
    with pytest.raises(AlreadyExists):
        directory.create_part(0, ROWS)


def test_what_nobody_would_read_is_not_written(directory: JobDirectory, tmp_path: Path) -> None:
    with pytest.raises(ObjectTooLarge):
        directory.create_chunk(PLAN, 0, bytes(sizes.MAX_CHUNK_BYTES + 1))
    rows = [ManifestRow("x" * (sizes.MAX_PART_BYTES // 1024))] * 1100
    with pytest.raises(ObjectTooLarge):
        directory.create_part(0, rows)
    assert not [*tmp_path.iterdir()]


def test_a_part_of_too_many_rows_is_corrupt(directory: JobDirectory, tmp_path: Path) -> None:
    file = tmp_path / "manifest" / "part-00000.jsonl"
    file.parent.mkdir()
    file.write_bytes(encode_rows(ROWS * (PART_ROWS + 1)))
    with pytest.raises(CorruptRecord, match=f"{PART_ROWS + 1} rows"):
        directory.part_lines(0)


def test_a_manifest_line_beyond_the_limit_is_corrupt() -> None:
    line = orjson.dumps({"key": "k" * sizes.MAX_LINE_BYTES, "etag": None, "size": None})
    with pytest.raises(CorruptRecord, match="a manifest line of"):
        decode_row(line)


def test_a_line_of_the_errors_that_does_not_end_is_corrupt(
    directory: JobDirectory, tmp_path: Path
) -> None:
    grow(tmp_path / "errors.jsonl", sizes.MAX_ERROR_LINE_BYTES + 2 * 1024 * 1024)
    with pytest.raises(CorruptRecord, match=r"errors\.jsonl"):
        list(directory.published_errors() or ())


def test_labels_beyond_the_limit_are_refused_unread(tmp_path: Path) -> None:
    grow(tmp_path / "labels.txt", sizes.MAX_LABELS_BYTES + 1)
    with pytest.raises(ModelError, match="is larger than"):
        read_labels(tmp_path / "labels.txt")


def test_the_longest_real_rows_fit() -> None:
    """Keys of S3's 1024 bytes, all of which JSON writes as six characters."""
    part = encode_rows([ManifestRow("\x01" * 1024, '"etag"', 1)] * PART_ROWS)
    assert len(part) < sizes.MAX_PART_BYTES
    assert decode_row(part.partition(b"\n")[0]).key == "\x01" * 1024


def test_every_limit_is_an_error_of_its_own() -> None:
    assert issubclass(ObjectTooLarge, MillraceError)
    assert ObjectTooLarge.code == "too_large"
