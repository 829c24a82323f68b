"""How a worker runs its model, as it tells whoever looks at the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import orjson
from pydantic import AfterValidator, Field, TypeAdapter

MOST_CHARACTERS = 300


def one_line(text: str) -> str:
    """Without line breaks and control characters, and not too long."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:MOST_CHARACTERS].strip()


def _is_one_line(text: str) -> str:
    if text != one_line(text):
        raise ValueError("not a line of text")
    return text


Word = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
Line = Annotated[str, AfterValidator(_is_one_line)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Running:
    """Known once the model is loaded. In low precision the first images are predicted in float32
    too: so many are `compared` of the `to_compare`, and that share of them has the same best
    answer. None before the first, and in float32."""

    engine: Word
    why: Line
    """That engine."""
    precision: Word
    batch_size: Annotated[int, Field(ge=1)]
    to_compare: Count = 0
    compared: Count = 0
    top_1_agreement: Annotated[float, Field(ge=0, le=1)] | None = None

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    @staticmethod
    def from_json(text: str) -> Running:
        """Raises ValueError for anything that no worker wrote."""
        return _RUNNING.validate_json(text)


_RUNNING = TypeAdapter(Running)
