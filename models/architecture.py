"""What there is to know of an architecture beside its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: its input, how pixels become it, and how it is made."""

    name: str
    height: int
    width: int
    channels: str
    """As `core.card.Channels`: `RGB` or `L`."""
    scale: str
    """For `core.card.Normalisation.parse`."""
    classes: int
    """Of the published weights, or what it is made for."""
    weights: str
    """A sentence: where trained weights come from."""
    labels: Callable[[], Sequence[str]]
    make: Callable[..., Any]
    """`make(num_classes=…, weights=None | "imagenet")` → `keras.Model`."""
