"""Fit a model to data, epoch by epoch, so that it can stop and go on after any of them.

What is random in an epoch (the order of the pictures, dropout) depends on the seed and the
epoch's number alone. So a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.architecture import Architecture
from millrace.models.batches import batches
from millrace.models.labelled import Dataset
from millrace.models.training_record import Epoch


def _as_it_is(model: Any) -> None:
    """All of the model learns."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Some epochs at one learning rate; `prepare` says which layers learn in them."""

    epochs: int
    learning_rate: float
    prepare: Callable[[Any], None] = _as_it_is


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. Phases follow one another, each with an optimizer of its own."""

    phases: tuple[Phase, ...]
    batch_size: int = 64
    seed: int = 0

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told: `batch(done, of)` within an epoch, which may raise to stop; `epoch` after it."""

    batch: Callable[[int, int], None] = lambda done, of: None
    epoch: Callable[[Epoch], None] = lambda epoch: None


def fit(
    model: Any,
    data: Dataset,
    architecture: Architecture,
    plan: Plan,
    *,
    watch: Watch | None = None,
    done: int = 0,
    restore: Callable[[Any], None] | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place; yields each epoch when it is finished.

    `done` epochs are behind it already: `restore` puts their weights and optimizer back, once
    the model is compiled as it was then. Raises ModelError if the model ceases to be numbers.
    """
    start = 0
    for phase in plan.phases:
        end = start + phase.epochs
        if phase.epochs and done <= end:
            phase.prepare(model)
            _compile(model, phase.learning_rate)
            if restore is not None and start < done:
                restore(model)
            for number in range(max(done, start), end):
                yield _epoch(model, data, architecture, plan, number, watch or Watch())
        start = end


def _compile(model: Any, learning_rate: float) -> None:
    load_tensorflow()
    import keras

    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # compiling takes longer than it saves on small models
    )
    model.optimizer.build(model.trainable_variables)  # so that its state can be restored


def _epoch(
    model: Any, data: Dataset, architecture: Architecture, plan: Plan, number: int, watch: Watch
) -> Epoch:
    import keras

    rng = np.random.default_rng([plan.seed, number])
    _seed_layers(model, plan.seed, number)
    seen = batches(data.seen, architecture, plan.batch_size, rng.permutation(len(data.seen)))
    unseen = batches(data.unseen, architecture, plan.batch_size, np.arange(len(data.unseen)))
    on_batch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: watch.batch(batch + 1, len(seen)),
        on_test_batch_end=lambda batch, logs: watch.batch(len(seen), len(seen)),
    )
    begun = time.monotonic()
    history = model.fit(
        seen,
        validation_data=unseen,
        initial_epoch=number,
        epochs=number + 1,
        shuffle=False,  # done already
        verbose=0,
        callbacks=[on_batch],
    ).history
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    loss, accuracy, unseen_loss, unseen_accuracy = (
        round(float(history[name][0]), 6) for name in names
    )
    # Keras bounds probabilities, so that the loss may hide what became of the weights.
    values = (loss, unseen_loss, *model.trainable_variables)
    if not all(np.isfinite(value).all() for value in values):
        raise ModelError(
            f"after epoch {number + 1} the model is no numbers any more",
            hint="a lower --learning-rate may help",
        )
    epoch = Epoch(
        number=number + 1,
        loss=loss,
        accuracy=accuracy,
        unseen_loss=unseen_loss,
        unseen_accuracy=unseen_accuracy,
        seconds=round(time.monotonic() - begun, 3),
    )
    watch.epoch(epoch)
    return epoch


def _seed_layers(model: Any, seed: int, number: int) -> None:
    """Give what layers draw random numbers from (dropout) a state of this epoch's own."""
    states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    for index, state in enumerate(states):
        state.assign(np.random.default_rng([seed, number, index]).integers(0, 2**31, 2))
