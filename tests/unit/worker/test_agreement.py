"""Low precision is compared with float32 on the first images, whatever comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from millrace.worker.agreement import LEAST, SAMPLE, Agreement, Compared, Crew
from millrace.worker.predictor import OutOfMemoryError, Pixels, Predictor, Scores
from millrace.worker.tuning import EngineName, Precision, Tuning
from tests.support import capture_logs, random_pixels
from tests.unit.worker.saved_models import SIDE, Workshop


class Told(Predictor):
    """Answers what it is told to."""

    engine = EngineName.AUTO

    def __init__(self, bundle: Any, best: int) -> None:
        super().__init__(bundle, Tuning(precision=Precision.BFLOAT16))
        self.best = best
        self.batches = 0
        self.images = 0

    def _run(self, pixels: Pixels) -> Scores:
        self.batches += 1
        self.images += len(pixels)
        scores = np.zeros((len(pixels), 4), np.float32)
        scores[:, self.best] = 1
        return scores


@pytest.mark.parametrize(("best", "share", "level"), [(2, 1.0, "info"), (3, 0.0, "warning")])
def test_low_precision_is_compared_with_float32_at_first(
    best: int, share: float, level: str, made: Workshop
) -> None:
    bundle = made("scaled_by_tf").bundle()
    low, exact = Told(bundle, 2), Told(bundle, best)
    agreement = Agreement(low, exact, SAMPLE)
    batch = random_pixels(1, (SAMPLE // 2, SIDE, SIDE, 3))
    with capture_logs() as logs:
        for _ in range(5):
            assert agreement.predict(batch).argmax(axis=1).tolist() == [2] * len(batch)
    (entry,) = logs
    assert (entry["log_level"], entry["top_1_agreement"]) == (level, share)
    assert (low.batches, exact.batches, entry["images"]) == (5, 2, SAMPLE)


def test_what_few_images_told_is_said_at_the_end(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    agreement = Agreement(Told(bundle, 2), Told(bundle, 2), SAMPLE)
    agreement.predict(random_pixels(1, (3, SIDE, SIDE, 3)))
    with capture_logs() as logs:
        agreement.close()
        agreement.close()
    (entry,) = logs
    assert (entry["images"], entry["top_1_agreement"]) == (3, 1.0)


class Failing(Told):
    """Has no room."""

    def _run(self, pixels: Pixels) -> Scores:
        raise OutOfMemoryError("no room")


def test_a_comparison_that_fails_fails_no_image(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    low = Told(bundle, 2)
    agreement = Agreement(low, Failing(bundle, 2), SAMPLE)
    batch = random_pixels(1, (4, SIDE, SIDE, 3))
    with capture_logs() as logs:
        for _ in range(2):
            assert agreement.predict(batch).argmax(axis=1).tolist() == [2] * 4
    assert [entry["event"] for entry in logs] == ["not compared with float32"]
    assert low.batches == 2
    assert agreement.compared == Compared()


def test_no_more_than_the_sample_is_predicted_twice(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    low, exact = Told(bundle, 2), Told(bundle, 2)
    agreement = Agreement(low, exact, 6)
    for _ in range(3):
        agreement.predict(random_pixels(1, (4, SIDE, SIDE, 3)))
    assert (low.images, exact.images) == (12, 6)
    assert agreement.compared == Compared(sample=6, images=6, same=6)


def test_whoever_asks_is_told_what_is_known_by_now(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    known: list[Compared] = []
    agreement = Agreement(
        Told(bundle, 2), Told(bundle, 3), 6, lambda: known.append(agreement.compared)
    )
    assert agreement.compared.share is None
    for _ in range(3):
        agreement.predict(random_pixels(1, (4, SIDE, SIDE, 3)))
    agreement.close()
    assert known == [Compared(6, 4, 0), Compared(6, 6, 0)]
    assert known[-1].share == 0.0


@pytest.mark.parametrize(("batch_size", "images"), [(4, 4), (64, 6)])
def test_float32_is_warmed_with_what_is_compared_at_once(
    batch_size: int, images: int, made: Workshop
) -> None:
    bundle = made("scaled_by_tf").bundle()
    low, exact = Told(bundle, 2), Told(bundle, 2)
    agreement = Agreement(low, exact, 6)
    agreement.warm_up(batch_size)
    assert (low.images, exact.images) == (0, images)
    assert agreement.compared == Compared(sample=6)


def test_a_warm_up_that_fails_ends_the_comparison_alone(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    agreement = Agreement(Told(bundle, 2), Failing(bundle, 2), 6)
    with capture_logs() as logs:
        agreement.warm_up(4)
        agreement.warm_up(4)
        assert len(agreement.predict(random_pixels(1, (4, SIDE, SIDE, 3)))) == 4
    assert [entry["event"] for entry in logs] == ["not compared with float32"]
    assert agreement.compared == Compared()


@pytest.mark.parametrize(("crew", "sample"), [(1, SAMPLE), (2, SAMPLE // 2), (3, 22), (64, LEAST)])
def test_the_processes_of_a_worker_share_the_sample(
    crew: int, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_CREW", str(crew))
    assert Crew.load().sample == sample
    assert crew * sample >= SAMPLE


@pytest.mark.usefixtures("no_environment")
def test_a_process_without_a_supervisor_compares_the_whole_sample() -> None:
    assert Crew.load().sample == SAMPLE
