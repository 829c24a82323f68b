"""What the recipes ask for, and what a person may ask instead."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.errors import UsageError
from millrace.models.recipes import CLASSIFIERS, Asked, classifier


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_recipe_makes_a_model_of_its_architecture(name: str) -> None:
    recipe = classifier(name)
    facts = recipe.architecture
    model = recipe.make(4)
    assert model.input_shape == (None, facts.height, facts.width, 1)
    assert model.output_shape == (None, 4)
    assert recipe.model == facts.name
    assert recipe.plan.epochs == recipe.flags["epochs"]
    assert recipe.plan.epochs > 1


def test_what_is_asked_for_wins() -> None:
    recipe = classifier("mnist-cnn", Asked(epochs=2, batch_size=7, learning_rate=0.5, seed=9))
    (phase,) = recipe.plan.phases
    assert (phase.epochs, phase.learning_rate) == (2, 0.5)
    assert (recipe.plan.batch_size, recipe.plan.seed) == (7, 9)
    assert recipe.flags == {"epochs": 2, "batch_size": 7, "learning_rate": 0.5, "seed": 9}


@pytest.mark.parametrize(
    "asked", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"epochs": -1}], ids=str
)
def test_nothing_is_not_taken_for_what_was_not_said(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"of {next(iter(asked.values()))}"):
        Asked(**asked)
