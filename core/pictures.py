"""Encoded pictures, opened safely: what is read, what is refused, and which way up it is.

Everything a person would expect is done (EXIF orientation, CMYK, 16 bits, palettes, alpha
on white, first frame of an animation), everything else is refused with a typed error. The one
module of the ground floor that needs Pillow and NumPy: who may do without them imports it late.
"""

from __future__ import annotations

import ctypes
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError, _imaging
from PIL.TiffImagePlugin import TiffImageFile

from millrace.core.errors import ItemError, Stage
from millrace.core.tiff import tile_size

FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000",
    "ICO", "ICNS", "PCX", "SGI", "DDS", "PSD", "QOI", "TGA",
)  # fmt: skip
"""What is decoded. Left out: formats that run other programs (EPS) or only wrap others. TGA comes
last: it has no sign of its own, and many an ICO would do for one."""

REDUCING_GAP = 3.0
"""How much larger than a model's input a picture is left by the coarse steps before the last
resize. Less would change answers more than rounding does; docs/performance.md tells what was
measured."""

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture stored in an EXIF orientation upright; 1 is upright."""

_ORIENTATION = 0x0112


def allow_pixels(max_pixels: int, *, no_more: bool = False) -> None:
    """Let `opened` alone decide what is a bomb: Pillow refuses pictures of twice its own limit.

    With `no_more` Pillow refuses larger ones as well, in the whole process: it decodes what lies
    inside an ICO before `opened` is told how large that is.

    Its remarks on odd files go nowhere; what matters becomes an error.
    """
    Image.init()
    limit = max_pixels // 2 + 1
    Image.MAX_IMAGE_PIXELS = limit if no_more else max(Image.MAX_IMAGE_PIXELS or 0, limit)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _silence_libtiff()


@cache
def _silence_libtiff() -> None:
    """It tells of damaged files on standard error, in the middle of what is written there."""
    with suppress(OSError, AttributeError):  # where Pillow was built without it
        # A library is asked for what those that it is linked to hold as well.
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


@contextmanager
def opened(
    data: bytes, *, max_pixels: int, formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """An encoded picture, of which only the header is read yet, to be decoded within the block.

    Raises ItemError of stage `decode`: `empty`, `not_an_image`, `decompression_bomb`,
    `truncated` or `corrupt`, also for what goes wrong within the block.
    """
    if not data:
        raise ItemError(Stage.DECODE, "empty", "the object holds no bytes")
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _refuse_bomb(image.size, max_pixels)
            if isinstance(image, TiffImageFile):
                _refuse_bomb(tile_size(data, image.tag_v2.offset), max_pixels)
            yield image
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


def _refuse_bomb(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ItemError(
            Stage.DECODE,
            "decompression_bomb",
            f"{width} x {height} pixels, over the limit of {max_pixels}",
        )


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a broken EXIF block means none."""
    try:
        value: Any = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:
        return 1


def flatten(image: Image.Image, mode: str) -> Image.Image:
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


_AVERAGED = ("L", "LA", "RGB", "RGBA", "CMYK")
_GREEDY = ("WEBP", "JPEG2000")
"""Their decoders take up to 20 bytes of memory a pixel, twice as many as anything else here."""
_SHOWN = tuple(name for name in FORMATS if name not in ("ICNS", "AVIF"))
"""What an ICNS or an AVIF holds may be of any size, which nothing tells before it is decoded."""


def thumbnail(data: bytes, *, side: int, max_pixels: int) -> bytes:
    """An encoded picture as a WebP of at most `side` × `side` pixels, upright; a tiny one is
    enlarged by a whole factor, its pixels left sharp. Raises as `opened` does.

    It takes up to 10 bytes of memory for each of `max_pixels`: of formats whose decoders take
    more only half as many pixels are decoded.
    """
    allow_pixels(max_pixels, no_more=True)
    with opened(data, max_pixels=max_pixels, formats=_SHOWN) as image:
        if image.format in _GREEDY:
            _refuse_bomb(image.size, max_pixels // 2)
        image.draft("RGB", (2 * side, 2 * side))
        image.load()
        stored = orientation(image)
        small = flatten(_reduced(image, 2 * side), "RGB")
        factor = side // max(small.size)
        if factor > 1:
            size = (small.width * factor, small.height * factor)
            small = small.resize(size, Image.Resampling.NEAREST)
        else:
            small = small.copy()
            small.thumbnail((side, side), reducing_gap=2.0)
        if stored in TRANSPOSE:
            small = small.transpose(TRANSPOSE[stored])
        out = io.BytesIO()
        # Without the EXIF and colour profile of the original, which may tell a place or a name.
        Image.frombytes("RGB", small.size, small.tobytes()).save(out, "WEBP", quality=82)
        return out.getvalue()


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """A picture much larger than `side` coarsely shrunk to no less than that, for what follows
    makes copies, of some modes many times as large."""
    times = max(image.size) // side
    if times < 2:
        return image
    if image.mode in _AVERAGED:
        return image.reduce(times)
    size = (max(1, image.width // times), max(1, image.height // times))
    return image.resize(size, Image.Resampling.NEAREST)
