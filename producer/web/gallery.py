"""A page of a job's outcomes, filtered, by cursor; a request never reads more than its share.

Chunks are read in manifest order from where the last page ended until the page is full, or until
the limit of chunks or of time is met: then the cursor says where to go on, found something or not.
So the millionth result costs what the first does, and a filter that nothing passes ends, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from millrace.core.bitmaps import set_bits
from millrace.core.errors import ObjectTooLarge
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.producer.web.outcomes import outcomes_of

PAGE = 24
MOST_CHUNKS = 64
WITHIN_S = 1.5

Kind = Literal["all", "predictions", "errors"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which outcomes: `label` is that of the best prediction, whatever its case, and scores are
    the best prediction's; `code` is `stage/code`."""

    kind: Kind = "all"
    label: str = ""
    code: str = ""
    least: float | None = None
    most: float | None = None

    def accepts(self, outcome: dict[str, Any]) -> bool:
        error = outcome.get("error")
        if error is not None:
            return (
                self.kind != "predictions"
                and not self._asks_for_predictions
                and self.code in ("", f"{error['stage']}/{error['code']}")
            )
        if self.kind == "errors" or self.code:
            return False
        if not self._asks_for_predictions:
            return True
        best = best_of(outcome)
        return (
            best is not None
            and (not self.label or str(best["label"]).casefold() == self.label.casefold())
            and (self.least is None or best["score"] >= self.least)
            and (self.most is None or best["score"] <= self.most)
        )

    @property
    def only_errors(self) -> bool:
        return self.kind == "errors" or bool(self.code)

    @property
    def _asks_for_predictions(self) -> bool:
        return bool(self.label) or (self.least, self.most) != (None, None)


@dataclass(frozen=True, slots=True)
class Found:
    """One outcome and its row in the manifest."""

    row: int
    outcome: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """`after` is the row to go on from, None at the end of what there is. `looked` counts the
    outcomes that were read for it, `too_large` the chunks that were not."""

    found: list[Found]
    after: int | None
    looked: int
    too_large: int = 0

    @property
    def full(self) -> bool:
        return len(self.found) == PAGE


def page_of(
    directory: JobDirectory,
    spec: JobSpec,
    finished: bytes,
    wanted: Wanted,
    start: int = 0,
    *,
    size: int = PAGE,
    within_s: float = WITHIN_S,
    most_chunks: int = MOST_CHUNKS,
) -> Page:
    """The outcomes from row `start` on that are `wanted`, of the chunks `finished` has bits for.

    Raises the store's errors.
    """
    deadline = time.monotonic() + within_s
    found: list[Found] = []
    looked = too_large = 0
    for read, chunk in enumerate(_from(finished, start // spec.chunk_size)):
        first = max(start, chunk * spec.chunk_size)
        if read == most_chunks or (read and time.monotonic() > deadline):
            return Page(found, first, looked, too_large)
        skipped = first - chunk * spec.chunk_size
        try:
            for row, outcome in enumerate(outcomes_of(directory, spec, chunk, skipped), first):
                if len(found) == size:
                    return Page(found, row, looked, too_large)
                looked += 1
                if wanted.accepts(outcome):
                    found.append(Found(row, outcome))
        except ObjectTooLarge:
            too_large += 1
    return Page(found, None, looked, too_large)


def best_of(outcome: dict[str, Any]) -> dict[str, Any] | None:
    """The best prediction, if it is a class with a score."""
    predictions = outcome.get("predictions") or [None]
    best = predictions[0]
    is_class = isinstance(best, dict) and isinstance(best.get("score"), int | float)
    return best if is_class and isinstance(best.get("label"), str) else None


def _from(bitmap: bytes, first: int) -> Iterator[int]:
    """The set bits from number `first` on."""
    skipped = first // 8
    bits = (bit + skipped * 8 for bit in set_bits(bitmap[skipped:]))
    return (bit for bit in bits if bit >= first)
