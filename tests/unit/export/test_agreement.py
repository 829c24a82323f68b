"""Two runs of a model compared: how far apart, and whether they choose alike."""

from __future__ import annotations

import numpy as np
import pytest

from millrace.export.agreement import Agreement, compare

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)


def changed(row: int, column: int, by: float) -> np.ndarray:
    scores = SCORES.copy()
    scores[row, column] += by
    return scores


def test_a_model_agrees_with_itself() -> None:
    assert compare(SCORES, SCORES) == Agreement(2, 0.0, 1.0)
    assert compare(SCORES, SCORES).ok


@pytest.mark.parametrize(("by", "ok"), [(1e-6, True), (9e-5, True), (2e-4, False), (-0.2, False)])
def test_rounding_is_let_pass_and_no_more(by: float, ok: bool) -> None:
    agreement = compare(changed(0, 1, by), SCORES)
    assert agreement.max_abs_difference == pytest.approx(abs(by), rel=0.01)
    assert agreement.top_1_agreement == 1.0
    assert agreement.ok is ok


def test_another_best_answer_is_another_model_however_near_it_is() -> None:
    near = np.array([[0.50004, 0.49996]], np.float32)
    agreement = compare(near[:, ::-1], near)
    assert agreement.max_abs_difference < 1e-4
    assert agreement.top_1_agreement == 0.0
    assert not agreement.ok


def test_a_tie_is_rounding_s_to_choose() -> None:
    tie = np.array([[0.500001, 0.499999]], np.float32)
    assert compare(tie[:, ::-1], tie).ok


def test_a_share_of_the_images_chooses_alike() -> None:
    other = SCORES.copy()
    other[1] = other[1, ::-1]
    assert compare(other, SCORES).top_1_agreement == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_in_one_alone_lies_infinitely_apart(value: float) -> None:
    broken = changed(0, 0, value)
    assert compare(broken, SCORES).max_abs_difference == np.inf
    assert compare(SCORES, broken).max_abs_difference == np.inf
    assert compare(broken, broken).max_abs_difference == 0.0


def test_large_scores_are_measured_by_the_largest() -> None:
    large = SCORES * 1000
    agreement = compare(large + np.float32(0.01), large)
    assert agreement.largest == pytest.approx(700)
    assert agreement.ok
    assert not compare(large + np.float32(0.2), large).ok


@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (2, 3, 1)])
def test_another_shape_agrees_in_nothing(shape: tuple[int, ...]) -> None:
    agreement = compare(np.zeros(shape, np.float32), SCORES)
    assert (agreement.max_abs_difference, agreement.top_1_agreement) == (np.inf, 0.0)
    assert not agreement.ok


def test_no_images_prove_nothing() -> None:
    nothing = np.zeros((0, 3), np.float32)
    assert not compare(nothing, nothing).ok


def test_scores_of_more_dimensions_are_compared_whole() -> None:
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 100
    other = boxes.copy()
    other[1, 2, 3] += 0.5
    assert compare(boxes, boxes).ok
    assert compare(other, boxes).max_abs_difference == pytest.approx(0.5)


def test_it_is_told_in_words() -> None:
    words = str(compare(changed(0, 1, 0.1), SCORES))
    assert words == "2 images, the largest difference is 0.1, 100.0% have the same best answer"
