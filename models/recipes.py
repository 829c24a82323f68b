"""What can be trained: each recipe is an architecture and a plan.

`mnist-softmax`, `mnist-cnn` and `digits` stand here; `millrace.models.fine_tune` makes another
from a base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from millrace.core.errors import UsageError
from millrace.models import architecture, build
from millrace.models.architecture import Architecture
from millrace.models.training import Phase, Plan
from millrace.models.training_record import Flag


def _random(model: Any) -> None:
    """A model begins with the weights it was made with."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """`make` gives an untrained model for so many classes; `begin` puts its first weights in.

    `architecture` says what the input is, `model` how a bundle is called unless it is named
    otherwise. `flags` are those that make two runs different.
    """

    name: str
    model: str
    architecture: Architecture
    plan: Plan
    make: Callable[[int], Any]
    begin: Callable[[Any], None] = _random
    flags: dict[str, Flag] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person may ask for; None is the recipe's own. Raises UsageError for 0 and less."""

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name.replace('_', ' ')} of {value}", hint="more than 0")


@dataclass(frozen=True, slots=True)
class _Habits:
    architecture: str
    epochs: int
    batch_size: int
    learning_rate: float


CLASSIFIERS = {
    "mnist-softmax": _Habits("mnist_softmax", 10, 64, 2e-3),
    "mnist-cnn": _Habits("mnist_cnn", 8, 64, 2e-3),
    "digits": _Habits("digits", 20, 64, 1e-3),
}


def classifier(name: str, asked: Asked | None = None) -> Recipe:
    """One of `CLASSIFIERS`: all of its layers learn, from random weights."""
    habits, asked = CLASSIFIERS[name], asked or Asked()
    rate = asked.learning_rate or habits.learning_rate
    plan = Plan(
        (Phase(asked.epochs or habits.epochs, rate),),
        batch_size=asked.batch_size or habits.batch_size,
        seed=asked.seed,
    )
    return Recipe(
        name=name,
        model=habits.architecture,
        architecture=architecture(habits.architecture),
        plan=plan,
        make=lambda classes: build(habits.architecture, num_classes=classes),
        flags=flags_of(plan, rate),
    )


def flags_of(plan: Plan, learning_rate: float) -> dict[str, Flag]:
    """Those every recipe has."""
    return {
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "learning_rate": learning_rate,
        "seed": plan.seed,
    }
