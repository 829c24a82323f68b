"""`millrace results` and `errors`: from a job's id or its URL, as JSON Lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from millrace.core.errors import ExitCode, ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line, tally
from millrace.core.services import Services
from millrace.producer.outcome_csv import CSV_COLUMNS, csv_blocks
from tests.unit.cli.conftest import Invoke
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_worker, created

CAT = {"label": "cat", "index": 3, "score": 0.75}
DOG = {"label": "dog", "index": 5, "score": 0.25}
ROWS = [ManifestRow("a.jpg", '"1"'), ManifestRow("b.jpg"), ManifestRow("c.jpg")]
LINES = [
    prediction_line(ROWS[0], [CAT, DOG]),
    error_line(ROWS[1], ItemError(Stage.DECODE, "bad_image", "no image"), 2),
    prediction_line(ROWS[2], []),
]


@pytest.fixture
def spec(services: Services, tmp_path: Path) -> JobSpec:
    """A job of three images whose outcomes are committed."""
    made = created(services, a_spec("j", output=str(tmp_path / "out"), chunk_size=2))
    JobDirectory(services.stores, made.directory).create_part(0, ROWS)
    services.jobs.publish_part("j", 0, len(ROWS), 2)
    commit(services, made, 1, LINES[2:])
    commit(services, made, 0, LINES[:2])
    return made


def commit(services: Services, spec: JobSpec, chunk: int, lines: list[bytes]) -> None:
    """Write and count a chunk, as a worker does."""
    worker = a_worker(services)
    _, lease = worker.claim(spec.queue, spec.job_id, chunk, MODEL)
    body = JobDirectory(services.stores, spec.directory).create_chunk(
        spec.plan, chunk, encode_lines(lines)
    )
    worker.finish(lease, tally(body, ROWS[2 * chunk : 2 * chunk + 2]), NO_TIME)


@pytest.fixture(params=["running", "ended"])
def either(request: pytest.FixtureRequest, services: Services, spec: JobSpec) -> JobSpec:
    """The same job, while more may yet be listed and when it has ended."""
    if request.param == "ended":
        assert services.jobs.listing_done(spec.job_id)
        assert services.finalizer.finalize(spec.job_id)
    assert services.jobs.record(spec.job_id).state.terminal is (request.param == "ended")
    return spec


@pytest.fixture(params=["id", "url", "path"])
def place(request: pytest.FixtureRequest, either: JobSpec) -> str:
    """The job as a user may name it."""
    directory = either.directory
    return {"id": either.job_id, "url": directory.uri, "path": directory.root}[request.param]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_json_lines_are_what_was_committed(run: Invoke, redis_url: str, spec: JobSpec) -> None:
    said = run("results", "j", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    assert said.out.encode() == encode_lines(LINES)


def test_a_url_needs_no_redis(run: Invoke, spec: JobSpec) -> None:
    for place in (spec.directory.uri, spec.directory.root):
        said = run("results", place, redis_url="redis://127.0.0.1:1/0")
        assert said.out.encode() == encode_lines(LINES)


def test_csv_is_the_best_class_or_the_error(run: Invoke, redis_url: str, spec: JobSpec) -> None:
    said = run("results", "j", "--format", "csv", redis_url=redis_url)
    assert said.out.splitlines()[0] == ",".join(CSV_COLUMNS)
    one, other, none = rows(said.out)
    assert (one["key"], one["etag"]) == ("a.jpg", '"1"')
    assert (one["label"], one["index"], one["score"]) == ("cat", "3", "0.75")
    assert not one["error_code"]
    assert (other["error_stage"], other["error_code"]) == ("decode", "bad_image")
    assert (other["error_message"], other["label"], other["etag"]) == ("no image", "", "")
    assert (none["key"], none["label"], none["error_code"]) == ("c.jpg", "", "")


def test_results_go_to_a_file(run: Invoke, redis_url: str, spec: JobSpec, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    said = run("results", "j", "-o", str(file), redis_url=redis_url)
    assert (said.code, said.out) == (0, "")
    assert file.read_bytes() == encode_lines(LINES)


def test_a_file_that_cannot_be_written_is_an_error(
    run: Invoke, redis_url: str, spec: JobSpec, tmp_path: Path
) -> None:
    for place in (tmp_path / "no" / "folder", tmp_path):
        said = run("results", "j", "--file", str(place), redis_url=redis_url)
        assert said.code == ExitCode.USAGE
        assert said.err.startswith(f"millrace: cannot write {place}: ")


def test_a_file_that_may_not_be_written_is_denied(
    run: Invoke, redis_url: str, spec: JobSpec, tmp_path: Path
) -> None:
    file = tmp_path / "results.jsonl"
    file.touch(0o400)
    if os.access(file, os.W_OK):
        pytest.skip("root may write everywhere")
    said = run("results", "j", "--file", str(file), redis_url=redis_url)
    assert said.code == ExitCode.ACCESS_DENIED
    assert said.err == f"millrace: cannot write {file}: Permission denied\n"


def test_another_format_is_a_usage_error(run: Invoke, redis_url: str, spec: JobSpec) -> None:
    said = run("results", "j", "--format", "xml", redis_url=redis_url)
    assert said.code == ExitCode.USAGE
    assert said.err == "millrace: --format xml: expected jsonl or csv\n"


@pytest.mark.parametrize("command", ["results", "errors"])
def test_a_job_that_is_not_there_is_not_found(run: Invoke, redis_url: str, command: str) -> None:
    assert run(command, "nobody", redis_url=redis_url).code == ExitCode.NOT_FOUND
    assert run(command, "/no/where", redis_url=redis_url).code == ExitCode.NOT_FOUND


def test_errors_are_counted_and_then_shown(run: Invoke, redis_url: str, place: str) -> None:
    said = run("errors", place, redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    head, count, *lines = said.out.splitlines()
    assert head.split() == ["images", "stage/code"]
    assert count.split() == ["1", "decode/bad_image"]
    assert [json.loads(line) for line in lines] == [json.loads(LINES[1])]


def test_errors_as_json(run: Invoke, redis_url: str, place: str) -> None:
    said = run("errors", place, "--json", redis_url=redis_url)
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == {
        "by_code": {"decode/bad_image": 1},
        "errors": [json.loads(LINES[1])],
    }


def test_errors_of_a_url_need_no_redis(run: Invoke, either: JobSpec) -> None:
    said = run("errors", either.directory.uri, "--json", redis_url="redis://127.0.0.1:1/0")
    assert json.loads(said.out)["by_code"] == {"decode/bad_image": 1}


def test_several_errors_are_one_json(
    run: Invoke, redis_url: str, services: Services, tmp_path: Path
) -> None:
    spec = created(services, a_spec("many", output=str(tmp_path), chunk_size=2))
    services.jobs.publish_part("many", 0, len(ROWS), 2)
    failure = ItemError(Stage.FETCH, "not_found", "gone")
    lines = [error_line(row, failure, 1) for row in ROWS]
    commit(services, spec, 0, lines[:2])
    commit(services, spec, 1, lines[2:])
    for place in ("many", spec.directory.uri):
        shown = json.loads(run("errors", place, "--json", redis_url=redis_url).out)
        assert shown["by_code"] == {"fetch/not_found": 3}
        assert {error["key"] for error in shown["errors"]} == {"a.jpg", "b.jpg", "c.jpg"}
        assert len(shown["errors"]) == 3


def test_no_errors_say_so(run: Invoke, redis_url: str, services: Services, tmp_path: Path) -> None:
    spec = created(services, a_spec("j", output=str(tmp_path)))
    for place in ("j", spec.directory.uri):
        assert run("errors", place, redis_url=redis_url).out == "no errors\n"
        said = run("errors", place, "--json", redis_url=redis_url)
        assert json.loads(said.out) == {"by_code": {}, "errors": []}


@pytest.mark.parametrize(
    "key",
    [
        "a,b.jpg",
        'quo"te.jpg',
        "new\nline.jpg",
        "carriage\rreturn.jpg",
        "naïve.jpg",
        " space ",
        "=1+1",
        "\u2028",
    ],
)
def test_any_key_survives_csv(key: str) -> None:
    text = b"".join(csv_blocks([{"key": key, "etag": None, "predictions": [CAT]}])).decode()
    assert [row["key"] for row in rows(text)] == [key]


def test_csv_is_written_in_pieces() -> None:
    outcomes: list[dict[str, Any]] = [
        {"key": f"{number:06}.jpg", "etag": None, "predictions": [CAT]} for number in range(10_000)
    ]
    pieces = list(csv_blocks(outcomes))
    assert 3 < len(pieces) < 10
    assert [row["key"] for row in rows(b"".join(pieces).decode())] == [o["key"] for o in outcomes]


@pytest.mark.parametrize("prediction", [{"vector": [1]}, [1, 2], 1.0, "cat", None])
def test_predictions_without_labels_leave_their_columns_empty(prediction: object) -> None:
    text = b"".join(csv_blocks([{"key": "a", "etag": None, "predictions": [prediction]}])).decode()
    assert (rows(text)[0]["key"], rows(text)[0]["label"]) == ("a", "")
