"""Verifying jobs that somebody or something tampered with: each way is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.core.chunks import PART_ROWS
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, prediction_line, tally
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer.control import cancel
from millrace.producer.enqueue import enqueue
from millrace.producer.recover import repair
from millrace.producer.verify import verify
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_worker, created
from tests.unit.producer.support import listed_job, work

FAILING = {0: "fetch/not_found", 3: "decode/bad_image"}
CHUNK_1 = "results/part-00000/chunk-0000001.jsonl"

Lines = Callable[[list[bytes]], list[bytes]]


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """Six images in three chunks, all run; the first and the fourth failed."""
    made = listed_job(services, tmp_path)
    work(services, made, 0, 1, 2, failing=FAILING)
    return made


@pytest.fixture
def place(spec: JobSpec) -> Path:
    return Path(spec.directory.root)


def found(services: Services, spec: JobSpec) -> dict[str, str]:
    """Where there is something wrong, and what. Other chunks are never blamed."""
    verification = verify(services, JobDirectory(services.stores, spec.directory))
    assert verification.ok is (not verification.findings)
    return {finding.where: finding.problem for finding in verification.findings}


def rewrite(file: Path, change: Lines) -> None:
    file.write_bytes(b"".join(line + b"\n" for line in change(file.read_bytes().splitlines())))


def with_field(line: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(line), **fields}).encode()


def with_error(line: bytes, **fields: object) -> bytes:
    return with_field(line, error={**json.loads(line)["error"], **fields})


# --- outcomes ---


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[:1], "1 outcome lines for 2 manifest rows"),
        (lambda lines: [], "0 outcome lines for 2 manifest rows"),
        (lambda lines: [*lines, lines[0]], "3 outcome lines for 2 manifest rows"),
        (lambda lines: [lines[0], lines[0]], "outcome of '2.jpg' where '3.jpg' was due"),
        (lambda lines: lines[::-1], "outcome of '3.jpg' where '2.jpg' was due"),
        (lambda lines: [with_field(lines[0], key="9.jpg"), lines[1]], "outcome of '9.jpg'"),
        (lambda lines: [with_field(lines[0], etag='"9"'), lines[1]], "outcome of '2.jpg'"),
        (lambda lines: [with_field(lines[0], etag=None), lines[1]], "outcome of '2.jpg'"),
        (lambda lines: [b"nonsense", lines[1]], "not an outcome line: b'nonsense'"),
        (lambda lines: [lines[0], lines[1][:-9]], "not an outcome line"),
        (lambda lines: [b'{"key":"2.jpg","etag":"\\"2\\""}', lines[1]], "not an outcome line"),
        (lambda lines: [with_field(lines[0], predictions=[1]), lines[1]], "predictions.0: "),
        (lambda lines: [with_field(lines[0], predictions=[{"label": 7}]), lines[1]], "label"),
        (lambda lines: [with_field(lines[0], junk=1), lines[1]], "junk: "),
        (lambda lines: [lines[0], with_error(lines[1], stage="nonsense")], "error.stage: "),
        (lambda lines: [lines[0], with_error(lines[1], code="")], "error.code: "),
        (lambda lines: [lines[0], with_error(lines[1], retryable=None)], "error.retryable: "),
    ],
    ids=[
        *("a line less", "no lines", "a line more", "a line twice", "swapped", "another key"),
        *("another etag", "no etag", "garbage", "half a line", "neither outcome"),
        *("no objects", "no classes", "another field", "no stage", "no code", "neither yes nor no"),
    ],
)
def test_outcomes_that_are_not_of_the_rows(
    services: Services, spec: JobSpec, place: Path, change: Lines, problem: str
) -> None:
    rewrite(place / CHUNK_1, change)
    wrong = found(services, spec)
    assert problem in wrong["chunk 1"]
    assert not {"chunk 0", "chunk 2"} & set(wrong)


def test_an_outcome_that_was_turned_into_another(
    services: Services, spec: JobSpec, place: Path
) -> None:
    """The line is well formed; the counts tell."""
    good = b'{"key":"3.jpg","etag":"\\"3\\"","predictions":[]}'
    rewrite(place / CHUNK_1, lambda lines: [lines[0], good])
    assert set(found(services, spec)) == {"redis", "summary.json", "errors.jsonl"}


@pytest.mark.parametrize("name", [CHUNK_1, "results/part-00000/chunk-0000002.jsonl"])
def test_an_object_that_is_missing(
    services: Services, spec: JobSpec, place: Path, name: str
) -> None:
    (place / name).unlink()
    chunk = int(name[-7])
    wrong = found(services, spec)
    assert wrong["results"] == f"chunks without an object: {chunk}"
    assert {"redis", "summary.json"} <= set(wrong)


def test_many_missing_objects_are_named_in_part(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=30)
    work(services, spec, *range(15))
    for file in Path(spec.directory.root, "results").rglob("*.jsonl"):
        file.unlink()
    assert found(services, spec)["results"].endswith("0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 5 more")


def test_a_missing_object_is_told_without_redis(
    services: Services, spec: JobSpec, place: Path
) -> None:
    (place / CHUNK_1).unlink()
    services.redis.raw.flushdb()
    wrong = found(services, spec)
    assert wrong["results"] == "chunks without an object: 1"
    assert "redis" not in wrong


@pytest.mark.parametrize("forget", [True, False], ids=["storage alone", "with Redis"])
def test_more_is_missing_than_was_cancelled(
    services: Services, tmp_path: Path, forget: bool
) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1)
    cancel(services, "j")
    assert found(services, spec) == {}
    Path(spec.directory.root, CHUNK_1).unlink()
    if forget:
        services.redis.raw.flushdb()
    wrong = found(services, spec)
    assert wrong["results"] == "chunks without an object: 1, 2"
    assert "summary.json" in wrong


def test_an_object_no_row_asked_for(services: Services, spec: JobSpec, place: Path) -> None:
    (place / "results/part-00000/chunk-0000003.jsonl").write_bytes(b"")
    name = "results/part-00000/chunk-0000003.jsonl"
    assert found(services, spec) == {name: "belongs to no chunk of the manifest"}


# --- the copies by key ---

ODD_KEYS = ["a.jpg", "a//b.jpg", "../c.jpg", "50%.jpg", "a.json/d", "x" * 300, "ü ä.jpg"]


@pytest.mark.parametrize("where", ["directory", "bucket"])
def test_copies_that_are_missing(
    services: Services, tmp_path: Path, bucket: str, where: str
) -> None:
    output = str(tmp_path) if where == "directory" else f"s3://{bucket}/out"
    spec = a_spec("j", output=output, layout="per-image", chunk_size=7)
    created(services, spec)
    rows = [ManifestRow(key, '"1"', 1) for key in ODD_KEYS]
    enqueue(services, spec, iter(rows))
    directory = JobDirectory(services.stores, spec.directory)
    body = encode_lines(prediction_line(row, []) for row in rows)
    directory.create_chunk(spec.plan, 0, body)
    assert found(services, spec) == {}  # they follow, and then the chunk is finished
    worker = a_worker(services)
    _, lease = worker.claim(spec.queue, "j", 0, MODEL)
    worker.finish(lease, tally(body, rows), NO_TIME)
    services.finalizer.finalize("j")
    assert found(services, spec) == {"by-key/": "7 images have no object"}
    directory.put_by_key(ODD_KEYS[0], b"{}")
    assert found(services, spec) == {"by-key/": "6 images have no object"}
    repair(services, directory, verify(services, directory))
    assert found(services, spec) == {}


# --- the manifest ---


@pytest.mark.parametrize("part", [0, 1])
def test_a_part_of_the_manifest_that_is_missing(
    services: Services, tmp_path: Path, part: int
) -> None:
    spec = listed_job(services, tmp_path, images=2 * PART_ROWS + 1, chunk_size=PART_ROWS)
    work(services, spec, 0, 1, 2)
    Path(spec.directory.root, f"manifest/part-0000{part}.jsonl").unlink()
    wrong = found(services, spec)
    assert "parts are missing" in wrong["manifest"]
    assert {"redis", "summary.json"} <= set(wrong)


def test_the_last_part_of_the_manifest_is_missing(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=PART_ROWS + 1, chunk_size=PART_ROWS)
    work(services, spec, 0, 1)
    Path(spec.directory.root, "manifest/part-00001.jsonl").unlink()
    wrong = found(services, spec)
    stray = "results/part-00001/chunk-0000001.jsonl"
    assert wrong[stray] == "belongs to no chunk of the manifest"
    assert {"redis", "summary.json"} <= set(wrong)


def test_a_row_of_the_manifest_that_is_missing(
    services: Services, spec: JobSpec, place: Path
) -> None:
    rewrite(place / "manifest/part-00000.jsonl", lambda lines: lines[:1] + lines[2:])
    assert {"chunk 0", "chunk 1", "chunk 2", "redis"} <= set(found(services, spec))


def test_a_part_that_is_short(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path, images=PART_ROWS + 1, chunk_size=PART_ROWS)
    rewrite(Path(spec.directory.root, "manifest/part-00000.jsonl"), lambda lines: lines[:-1])
    assert found(services, spec)["manifest"] == f"part 0 holds {PART_ROWS - 1} rows of {PART_ROWS}"


# --- what is published ---


@pytest.mark.parametrize(
    "change",
    [lambda lines: lines[1:], lambda lines: [], lambda lines: [*lines, lines[0]]],
    ids=["a line less", "no lines", "a line twice"],
)
def test_errors_that_are_not_all_or_too_many(
    services: Services, spec: JobSpec, place: Path, change: Lines
) -> None:
    rewrite(place / "errors.jsonl", change)
    assert set(found(services, spec)) == {"errors.jsonl"}


@pytest.mark.parametrize("name", ["errors.jsonl", "_SUCCESS"])
def test_an_object_of_the_end_that_is_missing(
    services: Services, spec: JobSpec, place: Path, name: str
) -> None:
    (place / name).unlink()
    assert found(services, spec) == {name: "is missing"}


def test_a_summary_that_is_missing(services: Services, spec: JobSpec, place: Path) -> None:
    (place / "summary.json").unlink()
    assert found(services, spec)["summary.json"] == "is missing though the job has ended"


def test_success_where_there_was_none(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 1, 2, failing=dict.fromkeys(range(6), "decode/bad_image"))
    assert found(services, spec) == {}
    Path(spec.directory.root, "_SUCCESS").touch()
    assert found(services, spec) == {"_SUCCESS": "stands though the job is not whole"}


@pytest.mark.parametrize("name", ["total", "succeeded", "failed", "cancelled"])
def test_a_summary_that_counts_otherwise(
    services: Services, spec: JobSpec, place: Path, name: str
) -> None:
    file = place / "summary.json"
    summary = json.loads(file.read_bytes())
    real = summary["counts"][name]
    summary["counts"][name] = 99
    file.write_text(json.dumps(summary))
    assert found(services, spec) == {"summary.json": f"{name} is 99, storage holds {real}"}


# --- Redis ---


@pytest.mark.parametrize("name", ["total", "succeeded", "failed"])
def test_redis_that_counts_otherwise(services: Services, spec: JobSpec, name: str) -> None:
    services.redis.raw.hset(JobKeys("j").record, name, 99)
    assert found(services, spec)["redis"].startswith(f"{name} is 99, storage holds ")


def test_redis_that_knows_other_errors(services: Services, spec: JobSpec) -> None:
    services.redis.raw.hset(JobKeys("j").errors, "fetch/gone", 1)
    assert found(services, spec)["redis"].startswith("errors by code is ")


def test_a_chunk_that_redis_takes_for_finished(services: Services, tmp_path: Path) -> None:
    spec = listed_job(services, tmp_path)
    work(services, spec, 0, 2)
    assert found(services, spec) == {}
    services.redis.raw.setbit(JobKeys("j").done, 1, 1)
    assert found(services, spec) == {"redis": "chunk 1 is finished, but has no object"}
