"""Bytes → pixels: one encoded picture as the uint8 array a model's card asks for.

Everything a person would expect is done (EXIF orientation, CMYK, 16 bits, palettes, alpha
on white, first frame of an animation), everything else is refused with a typed error.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from millrace.core.card import Card, Channels, ResizeFilter, ResizeMethod
from millrace.core.errors import ItemError, Stage

FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA",
    "ICO", "ICNS", "PCX", "SGI", "DDS", "PSD", "QOI",
)  # fmt: skip
"""What is decoded. Left out: formats that run other programs (EPS) or only wrap others."""

REDUCING_GAP = 3.0
"""How much larger than the input a picture is left by the coarse steps before the last resize.
Less would change answers more than rounding does; docs/performance.md tells what was measured."""

_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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
        self._reducing_gap = None if exact else REDUCING_GAP
        Image.init()
        # Pillow refuses pictures of twice its own limit: let ours decide. Its remarks on odd
        # files go nowhere; what matters becomes an error line.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels // 2 + 1)
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        """An encoded picture as uint8 [height, width, channels], channels RGB or L.

        Raises ItemError of stage `decode`: `empty`, `not_an_image`, `decompression_bomb`,
        `truncated` or `corrupt`.
        """
        if not data:
            raise ItemError(Stage.DECODE, "empty", "the object holds no bytes")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                self._refuse_bomb(image)
                return self._pixels(image)
        except ItemError:
            raise
        except UnidentifiedImageError:
            raise ItemError(Stage.DECODE, "not_an_image", "not a picture millrace reads") from None
        except Image.DecompressionBombError as error:
            raise ItemError(Stage.DECODE, "decompression_bomb", str(error)) from None
        except Exception as error:
            # Decoders of broken files raise nearly anything; each is this one image's fault.
            text = f"{type(error).__name__}: {error}"
            code = "truncated" if "truncated" in text.lower() else "corrupt"
            raise ItemError(Stage.DECODE, code, text[:300]) from error

    def _refuse_bomb(self, image: Image.Image) -> None:
        pixels = image.width * image.height
        if pixels > self._max_pixels:
            raise ItemError(
                Stage.DECODE,
                "decompression_bomb",
                f"{image.width} x {image.height} pixels, over the limit of {self._max_pixels}",
            )

    def _pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        if self._reducing_gap is not None:
            # JPEG decodes at a fraction of its size for a fraction of the time.
            width, height = self._turned(_orientation(image))
            gap = self._reducing_gap
            image.draft(self._mode, (math.ceil(gap * width), math.ceil(gap * height)))
        image.load()
        # Asked again, for Pillow turns a TIFF upright itself when it loads it.
        orientation = _orientation(image)
        target = self._turned(orientation)
        flat = _flatten(image, self._mode)
        resized = self._resize(flat, target)
        if orientation in _TRANSPOSE:
            resized = resized.transpose(_TRANSPOSE[orientation])
        pixels = np.asarray(resized, np.uint8)
        return pixels[:, :, np.newaxis] if self._mode == "L" else pixels

    def _turned(self, orientation: int) -> tuple[int, int]:
        """The input's (width, height), as seen by a picture stored in this orientation."""
        return self._size[::-1] if orientation in (5, 6, 7, 8) else self._size

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


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a broken EXIF block means none."""
    try:
        value: Any = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:
        return 1


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Any of Pillow's modes as opaque 8-bit RGB or L."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    elif image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        image = Image.alpha_composite(white, colour)
    return image if image.mode == mode else image.convert(mode)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greys: full range of their kind to 0..255."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ItemError(Stage.DECODE, "corrupt", "the picture holds values that are no numbers")
    top = float(values.max(initial=0.0))
    if image.mode == "F" and top <= 1.0:
        full = 1.0
    elif top <= 65535 and image.mode != "F":
        full = 65535.0
    else:
        full = max(top, 255.0)
    return Image.fromarray(np.clip(values * (255.0 / full), 0, 255).round().astype(np.uint8))


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    if converted is None:
        raise ItemError(Stage.DECODE, "corrupt", "the LAB colours cannot be converted")
    return converted
