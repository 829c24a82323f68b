"""`NAME` or `NAME:VERSION`: how people and specs name a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from millrace.core.errors import UsageError
from millrace.core.topology import MODEL_NAME_PATTERN, VERSION_PATTERN


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model's name and, if the user pins one, its version."""

    name: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read `resnet50` or `resnet50:3`. Raises UsageError."""
        name, colon, version = text.partition(":")
        if not re.fullmatch(MODEL_NAME_PATTERN, name):
            raise UsageError(
                f"{text!r} does not name a model",
                hint="NAME or NAME:VERSION, of letters, digits, '.', '_' and '-'",
            )
        if colon and not re.fullmatch(VERSION_PATTERN, version):
            raise UsageError(f"{text!r}: {version!r} is not a version")
        return cls(name, version if colon else None)

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}:{self.version}"
