"""Low precision is compared with float32 on the first images, whatever comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from millrace.worker.agreement import SAMPLE, Agreement
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

    def _run(self, pixels: Pixels) -> Scores:
        self.batches += 1
        scores = np.zeros((len(pixels), 4), np.float32)
        scores[:, self.best] = 1
        return scores


@pytest.mark.parametrize(("best", "share", "level"), [(2, 1.0, "info"), (3, 0.0, "warning")])
def test_low_precision_is_compared_with_float32_at_first(
    best: int, share: float, level: str, made: Workshop
) -> None:
    bundle = made("scaled_by_tf").bundle()
    low, exact = Told(bundle, 2), Told(bundle, best)
    agreement = Agreement(low, exact)
    batch = random_pixels(1, (SAMPLE // 2, SIDE, SIDE, 3))
    with capture_logs() as logs:
        for _ in range(5):
            assert agreement.predict(batch).argmax(axis=1).tolist() == [2] * len(batch)
    (entry,) = logs
    assert (entry["log_level"], entry["top_1_agreement"]) == (level, share)
    assert (low.batches, exact.batches, entry["images"]) == (5, 2, SAMPLE)


def test_what_few_images_told_is_said_at_the_end(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    agreement = Agreement(Told(bundle, 2), Told(bundle, 2))
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
    agreement = Agreement(low, Failing(bundle, 2))
    batch = random_pixels(1, (4, SIDE, SIDE, 3))
    with capture_logs() as logs:
        for _ in range(2):
            assert agreement.predict(batch).argmax(axis=1).tolist() == [2] * 4
    assert [entry["event"] for entry in logs] == ["not compared with float32"]
    assert low.batches == 2
