"""What an architecture says of itself, apart from its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network under the name it is asked for by, and the facts that go onto a bundle's card.

    `make(num_classes=…)` gives an untrained `keras.Model`: float32 images [n, height, width,
    depth] in, normalised as `scale` says, and probabilities [n, num_classes] out, the last
    operation a softmax. Where `imagenet` is true it also takes `weights="imagenet"`.
    """

    name: str
    height: int
    width: int
    channels: str
    """As `core.card.Channels`; `RGB` is what pictures are, whatever order `scale` makes of it."""
    scale: str
    """What `core.card.Normalisation.parse` reads."""
    classes: int
    """Of the published weights, or what it is made for."""
    weights: str
    """Where trained ones come from, as a sentence."""
    labels: Callable[[], Sequence[str]]
    """The names of `classes`, in order. Raises ModelError, MissingExtra."""
    make: Callable[..., Any]
    imagenet: bool = False
    """Whether Keras publishes weights trained on ImageNet."""
