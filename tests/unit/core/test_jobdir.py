"""The job directory: the same objects, wherever they lie."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core import read_ahead
from millrace.core.chunks import ChunkPlan
from millrace.core.claims import ModelIdentity
from millrace.core.errors import (
    AlreadyExists,
    CorruptRecord,
    ItemError,
    ObjectNotFound,
    Stage,
    StorageUnavailable,
)
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.manifest import ManifestRow, encode_rows
from millrace.core.outcome import encode_lines, error_line, prediction_line
from millrace.core.read_ahead import READ_AHEAD
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores
from millrace.core.storage.base import BLOCK_BYTES
from millrace.core.topology import chunk_object
from tests.faults.s3_proxy import Asked, Cut, Fault, s3_proxy
from tests.unit.core.support import a_spec

PLAN = ChunkPlan(2)
OUTPUTS: dict[str, Callable[[Path], str]] = {
    "local": lambda path: str(path / "out"),
    "memory": lambda _: "memory://out",
    "a prefix": lambda _: "memory://bucket/deep/out",
}


@pytest.fixture(params=OUTPUTS)
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return OUTPUTS[request.param](tmp_path)


@pytest.fixture
def stores() -> Stores:
    return Stores(StorageSettings.load())


@pytest.fixture
def spec(output: str) -> JobSpec:
    return a_spec("j", output=Location.parse(output).uri)


@pytest.fixture
def directory(stores: Stores, spec: JobSpec) -> JobDirectory:
    return JobDirectory(stores, spec.directory)


def names(stores: Stores, output: str) -> list[str]:
    """Every object of the job, from its output on."""
    location = Location.parse(output)
    found = stores.open(location).list(location.prefix)
    return sorted(item.key.removeprefix(location.prefix) for item in found)


def test_the_spec_is_written_once(directory: JobDirectory, spec: JobSpec) -> None:
    for _ in range(2):
        directory.create_spec(spec)
    assert directory.read_spec() == spec
    with pytest.raises(AlreadyExists):
        directory.create_spec(spec.model_copy(update={"top_k": 2}))


def test_a_directory_without_a_job_is_not_found(directory: JobDirectory) -> None:
    with pytest.raises(ObjectNotFound):
        directory.read_spec()


def test_the_objects_lie_where_the_design_says(
    stores: Stores, directory: JobDirectory, spec: JobSpec, output: str
) -> None:
    directory.create_spec(spec)
    directory.create_part(0, [ManifestRow("a.jpg")])
    directory.create_chunk(PLAN, 17, b"")
    directory.create_chunk(PLAN, PLAN.chunks_per_part, b"")
    directory.put_by_key("photos/a.jpg", b"{}")
    directory.put_errors([])
    directory.put_summary({})
    directory.put_success()
    assert names(stores, output) == [
        "j/_SUCCESS",
        "j/by-key/photos/a.jpg.json",
        "j/errors.jsonl",
        "j/job.json",
        "j/manifest/part-00000.jsonl",
        "j/results/part-00000/chunk-0000017.jsonl",
        "j/results/part-00001/chunk-0004096.jsonl",
        "j/summary.json",
    ]


def test_a_url_names_an_object(directory: JobDirectory, spec: JobSpec) -> None:
    assert directory.uri("_SUCCESS") == f"{spec.output}/j/_SUCCESS"


def test_the_first_model_a_job_began_with_stands(directory: JobDirectory) -> None:
    assert directory.pinned_model() is None
    first, second = ModelIdentity("1", "sha256:abc"), ModelIdentity("", "sha256:def")
    assert directory.pin_model(first) == first
    assert directory.pin_model(second) == first
    assert directory.pin_model(first) == first
    assert directory.pinned_model() == first


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": "1"}', "null"])
def test_a_model_that_cannot_be_read_is_corrupt(
    text: str, directory: JobDirectory, stores: Stores
) -> None:
    stores.open(directory.location).put(f"{directory.location.prefix}model.json", text.encode())
    with pytest.raises(CorruptRecord, match=r"model\.json"):
        directory.pinned_model()
    with pytest.raises(CorruptRecord, match=r"model\.json"):
        directory.pin_model(ModelIdentity("1", "sha256:abc"))


def test_a_part_is_written_once_and_read_by_line(directory: JobDirectory, spec: JobSpec) -> None:
    directory.create_spec(spec)
    assert directory.parts() == []
    rows = [ManifestRow("a\nb", '"1"', 1), ManifestRow("c")]
    directory.create_part(0, rows)
    assert directory.parts() == [0]
    assert decode_rows(directory.part_lines(0), PLAN, 0) == rows
    with pytest.raises(AlreadyExists):
        directory.create_part(0, rows[:1])
    assert decode_rows(directory.part_lines(0), PLAN, 0) == rows
    with pytest.raises(ObjectNotFound):
        directory.part_lines(1)


def test_the_same_part_may_be_written_again(directory: JobDirectory) -> None:
    rows = [ManifestRow("a", '"1"', 1), ManifestRow("b")]
    for _ in range(2):
        directory.create_part(0, iter(rows))
    assert decode_rows(directory.part_lines(0), PLAN, 0) == rows


@pytest.mark.parametrize("fault", [500, Cut()])
def test_a_part_whose_answer_was_lost_is_written_all_the_same(
    s3: EmbeddedS3, bucket: str, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    lost: list[str] = []

    def lose_the_first(asked: Asked) -> Fault | None:
        if asked.method != "PUT" or lost:
            return None
        lost.append(asked.path)
        return fault

    rows = [ManifestRow("a"), ManifestRow("b")]
    with s3_proxy(s3.endpoint, afterwards=lose_the_first) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        place = a_spec("j", output=f"s3://{bucket}/out").directory
        directory = JobDirectory(Stores(StorageSettings.load()), place)
        directory.create_part(0, rows)
        assert lost == [f"/{bucket}/out/j/manifest/part-00000.jsonl"]
        assert decode_rows(directory.part_lines(0), PLAN, 0) == rows


def test_the_first_outcome_of_a_chunk_stands(directory: JobDirectory) -> None:
    assert directory.read_chunk(PLAN, 0) is None
    assert directory.create_chunk(PLAN, 0, b"first\n") == b"first\n"
    assert directory.create_chunk(PLAN, 0, b"second\n") == b"first\n"
    assert directory.read_chunk(PLAN, 0) == b"first\n"


def test_the_committed_chunks_are_those_whose_objects_stand(
    stores: Stores, directory: JobDirectory, spec: JobSpec
) -> None:
    directory.create_spec(spec)
    assert list(directory.committed_chunks(PLAN)) == []
    for chunk in (3, 0, 5000):
        directory.create_chunk(PLAN, chunk, b"")
    place = spec.directory
    stores.open(place).put(f"{place.prefix}results/part-00000/notes.txt", b"")
    stores.open(place).put(f"{place.prefix}{chunk_object(9, 1)}", b"")
    assert sorted(directory.committed_chunks(PLAN)) == [0, 3, 5000]


def test_chunks_are_read_in_the_order_asked_for(directory: JobDirectory) -> None:
    numbers = list(range(3 * READ_AHEAD + 1))
    random.Random(7).shuffle(numbers)
    for chunk in numbers:
        directory.create_chunk(PLAN, chunk, b"%d\n%d again\n" % (chunk, chunk))
    found = list(directory.read_chunks(PLAN, iter(numbers)))
    assert found == [b"%d\n%d again\n" % (chunk, chunk) for chunk in numbers]


def test_a_chunk_that_does_not_stand_is_none(directory: JobDirectory) -> None:
    directory.create_chunk(PLAN, 1, b"one\n")
    assert list(directory.read_chunks(PLAN, [0, 1, 2])) == [None, b"one\n", None]
    assert list(directory.read_chunks(PLAN, [])) == []


def test_a_reader_of_chunks_may_stop_early(directory: JobDirectory) -> None:
    directory.create_chunk(PLAN, 0, b"zero\n")
    asked = count()
    chunks = directory.read_chunks(PLAN, asked)
    assert isinstance(chunks, Generator)
    assert next(chunks) == b"zero\n"
    chunks.close()
    assert next(asked) == 1  # one alone, until it is known how large they are
    assert not [thread for thread in threading.enumerate() if "read-ahead" in thread.name]


@pytest.mark.parametrize(
    ("sizes", "ahead"),
    [
        ([10] * 20, [1, 2, 4, 8, 8]),
        ([40] * 20, [1, 2, 2, 2, 2]),
        ([1000] * 20, [1, 1, 1, 1, 1]),
        ([10, *[1000] * 19], [1, 2, 1, 1, 1]),
    ],
)
def test_of_large_chunks_fewer_are_read_ahead(
    sizes: list[int], ahead: list[int], directory: JobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES", 100)
    for chunk, size in enumerate(sizes):
        directory.create_chunk(PLAN, chunk, b"x" * (size - 1) + b"\n")
    asked = 0

    def asking() -> Iterator[int]:
        nonlocal asked
        for asked in range(1, len(sizes) + 1):
            yield asked - 1

    under_way = []
    for taken, _ in enumerate(directory.read_chunks(PLAN, asking())):
        under_way.append(asked - taken)
    assert under_way[:5] == ahead
    assert len(under_way) == len(sizes)


def test_a_chunk_that_cannot_be_read_is_raised_in_its_turn(tmp_path: Path) -> None:
    directory = JobDirectory(
        Stores(StorageSettings.load()), a_spec("j", output=str(tmp_path)).directory
    )
    for chunk in range(3):
        directory.create_chunk(PLAN, chunk, b"%d\n" % chunk)
    file = Path(directory.location.root, chunk_object(0, 1))
    file.unlink()
    file.symlink_to(file)
    chunks = directory.read_chunks(PLAN, range(3))
    assert next(chunks) == b"0\n"
    with pytest.raises(StorageUnavailable):
        next(chunks)


def test_the_error_lines_of_some_chunks_are_read(directory: JobDirectory) -> None:
    bad = [
        error_line(ManifestRow(str(number)), ItemError(Stage.FETCH, "gone", "it is gone"), 1)
        for number in range(4)
    ]
    good = prediction_line(ManifestRow("good"), [])
    for chunk, lines in enumerate([[bad[0], good], [good, good], [bad[1], bad[2]], [bad[3]]]):
        directory.create_chunk(PLAN, chunk, encode_lines(lines))
    assert list(directory.error_lines(PLAN, [2, 1, 0, 9])) == [bad[1], bad[2], bad[0]]


def test_an_error_line_that_is_not_ours_is_corrupt(directory: JobDirectory) -> None:
    directory.create_chunk(PLAN, 0, b"not an outcome\n")
    with pytest.raises(CorruptRecord):
        list(directory.error_lines(PLAN, [0]))


def test_the_chunks_of_a_job_of_a_longer_name_are_not_ours(stores: Stores) -> None:
    ours, other = (
        JobDirectory(stores, a_spec(name, output="memory://out").directory) for name in ("j", "j2")
    )
    other.create_chunk(PLAN, 0, b"")
    other.create_part(0, [])
    assert list(ours.committed_chunks(PLAN)) == []
    assert ours.parts() == []


def test_an_image_may_be_called_like_a_folder_of_others(directory: JobDirectory) -> None:
    for key in ("a", "a.json/b", "a/b", "a.json"):
        directory.put_by_key(key, b"{}")


def published(directory: JobDirectory) -> list[bytes] | None:
    lines = directory.published_errors()
    return None if lines is None else list(lines)


def test_the_errors_are_streamed(directory: JobDirectory) -> None:
    assert published(directory) is None
    directory.put_errors(line for line in (b"one\n", b"two\n"))
    assert published(directory) == [b"one", b"two"]
    directory.put_errors(iter(()))
    assert published(directory) == []


def test_errors_are_whole_where_blocks_meet(directory: JobDirectory) -> None:
    lines = [b"%d %s" % (number, b"x" * 99_990) for number in range(3 * BLOCK_BYTES // 100_000)]
    directory.put_errors(line + b"\n" for line in lines)
    assert published(directory) == lines


@pytest.mark.parametrize("size", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_an_error_may_end_where_a_block_does(directory: JobDirectory, size: int) -> None:
    lines = [b"x" * (size - 1), b"", b"last"]
    directory.put_errors([b"\n".join(lines)])
    assert published(directory) == lines


def test_a_job_may_be_finalized_again(directory: JobDirectory) -> None:
    for _ in range(2):
        directory.put_errors([])
        directory.put_summary({"state": "succeeded"})
        directory.put_success()


@given(st.integers(1, 50), st.integers(1, 10))
def test_the_rows_of_all_chunks_are_the_rows_of_the_part(count: int, size: int) -> None:
    plan = ChunkPlan(size)
    rows = [ManifestRow(str(number)) for number in range(count)]
    lines = encode_rows(rows).splitlines()
    chunks = [decode_rows(lines, plan, chunk) for chunk in range(plan.chunks_in(count))]
    assert [row for chunk in chunks for row in chunk] == rows


def test_a_chunk_beyond_the_manifest_is_corrupt() -> None:
    lines = encode_rows([ManifestRow("a")] * 2).splitlines()
    with pytest.raises(CorruptRecord, match="no rows for chunk 1"):
        decode_rows(lines, PLAN, 1)


def test_the_parts_are_numbered_whatever_else_lies_there(
    stores: Stores, directory: JobDirectory, spec: JobSpec
) -> None:
    for part in (10, 2, 0):
        directory.create_part(part, [])
    store, place = stores.open(directory.location), directory.location.prefix
    for name in ("part-1.jsonl", "part-00003.json", "x/part-00004.jsonl"):
        store.put(f"{place}manifest/{name}", b"")
    assert directory.parts() == [0, 2, 10]


def test_a_summary_is_read_back(directory: JobDirectory) -> None:
    assert directory.read_summary() is None
    directory.put_summary({"state": "succeeded"})
    assert directory.read_summary() == {"state": "succeeded"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_foreign_summary_is_corrupt(stores: Stores, directory: JobDirectory, text: bytes) -> None:
    stores.open(directory.location).put(f"{directory.location.prefix}summary.json", text)
    with pytest.raises(CorruptRecord, match=r"summary\.json"):
        directory.read_summary()


def test_success_stands_or_not(directory: JobDirectory) -> None:
    assert not directory.has_success()
    directory.put_success()
    assert directory.has_success()


def test_a_directory_is_removed_and_its_neighbours_are_not(
    stores: Stores, directory: JobDirectory, spec: JobSpec, output: str
) -> None:
    other = JobDirectory(stores, Location.parse(output).child("j2"))
    for place in (directory, other):
        place.create_spec(spec)
        place.create_part(0, [])
        place.create_chunk(PLAN, 0, b"")
        place.put_by_key("photos/2024/a.jpg", b"{}")
    assert directory.remove() == 4
    assert all(name.startswith("j2/") for name in names(stores, output))
    assert len(names(stores, output)) == 4
