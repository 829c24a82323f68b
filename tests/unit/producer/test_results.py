"""Reading outcomes back from storage alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.core.errors import CorruptRecord, ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line
from millrace.core.settings import StorageSettings
from millrace.core.storage import Stores
from millrace.producer.results import error_outcomes, outcome_lines, outcomes
from tests.unit.core.support import a_spec

OUTPUTS: dict[str, Callable[[Path], str]] = {"local": str, "memory": lambda _: "memory://out/deep"}
GOOD = prediction_line(ManifestRow("good"), [{"label": "cat"}])
BAD = error_line(ManifestRow("bad"), ItemError(Stage.FETCH, "gone", "it is gone"), 1)


@pytest.fixture
def spec() -> JobSpec:
    return a_spec("j", chunk_size=4096)


@pytest.fixture(params=OUTPUTS)
def directory(request: pytest.FixtureRequest, tmp_path: Path, spec: JobSpec) -> JobDirectory:
    place = a_spec("j", output=OUTPUTS[request.param](tmp_path)).directory
    made = JobDirectory(Stores(StorageSettings.load()), place)
    made.create_spec(spec)
    return made


def test_lines_come_in_manifest_order(directory: JobDirectory, spec: JobSpec) -> None:
    numbers = [10, 9, 100, 0, 2, 11, 1]
    for number in numbers:
        line = prediction_line(ManifestRow(str(number)), [])
        directory.create_chunk(spec.plan, number, encode_lines([line]))
    found = [outcome["key"] for outcome in outcomes(directory, spec.plan)]
    assert found == [str(number) for number in sorted(numbers)]


def test_lines_are_what_was_committed(directory: JobDirectory, spec: JobSpec) -> None:
    directory.create_chunk(spec.plan, 0, encode_lines([GOOD, BAD]))
    assert list(outcome_lines(directory, spec.plan)) == [GOOD, BAD]


def test_nothing_committed_is_nothing(directory: JobDirectory, spec: JobSpec) -> None:
    assert list(outcome_lines(directory, spec.plan)) == []
    assert list(error_outcomes(directory, spec.plan)) == []


def test_errors_come_from_the_chunks_until_they_are_published(
    directory: JobDirectory, spec: JobSpec
) -> None:
    directory.create_chunk(spec.plan, 0, encode_lines([GOOD, BAD]))
    assert [outcome["key"] for outcome in error_outcomes(directory, spec.plan)] == ["bad"]
    directory.put_errors([])
    assert list(error_outcomes(directory, spec.plan)) == []


def test_errors_come_in_manifest_order(directory: JobDirectory, spec: JobSpec) -> None:
    numbers = [10, 9, 100, 0, 2, 11, 1]
    for number in numbers:
        line = error_line(ManifestRow(str(number)), ItemError(Stage.FETCH, "not_found", "gone"), 1)
        directory.create_chunk(spec.plan, number, encode_lines([line]))
    found = [outcome["key"] for outcome in error_outcomes(directory, spec.plan)]
    assert found == [str(number) for number in sorted(numbers)]


def test_only_the_chunks_known_to_hold_an_error_are_read(
    directory: JobDirectory, spec: JobSpec
) -> None:
    directory.create_chunk(spec.plan, 0, b"not an outcome\n")
    for chunk in (1, 2):
        directory.create_chunk(spec.plan, chunk, encode_lines([GOOD, BAD]))
    found = error_outcomes(directory, spec.plan, iter([1, 2]))
    assert [outcome["key"] for outcome in found] == ["bad", "bad"]
    assert list(error_outcomes(directory, spec.plan, [])) == []


def test_a_foreign_line_is_corrupt(directory: JobDirectory, spec: JobSpec) -> None:
    directory.create_chunk(spec.plan, 0, b"not an outcome\n")
    with pytest.raises(CorruptRecord):
        list(outcomes(directory, spec.plan))
