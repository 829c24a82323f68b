"""What every engine's predictor does by itself: batches of a fixed size, row for row, tried out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from millrace.core.bundle import Bundle
from millrace.core.card import Card
from millrace.core.errors import ModelError
from millrace.worker.predictor import ALIKE, OutOfMemoryError, Pixels, Predictor, Scores
from millrace.worker.tuning import EngineName, Tuning
from tests.support import capture_logs, random_pixels

HEIGHT, WIDTH = 2, 3
CARD = Card.make(name="made", version="1", signature="none", height=HEIGHT, width=WIDTH)
BUNDLE = Bundle(Path("nowhere"), CARD, ())


def sums(pixels: Pixels) -> Scores:
    """One score an image, which no other image changes."""
    return np.asarray(pixels.astype(np.float32).sum(axis=(1, 2, 3))[:, np.newaxis])


class Arithmetic(Predictor):
    """A model that is a function; `batches` are the sizes it was run with."""

    engine = EngineName.AUTO
    title = "arithmetic"
    output_shape = (1,)

    def __init__(self, answer: Callable[[Pixels], Scores] = sums, batch: int | None = None) -> None:
        super().__init__(BUNDLE, Tuning())
        self._answer = answer
        self.batch_limit = batch
        self.batches: list[int] = []

    def _run(self, pixels: Pixels) -> Scores:
        self.batches.append(len(pixels))
        return self._answer(pixels)

    def try_out(self) -> list[str]:
        """Try it as an engine does that has loaded it; returns why its batch was fixed."""
        with capture_logs() as logs:
            self._try_out()
        return [entry["why"] for entry in logs if entry["log_level"] == "warning"]


def images(count: int) -> Pixels:
    return random_pixels(count, (count, HEIGHT, WIDTH, 3))


def test_its_images_are_of_the_cards_size() -> None:
    assert Arithmetic().input_shape == (HEIGHT, WIDTH, 3)
    black = Arithmetic().zeros(4)
    assert (black.shape, black.dtype.name) == ((4, HEIGHT, WIDTH, 3), "uint8")
    assert not black.any()


def test_a_free_batch_runs_whole() -> None:
    predictor, pixels = Arithmetic(), images(7)
    assert np.array_equal(predictor.predict(pixels), sums(pixels))
    assert predictor.batches == [7]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 10])
def test_a_fixed_batch_runs_in_steps_of_its_size_and_every_row_is_its_images(count: int) -> None:
    predictor, pixels = Arithmetic(batch=4), images(count)
    assert np.array_equal(predictor.predict(pixels), sums(pixels))
    assert predictor.batches == [4] * -(-count // 4)


def test_what_fills_a_fixed_batch_up_is_black() -> None:
    seen: list[Pixels] = []

    def watched(pixels: Pixels) -> Scores:
        seen.append(pixels)
        return sums(pixels)

    pixels = images(5)
    Arithmetic(watched, batch=4).predict(pixels)
    assert np.array_equal(seen[1][:1], pixels[4:])
    assert not seen[1][1:].any()


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (lambda pixels: sums(pixels)[:-1], r"\(1, 1\)"),
        (lambda pixels: np.concatenate([sums(pixels)] * 2), r"\(4, 1\)"),
        (lambda pixels: sums(pixels).sum(), r"\(\)"),
    ],
    ids=["too few rows", "too many rows", "no rows"],
)
def test_an_output_that_is_not_row_for_row_is_refused(
    answer: Callable[[Pixels], Scores], shape: str, batch: int | None
) -> None:
    with pytest.raises(ModelError, match=rf"^made: 2 images in, output of {shape}$"):
        Arithmetic(answer, batch).predict(images(2))


@pytest.mark.parametrize("batch", [None, 1])
def test_a_batch_the_device_has_no_room_for_is_the_callers_to_halve(batch: int | None) -> None:
    def full(pixels: Pixels) -> Scores:
        raise OutOfMemoryError

    with pytest.raises(OutOfMemoryError):
        Arithmetic(full, batch).predict(images(2))


def test_a_model_of_which_two_images_have_no_room_is_taken_and_keeps_its_free_batch() -> None:
    def tight(pixels: Pixels) -> Scores:
        if len(pixels) > 1:
            raise OutOfMemoryError
        return sums(pixels)

    predictor = Arithmetic(tight)
    assert predictor.try_out() == []
    assert predictor.batch_limit is None


def test_a_model_that_answers_each_image_alike_alone_and_together_keeps_its_free_batch() -> None:
    predictor = Arithmetic()
    assert predictor.try_out() == []
    assert predictor.batch_limit is None
    assert predictor.batches == [1, 1, 2]


def test_a_model_that_takes_no_two_images_gets_them_one_by_one() -> None:
    def one(pixels: Pixels) -> Scores:
        if len(pixels) != 1:
            raise ModelError("its graph is of one image")
        return sums(pixels)

    predictor, pixels = Arithmetic(one), images(3)
    assert predictor.try_out() == ["its graph is of one image"]
    assert predictor.batch_limit == 1
    assert np.array_equal(predictor.predict(pixels), sums(pixels))


def test_a_model_that_answers_for_one_image_only_gets_them_one_by_one() -> None:
    predictor = Arithmetic(lambda pixels: sums(pixels[:1]))
    (why,) = predictor.try_out()
    assert why == "made: 2 images in, output of (1, 1)"
    assert predictor.batch_limit == 1


def test_a_model_that_mixes_the_images_of_a_batch_up_gets_them_one_by_one() -> None:
    predictor = Arithmetic(lambda pixels: sums(pixels)[::-1])
    assert predictor.try_out() == ["two images together are answered otherwise than alone"]
    assert predictor.batch_limit == 1


@pytest.mark.parametrize(("share", "alike"), [(ALIKE / 2, True), (4 * ALIKE, False)])
def test_rounding_is_no_mixing_up(share: float, alike: bool) -> None:
    predictor = Arithmetic(lambda pixels: sums(pixels) * np.float32(1 + share * (len(pixels) - 1)))
    assert (predictor.try_out() == []) is alike


def test_answers_that_are_no_numbers_are_not_taken_for_mixing_up() -> None:
    predictor = Arithmetic(lambda pixels: np.full((len(pixels), 1), np.nan, np.float32))
    assert predictor.try_out() == []
    assert predictor.batch_limit is None


def test_a_baked_in_batch_is_tried_in_its_size_alone() -> None:
    predictor = Arithmetic(batch=4)
    assert predictor.try_out() == []
    assert predictor.batch_limit == 4
    assert set(predictor.batches) == {4}


def test_a_model_that_does_not_even_take_one_image_is_refused() -> None:
    def never(pixels: Pixels) -> Scores:
        raise ModelError("an operation is missing")

    with pytest.raises(ModelError, match="an operation is missing"):
        Arithmetic(never).try_out()
