"""Fine-tuning: a trained base, a new head, and your own classes.

First the head alone learns while the base stands still, then the base's top layers learn with
it at a tenth of the rate. Batch normalisation stays in inference mode throughout: what it
knows of the base's own pictures is worth more than what a few batches of yours would teach it.

The head ends in a softmax layer named `inferenceLayer`, so that whoever loads the exported
graph finds the operation `…/inferenceLayer/Softmax`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from millrace.core.errors import ModelError, UsageError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models import IMAGENET, architecture, build
from millrace.models.architecture import Architecture
from millrace.models.pixels import depth
from millrace.models.recipes import Asked, Recipe, flags_of
from millrace.models.training import Phase, Plan
from millrace.models.weights import load_weights

INFERENCE_LAYER = "inferenceLayer"
UNFROZEN_RATE = 0.1

EPOCHS, BATCH_SIZE, LEARNING_RATE = 6, 32, 1e-3
DROPOUT = 0.2


@dataclass(frozen=True, slots=True)
class Base:
    """An architecture to build on. `size` (height, width) is its own unless given.

    `weights` is `imagenet`, a file of weights, or None for random ones.
    """

    name: str
    weights: str | None = IMAGENET
    size: tuple[int, int] | None = None

    def facts(self) -> Architecture:
        """Of its input, at this size. Raises ModelNotFound."""
        own = architecture(self.name)
        if self.size is None:
            return own
        return replace(own, height=self.size[0], width=self.size[1])

    def trunk(self) -> Any:
        """Untrained, without its head, for this size. Raises ModelError."""
        load_tensorflow()  # before keras, which would load it with all its greetings
        import keras

        facts, trunk = self.facts(), _trunk(build(self.name))
        shape = (facts.height, facts.width, depth(facts))
        if trunk.input_shape[1:] == shape:
            return trunk
        try:
            return keras.models.clone_model(trunk, input_tensors=keras.Input(shape))
        except ValueError as error:
            size = f"{facts.height} × {facts.width}"
            why = str(error).partition("\n")[0]
            raise ModelError(f"{self.name} cannot be made for pictures of {size}: {why}") from error

    def begin(self, model: Any) -> None:
        """Put the weights into the trunk of `model`. Raises ModelError."""
        if self.weights is None:
            return
        trunk = trunk_of(model)
        try:
            # Most are published with their head, and fit the size they were made for.
            source = _trunk(build(self.name, weights=self.weights))
        except ModelError:
            if self.weights == IMAGENET or not _loaded_headless(trunk, self.weights):
                raise
            return
        try:
            trunk.set_weights(source.get_weights())
        except ValueError as error:
            raise ModelError(
                f"the weights of {self.name} fit pictures of its own size alone",
                hint="leave out --size",
            ) from error


@dataclass(frozen=True, slots=True)
class Thaw:
    """`unfreeze` layers of the base learn too, after the first `frozen_epochs` (half of all)."""

    unfreeze: int = 20
    frozen_epochs: int | None = None


def fine_tuning(base: Base, thaw: Thaw | None = None, asked: Asked | None = None) -> Recipe:
    """The recipe. Raises ModelNotFound for an unknown base, and UsageError."""
    thaw, asked = thaw or Thaw(), asked or Asked()
    epochs = asked.epochs or EPOCHS
    rate = asked.learning_rate or LEARNING_RATE
    frozen = _frozen_epochs(thaw, epochs)
    plan = Plan(
        (
            Phase(frozen, rate, partial(let_learn, top=0)),
            Phase(epochs - frozen, rate * UNFROZEN_RATE, partial(let_learn, top=thaw.unfreeze)),
        ),
        batch_size=asked.batch_size or BATCH_SIZE,
        seed=asked.seed,
    )
    facts = base.facts()
    return Recipe(
        name="fine-tune",
        model=f"{facts.name}_fine_tuned",
        architecture=facts,
        plan=plan,
        make=lambda classes: with_new_head(base.trunk(), facts, classes),
        begin=base.begin,
        flags={
            **flags_of(plan, rate),
            "base": base.name,
            "weights": base.weights or "none",
            "size": f"{facts.height}x{facts.width}",
            "unfreeze": thaw.unfreeze,
            "frozen_epochs": frozen,
        },
    )


def with_new_head(trunk: Any, facts: Architecture, classes: int) -> Any:
    """A `keras.Model`: `trunk`'s features, pooled if they are maps, to class probabilities."""
    import keras
    from keras import layers

    pixels = keras.Input((facts.height, facts.width, depth(facts)), name="image")
    features = trunk(pixels, training=False)
    if len(features.shape) == 4:
        features = layers.GlobalAveragePooling2D()(features)
    features = layers.Dropout(DROPOUT)(features)
    head = layers.Dense(classes, activation="softmax", name=INFERENCE_LAYER)
    return keras.Model(pixels, head(features), name=f"{facts.name}_fine_tuned")


def let_learn(model: Any, top: int) -> None:
    """The head, and the last `top` layers of the trunk but for batch normalisation."""
    import keras

    trunk = trunk_of(model)
    first = len(trunk.layers) - top
    trunk.trainable = True
    for number, layer in enumerate(trunk.layers):
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= first and not normalises


def trunk_of(model: Any) -> Any:
    """The base within a model made by `with_new_head`."""
    import keras

    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def _frozen_epochs(thaw: Thaw, epochs: int) -> int:
    if thaw.unfreeze == 0:
        return epochs
    if thaw.frozen_epochs is None:
        return -(-epochs // 2)
    if thaw.frozen_epochs > epochs:
        raise UsageError(f"--frozen-epochs {thaw.frozen_epochs} of {epochs} epochs")
    return thaw.frozen_epochs


def _trunk(classifier: Any) -> Any:
    """A classifier without its last dense layer: input to features. Raises ModelError."""
    import keras

    for layer in reversed(classifier.layers):
        if isinstance(layer, keras.layers.Dense):
            return keras.Model(classifier.inputs[0], layer.input, name=f"{classifier.name}_base")
        if layer.weights:
            break
    raise ModelError(
        f"{classifier.name} does not end in a dense layer, so it has no head to replace"
    )


def _loaded_headless(trunk: Any, file: str) -> bool:
    """Weights that were published without a head, as Keras's `…_no_top.h5` are."""
    try:
        load_weights(trunk, Path(file))
    except ModelError:
        return False
    return True
