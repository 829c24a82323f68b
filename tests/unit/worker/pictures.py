"""Pictures made for the decoder, decoders for them, and how far apart the pixels may be."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from millrace.core.card import Card
from millrace.core.errors import ItemError, Stage
from millrace.worker.images import ImageDecoder
from millrace.worker.options import MAX_PIXELS

Pixels = npt.NDArray[np.uint8]

CODES = {"empty", "not_an_image", "decompression_bomb", "truncated", "corrupt"}
RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)


def decoder(
    height: int = 8, width: int = 8, *, max_pixels: int = MAX_PIXELS, **facts: Any
) -> ImageDecoder:
    card = Card.make(name="made", signature="s", height=height, width=width, **facts)
    return ImageDecoder(card, max_pixels=max_pixels)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def quarters() -> Image.Image:
    """60 × 40, a colour in each quarter and a grey corner: no turn or flip is like another."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:] = RED, GREEN
    pixels[20:, :30], pixels[20:, 30:] = BLUE, WHITE
    pixels[:8, :8] = 128
    return Image.fromarray(pixels)


def apart(one: Pixels, other: Pixels | Image.Image) -> float:
    """Mean absolute difference in grey levels."""
    difference = one.astype(np.int64) - np.asarray(other).astype(np.int64)
    return float(np.abs(difference).mean())


def refusal(data: bytes, using: ImageDecoder | None = None) -> ItemError:
    """The error a decoder refuses `data` with."""
    with pytest.raises(ItemError) as caught:
        (using or decoder()).decode(data)
    assert caught.value.stage is Stage.DECODE
    assert caught.value.code in CODES
    assert not caught.value.retryable
    return caught.value
