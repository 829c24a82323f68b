"""Pictures are learnt from with the pixels that a worker will see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from millrace.core.card import Card
from millrace.models import architecture
from millrace.models.architecture import Architecture
from millrace.models.read_picture import read_picture, resized
from millrace.worker.images import ImageDecoder
from tests.support import random_pixels

GREY = replace(architecture("digits"), height=24, width=24)
COLOUR = replace(GREY, channels="RGB")


def drawn(mode: str, size: tuple[int, int] = (60, 90)) -> Image.Image:
    """A smooth picture, which JPEG keeps, with something of everything in it."""
    rough = Image.fromarray(random_pixels(3, (6, 4, 4)), "RGBA").resize(size)
    if mode == "I;16":
        values = np.asarray(rough.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(values)
    return rough.convert(mode)


def as_a_worker_sees_it(path: Path, channels: str) -> npt.NDArray[np.uint8]:
    card = Card.make(name="m", signature="s", height=24, width=24, channels=channels)
    return ImageDecoder(card, max_pixels=10**8).decode(path.read_bytes())


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("L", "png"), ("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("I;16", "png")),
        *(("1", "png"), ("LA", "png"), ("L", "jpeg"), ("RGB", "jpeg"), ("CMYK", "jpeg")),
        ("P", "gif"),
        ("RGB", "bmp"),
        ("RGBA", "webp"),
    ],
)
@pytest.mark.parametrize("facts", [GREY, COLOUR], ids=["grey", "colour"])
def test_pixels_are_those_a_worker_sees(
    mode: str, kind: str, facts: Architecture, tmp_path: Path
) -> None:
    path = tmp_path / f"picture.{kind}"
    drawn(mode).save(path)
    pixels = read_picture(path, facts)
    assert pixels is not None
    assert pixels.shape == (24, 24, 1 if facts is GREY else 3)
    np.testing.assert_array_equal(pixels, as_a_worker_sees_it(path, facts.channels))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawn("RGB").save(path, exif=exif, quality=95)
    pixels = read_picture(path, COLOUR)
    assert pixels is not None
    # The worker turns what it has resized, so that rounding differs.
    seen = as_a_worker_sees_it(path, "RGB").astype(int)
    assert np.abs(pixels.astype(int) - seen).max() <= 2


def test_large_photographs_are_those_a_worker_sees(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    drawn("RGB", (1600, 1200)).save(path)
    pixels = read_picture(path, COLOUR)
    np.testing.assert_array_equal(pixels, as_a_worker_sees_it(path, "RGB"))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_picture_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert read_picture(tmp_path / "x.png", GREY) is None


def test_a_truncated_picture_is_none(tmp_path: Path) -> None:
    drawn("RGB").save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: len(content) // 2])
    assert read_picture(tmp_path / "x.png", GREY) is None


def test_greys_are_resized_and_repeated_for_each_channel() -> None:
    images = random_pixels(1, (3, 8, 8))
    assert resized(images, GREY).shape == (3, 24, 24, 1)
    colour = resized(images, COLOUR)
    assert colour.shape == (3, 24, 24, 3)
    np.testing.assert_array_equal(colour[..., 0], colour[..., 2])
    same = resized(images, replace(GREY, height=8, width=8))
    np.testing.assert_array_equal(same[..., 0], images)
