"""Classification: a vector of scores → the best classes, best first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.errors import ItemError, ModelError, Stage

FEW = 16
"""Up to so many are picked one by one: five of a thousand take 3 µs, sorting all of them 50 µs."""


class ClassificationHead:
    """`[{"label","index","score"}…]`, best first; equal scores by index."""

    def __init__(self, bundle: Bundle, output_shape: tuple[int | None, ...]) -> None:
        """`output_shape` is that of one image's scores. Raises ModelError."""
        name, offset, labels = bundle.card.name, bundle.card.label_offset, bundle.labels
        sides = [side for side in output_shape if side != 1]
        if len(sides) > 1:
            raise ModelError(f"{name}: an output of shape {list(output_shape)} is no class vector")
        width = sides[0] if sides else 1
        if labels and width and offset + len(labels) != width:
            raise ModelError(
                f"{name}: {len(labels)} labels"
                + (f" from index {offset}" if offset else "")
                + f" for {width} classes",
                hint="check the labels and the label offset",
            )
        self._labels = ("",) * offset + labels
        self._top_k = bundle.card.top_k

    def __call__(self, scores: npt.NDArray[np.float32], top_k: int | None) -> list[dict[str, Any]]:
        """The best `top_k` classes. Raises ItemError `not_finite` for NaN or infinity."""
        flat = scores.reshape(-1)
        if not np.isfinite(flat).all():
            raise ItemError(Stage.INFER, "not_finite", "the model answered NaN or infinity")
        return [
            {"label": self._label(index), "index": index, "score": flat[index]}
            for index in best_of(flat, top_k or self._top_k)
        ]

    def _label(self, index: int) -> str:
        return self._labels[index] if index < len(self._labels) else str(index)


def best_of(scores: npt.NDArray[np.float32], k: int) -> list[int]:
    """The indices of the `k` highest of finite scores [n], best first; equal ones by index."""
    if k > FEW:
        ranked: list[int] = np.argsort(-scores, kind="stable")[:k].tolist()
        return ranked
    left = scores.copy()
    best = list[int]()
    for _ in range(min(k, left.size)):
        best.append(int(left.argmax()))
        left[best[-1]] = -np.inf
    return best
