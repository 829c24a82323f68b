"""Idx files, and folders of PNGs, of scikit-learn's digits."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from tests.support import write_png

COUNT = 1797

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(values: npt.NDArray[Any]) -> bytes:
    """As the format's description has it, written here by another hand than the reader's."""
    kind = values.dtype.str[1:]
    magic = bytes([0, 0, CODES[kind], values.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return magic + sizes + values.astype(f">{kind}").tobytes()


def write_idx(path: Path, values: npt.NDArray[Any]) -> None:
    """Gzipped if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = idx_bytes(values)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def digit_scans(count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """uint8 [count, 8, 8] of 0 to 255, and the digit each is."""
    data = load_digits()
    images = np.round(data.images[:count] * (255 / 16)).astype(np.uint8)
    return images, data.target[:count].astype(np.uint8)


def write_pair(folder: Path, name: str, count: int, *, side: int = 8, end: str = "") -> None:
    """`count` digits, drawn `side` pixels large, under MNIST's names."""
    images, labels = digit_scans(count)
    write_idx(folder / f"{name}-images-idx3-ubyte{end}", enlarged(images, side))
    write_idx(folder / f"{name}-labels-idx1-ubyte{end}", labels)


def write_digit_folders(folder: Path, numbers: Iterable[int], *, side: int = 8) -> Path:
    """The digits of these numbers (0 to 1796) as `folder/<digit>/<number>.png`, grey."""
    images, labels = digit_scans(COUNT)
    images = enlarged(images, side)
    for number in numbers:
        write_png(folder / str(labels[number]) / f"{number:04d}.png", images[number])
    return folder


def enlarged(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """uint8 [n, 8, 8] → [n, side, side]."""
    size = (side, side)
    return np.stack([np.asarray(Image.fromarray(image).resize(size)) for image in images])
