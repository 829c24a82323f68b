"""Read a picture file to learn from, with the pixels a worker would see.

The everyday kinds only; a worker reads more of them (`millrace.worker.images`).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from millrace.core.pictures import REDUCING_GAP, flatten
from millrace.models.architecture import Architecture

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def read_picture(path: Path, architecture: Architecture) -> npt.NDArray[np.uint8] | None:
    """uint8 [height, width, channels], stretched to the input; None if it cannot be read."""
    size = (architecture.width, architecture.height)
    mode = architecture.channels
    coarse = math.ceil(REDUCING_GAP * max(size))
    try:
        with warnings.catch_warnings():
            # Of a very large picture, which is only then an error when it is a bomb.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                image.draft(mode, (coarse, coarse))
                flat = flatten(ImageOps.exif_transpose(image), mode)
                small = flat.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    except Exception:  # decoders of broken files raise nearly anything
        return None
    pixels = np.asarray(small, np.uint8)
    return pixels[:, :, np.newaxis] if mode == "L" else pixels


def resized(images: npt.NDArray[np.uint8], architecture: Architecture) -> npt.NDArray[np.uint8]:
    """uint8 [n, any, any] greys as [n, height, width, channels] of the input."""
    size = (architecture.width, architecture.height)
    if images.shape[1:] != size[::-1]:
        small = [
            np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            for image in images
        ]
        images = np.stack(small) if small else np.zeros((0, *size[::-1]), np.uint8)
    channels = 1 if architecture.channels == "L" else 3
    return np.repeat(images[..., np.newaxis], channels, axis=-1)
