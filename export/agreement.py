"""How far two runs of a model answer alike on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]

TOLERANCE = 1e-4
"""How far scores may lie apart: of 1, which probabilities do not exceed, or of the largest."""

TIE = 1e-5
"""Two classes of one image that are as close as this are rounding's to choose between."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of so many images, how far the scores lie apart at most, and which share (0 to 1) has the
    same best answer. Where one answers NaN and the other does not, they lie infinitely apart."""

    images: int
    max_abs_difference: float
    top_1_agreement: float
    largest: float = 1.0
    """The largest score, or 1 if none is larger."""

    @property
    def ok(self) -> bool:
        """Whether it is the same model, up to rounding."""
        return self.max_abs_difference <= TOLERANCE * self.largest and self.top_1_agreement == 1.0

    def __str__(self) -> str:
        return (
            f"{self.images} images, the largest difference is {self.max_abs_difference:.2g}, "
            f"{self.top_1_agreement:.1%} have the same best answer"
        )


def compare(scores: Scores, source: Scores) -> Agreement:
    """How `scores` [n, …] agree with those of the source model.

    Arrays of another shape, or none, agree in nothing.
    """
    images = len(source)
    if scores.shape != source.shape or not source.size:
        return Agreement(images, float("inf"), 0.0)
    one, other = (np.asarray(x, np.float64).reshape(images, -1) for x in (scores, source))
    same = (one == other) | (np.isnan(one) & np.isnan(other))  # infinities, too
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(one - other))
    largest = float(np.max(np.abs(other), initial=1.0, where=np.isfinite(other)))
    return Agreement(
        images,
        float(np.max(np.nan_to_num(apart, nan=np.inf, posinf=np.inf))),
        float(np.mean(_same_best(one, other, TIE * largest))),
        largest,
    )


def _same_best(
    one: npt.NDArray[np.float64], other: npt.NDArray[np.float64], tie: float
) -> npt.NDArray[np.bool_]:
    """Whether the best of `one` is the other's best, too, or as good as that."""
    ranked = np.nan_to_num(other, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    mine = np.nan_to_num(one, nan=-np.inf, posinf=np.inf, neginf=-np.inf).argmax(axis=1)
    rows = np.arange(len(other))
    best = ranked.max(axis=1)
    return np.asarray((ranked[rows, mine] == best) | (ranked[rows, mine] >= best - tie))
