"""Architectures, one file each behind the same door: `build(name, num_classes=…)`.

from millrace.models import build

model = build("digits", num_classes=10)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from millrace.core.errors import ModelNotFound

ARCHITECTURES = {"digits": "millrace.models.digits"}


def build(name: str, *, num_classes: int, **options: Any) -> Any:
    """An untrained `keras.Model`: float32 images in, class probabilities out.

    Raises ModelNotFound for a name that is not an architecture.
    """
    if name not in ARCHITECTURES:
        raise ModelNotFound(
            f"there is no architecture {name!r}", hint=f"there are {', '.join(ARCHITECTURES)}"
        )
    return import_module(ARCHITECTURES[name]).build(num_classes=num_classes, **options)
