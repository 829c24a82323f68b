"""Outcome lines held to their schema."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from millrace.core.errors import CorruptRecord, ItemError, Stage
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import decode_outcome, error_line, prediction_line
from millrace.core.outcome_schema import decode_strictly

ROW = ManifestRow("a.jpg", '"1"', 9)
CAT = {"label": "cat", "index": 3, "score": 0.75}
ERROR = orjson.loads(error_line(ROW, ItemError(Stage.FETCH, "not_found", "gone"), 1))["error"]


def predicted(*predictions: object, **fields: object) -> bytes:
    return orjson.dumps({"key": "a.jpg", "etag": '"1"', "predictions": predictions} | fields)


def failed(**fields: object) -> bytes:
    return orjson.dumps({"key": "a.jpg", "etag": None, "error": ERROR | fields})


def failed_without(name: str) -> bytes:
    error = {field: value for field, value in ERROR.items() if field != name}
    return orjson.dumps({"key": "a.jpg", "etag": None, "error": error})


@pytest.mark.parametrize("stage", Stage)
def test_an_error_line_is_as_documented(stage: Stage) -> None:
    line = error_line(ROW, ItemError(stage, "internal", "", retryable=True), 3)
    assert decode_strictly(line) == decode_outcome(line)


@pytest.mark.parametrize(
    "predictions",
    [
        [],
        [CAT, CAT | {"score": 0, "label": ""}],
        [{"vector": [0.5, 1, -2.0]}],
        [{"box": {"left": 1, "top": 2.5}, "sure": True, "text": "a sign"}],
    ],
    ids=["none", "classes", "another head", "yet another"],
)
def test_a_prediction_line_is_as_documented(predictions: list[dict[str, Any]]) -> None:
    line = prediction_line(ROW, predictions)
    assert decode_strictly(line) == decode_outcome(line)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (predicted(1, "x", None), "predictions.0: "),
        (predicted(CAT, {"label": 7}), "predictions.1"),
        (predicted({"label": "cat", "index": 3}), "predictions.0"),
        (predicted(CAT | {"score": float("nan")}), "predictions.0"),
        (predicted(CAT | {"index": -1}), "predictions.0"),
        (predicted(CAT | {"index": 1.5}), "predictions.0"),
        (predicted(CAT | {"junk": 1}), "predictions.0"),
        (predicted({}), "predictions.0"),
        (predicted({"vector": [0.5, float("inf")]}), "predictions.0"),
        (predicted(CAT, junk=1), "junk: Extra inputs"),
        (failed(stage="nonsense"), "error.stage: "),
        (failed(code=""), "error.code: "),
        (failed(message=None), "error.message: "),
        (failed(retryable="yes"), "error.retryable: "),
        (failed(retryable=1), "error.retryable: "),
        (failed(attempts=True), "error.attempts: "),
        (failed(attempts=-1), "error.attempts: "),
        (failed(junk=1), "error.junk: "),
        *(
            (failed_without(name), f"error.{name}: ")
            for name in ("message", "retryable", "attempts")
        ),
        (b'{"key":"a.jpg"}', "not an outcome line"),
        (predicted(CAT, error=ERROR), "not an outcome line"),
    ],
)
def test_what_is_not_is_corrupt(line: bytes, says: str) -> None:
    with pytest.raises(CorruptRecord) as caught:
        decode_strictly(line)
    assert says in caught.value.message
    assert "\n" not in caught.value.message
