"""The data of a training run: idx files, folders of pictures, or scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.errors import BadData, MissingExtra, ObjectNotFound, UsageError
from millrace.models.architecture import Architecture
from millrace.models.idx import read_idx
from millrace.models.image_folder import read_image_folder
from millrace.models.labelled import Dataset, Labelled, checked, split
from millrace.models.read_picture import resized

HELD_OUT_IDX = 0.5
HELD_OUT_DIGITS = 1 / 3

IMAGES, LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
PAIRS = ("train", "t10k")


@dataclass(frozen=True, slots=True)
class _Raw:
    """`images` uint8 [n, height, width] as they lie in a file, `labels` int64 [n]."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def load_data(path: Path, architecture: Architecture, holdout: float | None = None) -> Dataset:
    """What a directory holds, for an architecture's input.

    Idx files under MNIST's names if there are any, otherwise folders of pictures. A pair of
    idx files alone is split; of both pairs `t10k` is the unseen one. `holdout` is the share
    unseen where there is something to split. Raises ObjectNotFound, UsageError and BadData.
    """
    if not path.is_dir():
        raise ObjectNotFound(f"{path} is not a directory")
    if not any(path.glob("*-idx?-ubyte*")):
        return read_image_folder(path, architecture, holdout)
    pairs = {name: pair for name in PAIRS if (pair := _pair(path, name)) is not None}
    if not pairs:
        raise BadData(f"{path} holds idx files, but none of {_named(PAIRS[0])} or of t10k-…")
    if len(pairs) == 2:
        if holdout is not None:
            raise UsageError(f"{path} has unseen pictures of its own: leave out --holdout")
        seen, unseen = pairs.values()
    else:
        (whole,) = pairs.values()
        which = split(whole.labels, HELD_OUT_IDX if holdout is None else holdout)
        seen, unseen = (_Raw(whole.images[part], whole.labels[part]) for part in which)
    return checked(_dataset(seen, unseen, architecture), str(path))


def load_digits(architecture: Architecture, holdout: float | None = None) -> Dataset:
    """The 1,797 digits that come with scikit-learn, a third of them unseen.

    Scans of 8 × 8 pixels, values 0 to 16, from the UCI set "Optical Recognition of
    Handwritten Digits". Raises MissingExtra and UsageError.
    """
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError as error:
        raise MissingExtra("scikit-learn", "demo") from error
    data: Any = bundled()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    which = split(labels, HELD_OUT_DIGITS if holdout is None else holdout)
    seen, unseen = (_Raw(images[part], labels[part]) for part in which)
    return checked(_dataset(seen, unseen, architecture), "scikit-learn")


def _dataset(seen: _Raw, unseen: _Raw, architecture: Architecture) -> Dataset:
    """The numbers that occur as labels are the classes, whichever they are."""
    numbers = np.union1d(seen.labels, unseen.labels)
    parts = [
        Labelled(resized(raw.images, architecture), np.searchsorted(numbers, raw.labels))
        for raw in (seen, unseen)
    ]
    return Dataset(parts[0], parts[1], tuple(str(number) for number in numbers))


def _pair(folder: Path, name: str) -> _Raw | None:
    """The images and labels of that name; None if there is neither."""
    files = [_file(folder, kind.format(name)) for kind in (IMAGES, LABELS)]
    if files == [None, None]:
        return None
    images_file, labels_file = files
    if images_file is None or labels_file is None:
        missing = (IMAGES if images_file is None else LABELS).format(name)
        raise BadData(f"{folder} holds no {missing} to go with the other file")
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape:
        raise BadData(f"{images_file} holds no pictures: {images.dtype} of shape {images.shape}")
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise BadData(f"{labels_file} holds no labels: {labels.dtype} of shape {labels.shape}")
    if len(images) != len(labels):
        raise BadData(f"{folder}: {len(images):,} pictures and {len(labels):,} labels do not match")
    return _Raw(images, labels.astype(np.int64))


def _file(folder: Path, name: str) -> Path | None:
    found = (folder / end for end in (name, f"{name}.gz"))
    return next((file for file in found if file.is_file()), None)


def _named(pair: str) -> str:
    return " and ".join(f"{kind.format(pair)}[.gz]" for kind in (IMAGES, LABELS))
