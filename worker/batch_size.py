"""How many images a batch holds: what the model predicts fastest, within memory."""

from __future__ import annotations

import time

import numpy as np

from millrace.core.log import get_logger
from millrace.core.sizes import MIB
from millrace.worker.predictor import OutOfMemoryError, Predictor

log = get_logger(__name__)

LARGEST = 64
"""The chunks in hand by default, three of 128 images, keep batches of this size full also where
some images fail. Those of 128 they fill to nine tenths then, and of 256 to three quarters at best:
who wants them says so, and takes more chunks in hand."""

BATCH_BYTES = 64 * MIB
"""Of pixels, as uint8: what a batch may hold whatever is fastest."""

BUDGET_S, SLOW_BUDGET_S = 1.0, 1.5
"""Of predicting, to find the size: a worker is to start soon. Slow models get more, for theirs is
to reach a size at which batches pay, too."""

SET_UP_S = 1.5
"""Of setting things up for sizes, likewise."""

TRIES, SLOW_TRIES = 3, 2
"""Of each size; the first sets it up. Slow predictions are not tried as often: they vary less."""

SLOW_S = 0.05
"""What takes this long is slow: of predictions, or of a model's with one image."""

AS_FAST = 1.06
"""Of the sizes that are as fast as the fastest but for so much, the largest is taken: batches
cost something of their own."""


def warm_up(predictor: Predictor, batch_size: int | None) -> int:
    """Predict at the sizes that will be met, so that no image pays for set-up; returns the size
    of a full batch: the one given, or, for None, the fastest found within the budgets.

    The graph is not traced per size, so the sizes between cost nothing new. Raises ModelError.
    """
    if predictor.batch_limit is not None:
        _seconds(predictor, predictor.batch_limit)
        return batch_size or predictor.batch_limit
    if batch_size is None:
        return _fastest(predictor)
    size = batch_size
    while size:
        if _seconds(predictor, size) is None:
            log.warning("a batch does not fit in memory", batch_size=size)
        size //= 2
    return batch_size


def _fastest(predictor: Predictor) -> int:
    height, width, depth = predictor.input_shape
    largest = max(1, min(LARGEST, BATCH_BYTES // (height * width * depth)))
    each: dict[int, float] = {}
    size, spent, set_up = 1, 0.0, SET_UP_S
    while size <= largest:
        took = _tries(predictor, size)
        if not took:
            break
        each[size] = min(took) / size
        spent += len(took) * min(took)
        set_up -= sum(took) - len(took) * min(took)
        size *= 2
        expected = size * each[size // 2]
        budget = BUDGET_S if each[1] < SLOW_S else SLOW_BUDGET_S
        if set_up < 0 or spent + _tries_of(expected) * expected > budget:
            break
    best = min(each.values(), default=0.0)
    found = max((size for size in each if each[size] <= best * AS_FAST), default=1)
    log.info("found the batch size", batch_size=found)
    return found


def _tries(predictor: Predictor, size: int) -> list[float]:
    """What predictions of this size take, seconds; none if the batch does not fit in memory."""
    took: list[float] = []
    while not took or len(took) < _tries_of(min(took)):
        seconds = _seconds(predictor, size)
        if seconds is None:
            return []
        took.append(seconds)
    return took


def _tries_of(seconds: float) -> int:
    return TRIES if seconds < SLOW_S else SLOW_TRIES


def _seconds(predictor: Predictor, size: int) -> float | None:
    """What a prediction takes; None if the batch does not fit in memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, *predictor.input_shape), np.uint8)
    started = time.perf_counter()
    try:
        predictor.predict(pixels)
    except OutOfMemoryError:
        return None
    return time.perf_counter() - started
