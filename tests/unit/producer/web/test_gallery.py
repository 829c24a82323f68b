"""Pages of outcomes: filtered, by cursor, and never more read than is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.core.bitmaps import bitmap
from millrace.core.chunks import ChunkPlan
from millrace.core.errors import ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line
from millrace.core.services import Services
from millrace.producer.web.gallery import Wanted, page_of
from tests.unit.core.support import a_spec
from tests.unit.producer.support import object_of

CHUNK = 4


class Counting(JobDirectory):
    """Counts the chunks that are read."""

    def __init__(self, services: Services, spec: JobSpec) -> None:
        super().__init__(services.stores, spec.directory)
        self.read: list[int] = []

    def read_chunk(self, plan: ChunkPlan, chunk: int, max_bytes: int = 0) -> bytes | None:
        self.read.append(chunk)
        return super().read_chunk(plan, chunk, max_bytes)


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return a_spec("j", output=str(tmp_path / "out"), chunk_size=CHUNK)


@pytest.fixture
def directory(services: Services, spec: JobSpec) -> Counting:
    """Ten chunks: every fifth image failed, the others are cats and dogs by turns."""
    made = Counting(services, spec)
    for chunk in range(10):
        made.create_chunk(spec.plan, chunk, encode_lines(_lines(chunk)))
    return made


def _lines(chunk: int) -> Iterator[bytes]:
    for row in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        named = ManifestRow(f"{row}.jpg", None, 1)
        if row % 5 == 4:
            yield error_line(named, ItemError(Stage.DECODE, "corrupt", "no"), 1)
        else:
            label = ("Cat", "dog")[row % 2]
            yield prediction_line(named, [{"label": label, "index": 0, "score": row / 40}])


ALL = bitmap(range(10))


def rows(directory: JobDirectory, spec: JobSpec, wanted: Wanted, **limits: Any) -> list[int]:
    """All rows, page by page."""
    found, after = list[int](), 0
    for _ in range(100):
        page = page_of(directory, spec, ALL, wanted, after, **limits)
        found += [shot.row for shot in page.found]
        if page.after is None:
            return found
        assert page.after > after
        after = page.after
    raise AssertionError("it does not end")


@pytest.mark.parametrize("size", [1, 3, 4, 7, 24, 100])
@pytest.mark.parametrize("most_chunks", [1, 2, 64])
def test_pages_hold_every_row_once_in_order(
    directory: Counting, spec: JobSpec, size: int, most_chunks: int
) -> None:
    found = rows(directory, spec, Wanted(), size=size, most_chunks=most_chunks)
    assert found == list(range(40))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted("errors"), {n for n in range(40) if n % 5 == 4}),
        (Wanted("predictions"), {n for n in range(40) if n % 5 != 4}),
        (Wanted(code="decode/corrupt"), {n for n in range(40) if n % 5 == 4}),
        (Wanted(code="fetch/not_found"), set()),
        (Wanted(label="CAT"), {n for n in range(40) if n % 5 != 4 and n % 2 == 0}),
        (Wanted(label="ca"), set()),
        (Wanted(least=0.5), {n for n in range(40) if n % 5 != 4 and n >= 20}),
        (Wanted(most=0.25), {n for n in range(40) if n % 5 != 4 and n <= 10}),
        (Wanted("errors", label="cat"), set()),
    ],
)
def test_filters(directory: Counting, spec: JobSpec, wanted: Wanted, expected: set[int]) -> None:
    assert rows(directory, spec, wanted, size=3) == sorted(expected)


def test_a_page_reads_no_further_than_it_must(directory: Counting, spec: JobSpec) -> None:
    page = page_of(directory, spec, ALL, Wanted(), 9, size=4)
    assert [shot.row for shot in page.found] == [9, 10, 11, 12]
    assert page.after == 13
    assert directory.read == [2, 3]


def test_a_filter_that_nothing_passes_stops_at_the_limit(
    directory: Counting, spec: JobSpec
) -> None:
    page = page_of(directory, spec, ALL, Wanted(label="fish"), most_chunks=3)
    assert (page.found, page.after, page.looked) == ([], 12, 12)
    assert directory.read == [0, 1, 2]


def test_time_is_a_limit_too_but_something_is_always_read(
    directory: Counting, spec: JobSpec
) -> None:
    page = page_of(directory, spec, ALL, Wanted(label="fish"), within_s=0)
    assert (page.after, directory.read) == (4, [0])


def test_chunks_that_are_not_finished_are_passed_over(directory: Counting, spec: JobSpec) -> None:
    page = page_of(directory, spec, bitmap([1, 7]), Wanted())
    assert [shot.row for shot in page.found] == [4, 5, 6, 7, 28, 29, 30, 31]
    assert directory.read == [1, 7]


def test_a_damaged_chunk_ends_where_the_damage_begins(directory: Counting, spec: JobSpec) -> None:
    path = object_of(spec, 3)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], b'{"key": ', lines[3]]))
    found = rows(directory, spec, Wanted(), size=5)
    assert found == [n for n in range(40) if n not in (14, 15)]


def test_answers_that_are_no_classes_pass_no_filter_of_classes() -> None:
    vector = {"key": "a", "etag": None, "predictions": [[0.1, 0.2]]}
    assert Wanted().accepts(vector)
    assert not Wanted(label="cat").accepts(vector)
    assert not Wanted(least=0.0).accepts({"key": "a", "etag": None, "predictions": []})
