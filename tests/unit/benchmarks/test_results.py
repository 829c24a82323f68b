"""The results in the repository are what the benchmarks wrote, and the report says what they do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.report import REPORT, markdown, write
from benchmarks.tables import STORED, Results, load


@pytest.fixture(scope="module")
def results() -> Results:
    return Results.model_validate_json(STORED.read_bytes())


def test_they_are_read_and_written_again_byte_for_byte(results: Results, tmp_path: Path) -> None:
    write(results, tmp_path)
    for checked_in in (STORED, REPORT):
        written = (tmp_path / checked_in.name).read_text(encoding="utf-8")
        assert written == checked_in.read_text(encoding="utf-8")


def test_the_machine_they_are_from_goes_on_with_them(results: Results) -> None:
    assert load(results.machine, results.versions, STORED) == results
    assert results.tables, "there is something to report"


def test_every_row_has_samples_or_says_why_not(results: Results) -> None:
    tables = [*results.tables, *([results.scale] if results.scale else [])]
    for table in tables:
        assert {row.name: bool(row.samples) != bool(row.absent) for row in table.rows} == {
            row.name: True for row in table.rows
        }
        bases = {row.base for row in table.rows if row.base}
        assert bases <= {row.name for row in table.rows}


def test_rendering_them_twice_gives_the_same(results: Results) -> None:
    copy = Results.model_validate_json(results.model_dump_json())
    assert markdown(copy) == markdown(results)


def test_no_place_of_the_machine_is_named() -> None:
    """Whichever machine wrote them: all paths begin in the checkout."""
    absolute = re.compile(r"(?:^|[\s\"'`=(])(?:file://)?/\w+/\S*")
    assert absolute.search("python /srv/x/main.py")
    assert not absolute.search("a/b and 1 / 2")
    assert absolute.findall(STORED.read_text() + REPORT.read_text()) == []
