"""Bytes → pixels: one encoded picture as the uint8 array a model's card asks for.

Everything a person would expect is done (EXIF orientation, CMYK, 16 bits, palettes, alpha
on white, first frame of an animation), everything else is refused with a typed error.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from millrace.core import pictures
from millrace.core.card import Card, Channels, ResizeFilter, ResizeMethod
from millrace.core.pictures import TRANSPOSE, allow_pixels, flatten, opened, orientation

_FILTERS = {
    ResizeFilter.NEAREST: Image.Resampling.NEAREST,
    ResizeFilter.BOX: Image.Resampling.BOX,
    ResizeFilter.BILINEAR: Image.Resampling.BILINEAR,
    ResizeFilter.BICUBIC: Image.Resampling.BICUBIC,
    ResizeFilter.LANCZOS: Image.Resampling.LANCZOS,
}


class ImageDecoder:
    """Decodes to one card's input. Safe to use from several threads."""

    def __init__(self, card: Card, *, max_pixels: int, exact: bool = False) -> None:
        """`exact` resizes from the whole picture; otherwise one that is much larger than the
        input is read and shrunk coarsely first, to `REDUCING_GAP` times the input or more, which
        answers the same for nearly all pictures in a fraction of the time.
        """
        self._size = (card.width, card.height)
        self._mode = "L" if card.channels is Channels.L else "RGB"
        self._method = card.resize
        self._filter = _FILTERS[card.filter]
        self._max_pixels = max_pixels
        self._reducing_gap = None if exact else pictures.REDUCING_GAP
        allow_pixels(max_pixels)

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        """An encoded picture as uint8 [height, width, channels], channels RGB or L.

        Raises ItemError of stage `decode`: `empty`, `not_an_image`, `decompression_bomb`,
        `truncated` or `corrupt`.
        """
        with opened(data, max_pixels=self._max_pixels) as image:
            return self._pixels(image)

    def _pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        if self._reducing_gap is not None:
            # JPEG decodes at a fraction of its size for a fraction of the time.
            width, height = self._turned(orientation(image))
            gap = self._reducing_gap
            image.draft(self._mode, (math.ceil(gap * width), math.ceil(gap * height)))
        image.load()
        # Asked again, for Pillow turns a TIFF upright itself when it loads it.
        stored = orientation(image)
        target = self._turned(stored)
        flat = flatten(image, self._mode)
        resized = self._resize(flat, target)
        if stored in TRANSPOSE:
            resized = resized.transpose(TRANSPOSE[stored])
        pixels = np.asarray(resized, np.uint8)
        return pixels[:, :, np.newaxis] if self._mode == "L" else pixels

    def _turned(self, stored: int) -> tuple[int, int]:
        """The input's (width, height), as seen by a picture stored in this orientation."""
        return self._size[::-1] if stored in (5, 6, 7, 8) else self._size

    def _resize(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        if image.size == size:
            return image
        width, height = image.size
        if self._method is ResizeMethod.STRETCH:
            return image.resize(size, self._filter, reducing_gap=self._reducing_gap)
        if self._method is ResizeMethod.CROP:
            ratio = min(width / size[0], height / size[1])
            left, top = (width - ratio * size[0]) / 2, (height - ratio * size[1]) / 2
            box = (left, top, width - left, height - top)
            return image.resize(size, self._filter, box, reducing_gap=self._reducing_gap)
        ratio = min(size[0] / width, size[1] / height)
        inner = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        canvas = Image.new(image.mode, size)
        corner = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
        shrunk = image.resize(inner, self._filter, reducing_gap=self._reducing_gap)
        canvas.paste(shrunk, corner)
        return canvas
