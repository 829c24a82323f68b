"""Pictures with their classes, and which of them are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.core.errors import BadData, UsageError

SPLIT_SEED = 0
"""Always the same, whatever a run's own seed: runs are compared on the same unseen pictures."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """`images` uint8 [n, height, width, channels] and `labels` int64 [n], the class of each."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, which: Indices) -> Labelled:
        return Labelled(self.images[which], self.labels[which])


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is learnt from (`seen`), what it is judged by (`unseen`), and the classes' names.

    `skipped` are the files that could not be read.
    """

    seen: Labelled
    unseen: Labelled
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 over pixels, labels and class names: equal digests, the same data."""
        whole = hashlib.sha256("\n".join(self.classes).encode())
        for part in (self.seen, self.unseen):
            whole.update(repr(part.images.shape).encode())
            whole.update(np.ascontiguousarray(part.labels).data)
            for start in range(0, len(part), 1024):  # the pictures may be many times the memory
                whole.update(np.ascontiguousarray(part.images[start : start + 1024]).data)
        return f"sha256:{whole.hexdigest()}"


def checked(data: Dataset, source: str) -> Dataset:
    """The same data. Raises BadData where nothing can be learnt from it."""
    check_classes(data.classes, source)
    if not len(data.unseen):
        raise BadData(f"{source} holds no pictures to judge the model by")
    counts = np.bincount(data.seen.labels, minlength=len(data.classes))
    missing = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    if missing:
        raise BadData(f"{source} holds no picture of class {missing[0]!r} to learn from")
    return data


def check_classes(classes: Sequence[str], source: str) -> None:
    """Raises BadData where there are no two to tell apart."""
    if len(classes) < 2:
        one = f"one class alone, {classes[0]!r}" if classes else "no classes"
        raise BadData(f"{source} holds {one}", hint="there must be two or more to tell apart")


def split(labels: Sequence[int] | Indices, holdout: float) -> tuple[Indices, Indices]:
    """Indices of the seen and of the unseen, each in order; `holdout` is the share unseen.

    The same for the same labels; every class is divided in the same proportion.
    Raises UsageError for a share that is not between 0 and 1, or leaves either side empty.
    """
    check_holdout(holdout)
    count = len(labels)
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    by_class = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    # Evenly spread over pictures in order of class. The little more is for shares like 1/3.
    so_far = np.floor(np.arange(count + 1) * holdout + 1e-9)
    unseen = np.diff(so_far) > 0
    if count and (unseen.all() or not unseen.any()):
        raise UsageError(f"{count} pictures cannot be split: {holdout:g} of them held out")
    return np.sort(by_class[~unseen]), np.sort(by_class[unseen])


def check_holdout(holdout: float) -> None:
    """Raises UsageError for a share that is not between 0 and 1."""
    if not 0 < holdout < 1:
        raise UsageError(f"--holdout is a share between 0 and 1, not {holdout:g}")
