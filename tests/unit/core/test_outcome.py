"""Outcome lines and their tally."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.errors import CorruptRecord, ItemError, Stage
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import (
    SAMPLES_PER_CHUNK,
    decode_outcome,
    encode_lines,
    error_line,
    prediction_line,
    tally,
)

BAD = ItemError(Stage.DECODE, "bad_image", "cannot identify image file")


def test_a_prediction_line_is_key_etag_and_predictions() -> None:
    line = prediction_line(ManifestRow("a.jpg", '"1"', 9), [{"label": "cat", "index": 3}])
    assert orjson.loads(line) == {
        "key": "a.jpg",
        "etag": '"1"',
        "predictions": [{"label": "cat", "index": 3}],
    }


def test_a_float32_score_keeps_its_shortest_form() -> None:
    line = prediction_line(ManifestRow("a"), [{"score": np.float32(0.1)}])
    assert b'"score":0.1}' in line


def test_an_error_line_carries_stage_code_message_retryable_and_attempts() -> None:
    error = ItemError(Stage.FETCH, "not_found", "a.jpg does not exist", retryable=True)
    assert orjson.loads(error_line(ManifestRow("a.jpg"), error, 2)) == {
        "key": "a.jpg",
        "etag": None,
        "error": {
            "stage": "fetch",
            "code": "not_found",
            "message": "a.jpg does not exist",
            "retryable": True,
            "attempts": 2,
        },
    }


@given(st.lists(st.tuples(st.text(), st.booleans())))
def test_the_tally_counts_every_row_once(outcomes: list[tuple[str, bool]]) -> None:
    rows = [ManifestRow(key) for key, _ in outcomes]
    lines = [
        prediction_line(row, []) if ok else error_line(row, BAD, 1)
        for row, (_, ok) in zip(rows, outcomes, strict=True)
    ]
    found = tally(encode_lines(lines), rows)
    failures = sum(not ok for _, ok in outcomes)
    assert (found.succeeded, found.failed) == (len(rows) - failures, failures)
    assert found.rows == len(rows)
    assert found.by_code == ({"decode/bad_image": failures} if failures else {})
    assert len(found.samples) == min(failures, SAMPLES_PER_CHUNK)


def test_errors_are_counted_by_stage_and_code() -> None:
    rows = [ManifestRow(name) for name in "abc"]
    other = ItemError(Stage.FETCH, "not_found", "gone")
    lines = [error_line(row, e, 1) for row, e in zip(rows, (BAD, other, BAD), strict=True)]
    assert tally(encode_lines(lines), rows).by_code == {"decode/bad_image": 2, "fetch/not_found": 1}


def test_the_samples_are_the_first_error_lines_as_they_stand() -> None:
    rows = [ManifestRow(str(number)) for number in range(10)]
    lines = [error_line(row, BAD, 1) for row in rows]
    assert tally(encode_lines(lines), rows).samples == lines[:SAMPLES_PER_CHUNK]


def test_lines_in_another_order_are_corrupt() -> None:
    rows = [ManifestRow("a"), ManifestRow("b")]
    body = encode_lines([prediction_line(row, []) for row in reversed(rows)])
    with pytest.raises(CorruptRecord, match="outcome of 'b' where 'a' was due"):
        tally(body, rows)


@pytest.mark.parametrize(("due", "etag"), [('"1"', '"2"'), ('"1"', None), (None, '"1"')])
def test_the_outcome_of_another_version_of_the_image_is_corrupt(
    due: str | None, etag: str | None
) -> None:
    body = encode_lines([prediction_line(ManifestRow("a", etag), [])])
    with pytest.raises(CorruptRecord):
        tally(body, [ManifestRow("a", due)])


@pytest.mark.parametrize("there", [0, 1, 3])
def test_another_number_of_lines_is_corrupt(there: int) -> None:
    body = encode_lines([prediction_line(ManifestRow("a"), [])] * there)
    with pytest.raises(CorruptRecord, match=f"{there} outcome lines for 2 manifest rows"):
        tally(body, [ManifestRow("a")] * 2)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"5",
        b"[]",
        b'"predictions"',
        b"{}",
        b'{"predictions":[]}',
        b'{"key":5,"etag":null,"predictions":[]}',
        b'{"key":"a","etag":null}',
        b'{"key":"a","predictions":[]}',
        b'{"key":"a","etag":null,"predictions":5}',
        b'{"key":"a","etag":null,"predictions":[],"error":{"stage":"fetch","code":"x"}}',
        b'{"key":"a","etag":null,"error":"boom"}',
        b'{"key":"a","etag":null,"error":["stage","code"]}',
        b'{"key":"a","etag":null,"error":{"stage":"fetch"}}',
        b'{"key":"a","etag":null,"predictions":[]',
        b'{"key":"\xff","etag":null,"predictions":[]}',
    ],
)
def test_a_foreign_line_is_corrupt(line: bytes) -> None:
    with pytest.raises(CorruptRecord, match="not an outcome line"):
        decode_outcome(line)
    with pytest.raises(CorruptRecord):
        tally(encode_lines([line]), [ManifestRow("a")])


def test_a_line_is_decoded_as_it_was_written() -> None:
    written: dict[str, Any] = {"key": "a\n", "etag": None, "predictions": [{"score": 0.5}]}
    assert decode_outcome(prediction_line(ManifestRow("a\n"), written["predictions"])) == written
