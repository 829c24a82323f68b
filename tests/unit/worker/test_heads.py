"""Output heads: scores become the predictions of an outcome line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.bundle import Bundle
from millrace.core.card import Card
from millrace.core.errors import ItemError, ModelError, Stage
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import prediction_line
from millrace.worker.heads import Head, make_head
from millrace.worker.heads.classification import ClassificationHead


def head(
    labels: tuple[str, ...] = (), shape: tuple[int | None, ...] = (None,), **facts: Any
) -> Head:
    card = Card.make(
        name="made", signature="s", height=8, width=8, digest="sha256:" + 64 * "0", **facts
    )
    return make_head(Bundle(Path(), card, labels), shape)


def scores(*values: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_a_classifier_gets_the_classification_head() -> None:
    assert isinstance(head(), ClassificationHead)


def test_the_best_class_comes_first() -> None:
    best = head(("a", "b", "c"), (3,))(scores(0.2, 0.5, 0.3), None)
    assert [(p["label"], p["index"]) for p in best] == [("b", 1), ("c", 2), ("a", 0)]
    assert [float(p["score"]) for p in best] == pytest.approx([0.5, 0.3, 0.2])


def test_equal_scores_are_ordered_by_index() -> None:
    best = head(top_k=4)(scores(0.1, 0.4, 0.1, 0.4), None)
    assert [p["index"] for p in best] == [1, 3, 0, 2]


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60),
    top_k=st.one_of(st.none(), st.integers(1, 80)),
)
def test_any_scores_are_ranked(values: list[float], top_k: int | None) -> None:
    best = head(top_k=3)(scores(*values), top_k)
    ranked = sorted(range(len(values)), key=lambda index: (-values[index], index))
    assert [p["index"] for p in best] == ranked[: top_k or 3]
    assert [float(p["score"]) for p in best] == [values[p["index"]] for p in best]


def test_the_job_may_ask_for_more_or_fewer_than_the_card() -> None:
    classify = head(top_k=2, shape=(4,))
    row = scores(0.1, 0.2, 0.3, 0.4)
    assert len(classify(row, None)) == 2
    assert len(classify(row, 1)) == 1
    assert len(classify(row, 4)) == 4
    assert len(classify(row, 100)) == 4


def test_labels_start_at_their_offset() -> None:
    best = head(("cat", "dog"), (3,), label_offset=1)(scores(0.1, 0.2, 0.7), None)
    assert [(p["label"], p["index"]) for p in best] == [("dog", 2), ("cat", 1), ("", 0)]


def test_without_labels_the_index_is_the_label() -> None:
    best = head(shape=(2,))(scores(0.1, 0.9), None)
    assert [p["label"] for p in best] == ["1", "0"]


@pytest.mark.parametrize(
    ("labels", "offset", "width"), [(3, 0, 4), (4, 1, 4), (5, 0, 4), (2, 1, 4), (2, 0, 1)]
)
def test_labels_that_do_not_fill_the_output_are_refused(
    labels: int, offset: int, width: int
) -> None:
    with pytest.raises(ModelError) as caught:
        head(tuple("abcde"[:labels]), (width,), label_offset=offset)
    assert f"{labels} labels" in caught.value.message
    assert f"{width} classes" in caught.value.message


def test_an_output_of_unknown_width_takes_any_labels() -> None:
    best = head(("a", "b"), (None,))(scores(0.1, 0.2, 0.7), None)
    assert [p["label"] for p in best] == ["2", "b", "a"]


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3), (3, 1)])
def test_sides_of_one_do_not_matter(shape: tuple[int, ...]) -> None:
    best = head(("a", "b", "c"), shape)(scores(0.1, 0.7, 0.2).reshape(shape), 1)
    assert [p["label"] for p in best] == ["b"]


@pytest.mark.parametrize("shape", [(7, 7, 5), (2, 3), (None, 5)])
def test_an_output_that_is_no_vector_is_refused(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ModelError, match="no class vector"):
        head(shape=shape)


@pytest.mark.parametrize("shape", [(1,), (1, 1), ()])
def test_a_single_score_is_one_class(shape: tuple[int, ...]) -> None:
    best = head(("yes",), shape)(scores(0.3).reshape(shape), None)
    assert [(p["label"], p["index"]) for p in best] == [("yes", 0)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error_of_the_image(value: float) -> None:
    with pytest.raises(ItemError) as caught:
        head()(scores(0.5, value, 0.5), None)
    assert (caught.value.stage, caught.value.code) == (Stage.INFER, "not_finite")
    assert not caught.value.retryable


def test_scores_are_written_in_their_shortest_exact_form() -> None:
    line = prediction_line(ManifestRow("a.jpg", '"1"', 9), head(("a", "b"))(scores(0.1, 0.7), None))
    assert line == (
        b'{"key":"a.jpg","etag":"\\"1\\"","predictions":'
        b'[{"label":"b","index":1,"score":0.7},{"label":"a","index":0,"score":0.1}]}'
    )
    assert json.loads(line)["predictions"][0]["index"] == 1
