"""Pictures to predict: made from a seed, photograph-like in content and in file size.

A JPEG's decoding time follows its size in bytes, so flat colours would flatter every decoder
and white noise would slander it. These have what photographs have: soft light, texture at every
scale, and objects with edges.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Plane = npt.NDArray[np.float32]

FINEST = 1
"""Pixels between the points of the finest texture."""


@dataclass(frozen=True, slots=True)
class InputKind:
    """A set of pictures: `distinct` different ones of width x height pixels."""

    name: str
    width: int
    height: int
    distinct: int
    quality: int
    roughness: float
    """Of the texture: how little its amplitude falls with its scale, 0 to 1."""


KINDS = {
    "small": InputKind("small", 500, 375, distinct=256, quality=90, roughness=0.92),
    "large": InputKind("large", 4000, 3000, distinct=16, quality=90, roughness=0.9),
}


def jpeg(kind: InputKind, number: int) -> bytes:
    """Picture `number` of a kind: the same bytes on every call."""
    dice = np.random.default_rng([kind.width, kind.height, number])
    size = (kind.width, kind.height)
    light = Image.fromarray(_light(dice, size))
    _objects(dice, light)
    pixels = np.asarray(light, np.float32)
    grain = _texture(dice, size, kind.roughness)[:, :, np.newaxis]
    tint = dice.uniform(0.7, 1.0, 3).astype(np.float32)
    shown = np.clip(pixels + 34.0 * grain * tint, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "JPEG", quality=kind.quality)
    return buffer.getvalue()


def write_set(kind: InputKind, directory: Path) -> list[Path]:
    """The distinct pictures of a kind as files; those that stand already are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{number:05d}.jpg" for number in range(kind.distinct)]
    for number, path in enumerate(paths):
        if not path.exists():
            scratch = path.with_suffix(".part")
            scratch.write_bytes(jpeg(kind, number))
            scratch.rename(path)
    return paths


def jpegs(directory: Path) -> list[Path]:
    """The JPEGs in a directory of somebody's own, by name."""
    return sorted(path for path in directory.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))


def link_many(pictures: Sequence[Path], count: int, directory: Path) -> None:
    """A directory of exactly `count` files `000000.jpg`…: the pictures in turn, as hard links."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for number in range(count):
        os.link(pictures[number % len(pictures)], directory / f"{number:06d}.jpg")


def picture_of(name: str, distinct: int) -> int:
    """Which distinct picture a file that `link_many` made is."""
    return int(Path(name).stem) % distinct


def _light(dice: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Soft changes of colour over the whole picture, uint8 [height, width, 3]."""
    corners = dice.integers(20, 235, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC))


def _objects(dice: np.random.Generator, image: Image.Image) -> None:
    """A dozen or two ellipses and polygons of one colour each, drawn over the light."""
    draw = ImageDraw.Draw(image)
    extent = np.array(image.size)
    for _ in range(int(dice.integers(12, 28))):
        centre = dice.uniform(0, 1, 2) * extent
        radius = dice.uniform(0.02, 0.22) * extent.min()
        colour = tuple(int(value) for value in dice.integers(0, 256, 3))
        angles = np.sort(dice.uniform(0, 2 * np.pi, int(dice.integers(3, 9))))
        if dice.random() < 0.5:
            stretch = radius * dice.uniform(0.4, 1.0, 2)
            draw.ellipse([*(centre - stretch), *(centre + stretch)], fill=colour)
        else:
            ring = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            draw.polygon([(float(x), float(y)) for x, y in ring], fill=colour)


def _texture(dice: np.random.Generator, size: tuple[int, int], roughness: float) -> Plane:
    """Noise at every scale from the whole picture down to FINEST, [height, width] about ±1."""
    width, height = size
    total = np.zeros((height, width), np.float32)
    cell, amplitude = max(size) // 2, 1.0
    while cell >= FINEST:
        points = dice.standard_normal((height // cell + 2, width // cell + 2), np.float32)
        plane = Image.fromarray(points).resize(size, Image.Resampling.BILINEAR)
        total += np.float32(amplitude) * np.asarray(plane, np.float32)
        cell, amplitude = cell // 2, amplitude * roughness
    return total / np.float32(1.5)
