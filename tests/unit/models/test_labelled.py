"""Which pictures are held out, and what cannot be learnt from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.errors import BadData, UsageError
from millrace.models.labelled import Dataset, Labelled, checked, split


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=200),
    st.floats(0.01, 0.99),
)
def test_every_picture_is_on_one_side_and_classes_are_divided_evenly(
    labels: list[int], holdout: float
) -> None:
    try:
        seen, unseen = split(labels, holdout)
    except UsageError:
        return
    assert sorted([*seen, *unseen]) == list(range(len(labels)))
    assert abs(len(unseen) - holdout * len(labels)) <= 1
    for label in set(labels):
        held = sum(labels[number] == label for number in unseen)
        assert abs(held - holdout * labels.count(label)) <= 1 + 1e-6


def test_a_third_is_a_third() -> None:
    assert len(split(np.arange(1797) % 10, 1 / 3)[1]) == 599


def test_the_split_is_always_the_same_and_not_in_the_order_of_the_files() -> None:
    labels = np.zeros(100, np.int64)
    first, again = split(labels, 0.5), split(labels, 0.5)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert 10 < (first[1] < 50).sum() < 40


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(holdout: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        split([0, 1, 0, 1], holdout)


def test_a_split_that_leaves_a_side_empty_is_refused() -> None:
    with pytest.raises(UsageError, match="2 pictures cannot be split"):
        split([0, 1], 0.1)


def made(seen: list[int], unseen: list[int], classes: str = "ab") -> Dataset:
    parts = [
        Labelled(np.full((len(labels), 2, 2, 1), 7, np.uint8), np.asarray(labels, np.int64))
        for labels in (seen, unseen)
    ]
    return Dataset(parts[0], parts[1], tuple(classes))


def test_good_data_are_left_as_they_are() -> None:
    data = made([0, 1], [1])
    assert checked(data, "there") is data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (made([0, 0], [0], "a"), "one class alone, 'a'"),
        (made([], [], ""), "no classes"),
        (made([0, 0], [1]), "no picture of class 'b' to learn from"),
        (made([0, 1], []), "no pictures to judge"),
    ],
)
def test_data_that_teach_nothing_are_refused(data: Dataset, words: str) -> None:
    with pytest.raises(BadData, match=f"there holds {words}"):
        checked(data, "there")


def test_equal_digests_are_equal_data() -> None:
    data = made([0, 1], [1])
    assert data.digest() == made([0, 1], [1]).digest()
    others = [
        made([0, 0], [1]),
        made([0, 1], [0]),
        made([0, 1], [1], "ax"),
        replace(data, unseen=Labelled(data.unseen.images + 1, data.unseen.labels)),
        replace(data, seen=Labelled(data.seen.images.reshape(2, 1, 4, 1), data.seen.labels)),
    ]
    assert len({data.digest(), *(other.digest() for other in others)}) == 6
