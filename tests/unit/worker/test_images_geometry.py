"""A picture is turned upright and resized to the model's input as its card says."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import random_pixels
from tests.unit.worker.pictures import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    WHITE,
    apart,
    decoder,
    encoded,
    quarters,
)

pytestmark = pytest.mark.usefixtures("pillows_own_limit")

STORED_AS = {
    # How the pixels of an upright picture are stored under each EXIF orientation.
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


# --- orientation ---

FORMATS: dict[str, tuple[dict[str, Any], float]] = {
    "PNG": ({}, 0.5),
    "JPEG": ({"quality": 98, "subsampling": 0}, 2.0),
    "WEBP": ({"lossless": True}, 0.5),
    "TIFF": ({}, 0.5),
    "AVIF": ({"quality": 95}, 6.0),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stored_in_any_orientation_is_upright(form: str, orientation: int) -> None:
    options, tolerance = FORMATS[form]
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = STORED_AS[orientation]
    stored = quarters() if turn is None else quarters().transpose(turn)
    pixels = decoder(40, 60).decode(encoded(stored, form, exif=exif, **options))
    assert apart(pixels, quarters()) < tolerance


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_tiff_is_upright_however_compressed(compression: str, orientation: int) -> None:
    turn = STORED_AS[orientation]
    assert turn is not None
    data = encoded(
        quarters().transpose(turn), "TIFF", compression=compression, tiffinfo={0x0112: orientation}
    )
    assert apart(decoder(40, 60).decode(data), quarters()) < 6


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_turning_and_resizing_agree(resize: str, orientation: int, form: str) -> None:
    """The decoder resizes first and turns the small picture: it must look the same.

    A TIFF has been turned by Pillow before, for it does so on loading.
    """
    using = decoder(24, 18, resize=resize)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = STORED_AS[orientation]
    assert turn is not None
    turned = encoded(quarters().transpose(turn), form, exif=exif)
    assert apart(using.decode(turned), using.decode(encoded(quarters(), "PNG"))) < 3


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert apart(decoder(40, 60).decode(encoded(quarters(), "PNG", exif=exif)), quarters()) == 0


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x09\xff\xff\xff\xff\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x06\0\0\0\xff\xff\0\0\0\0\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
    ],
)
def test_a_broken_exif_block_does_no_harm(block: bytes) -> None:
    plain = encoded(quarters(), "JPEG", quality=98, subsampling=0)
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    pixels = decoder(40, 60).decode(plain[:2] + segment + plain[2:])
    assert apart(pixels, quarters()) < 2


# --- size ---


def halves(width: int, height: int) -> bytes:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height))
    return encoded(image, "PNG")


def bands(width: int, height: int, *shares: tuple[float, tuple[int, int, int]]) -> bytes:
    """Vertical bands, each up to its share of the width."""
    image = Image.new("RGB", (width, height))
    left = 0
    for share, colour in shares:
        image.paste(colour, (left, 0, round(width * share), height))
        left = round(width * share)
    return encoded(image, "PNG")


@pytest.mark.parametrize(("width", "height"), [(64, 16), (16, 64), (128, 128), (8, 100)])
def test_stretching_keeps_the_halves_halves(width: int, height: int) -> None:
    pixels = decoder(32, 32, resize="stretch").decode(halves(width, height))
    assert (pixels[:, :12] == RED).all()
    assert (pixels[:, 20:] == BLUE).all()


def test_cropping_cuts_the_middle_out() -> None:
    wide = bands(300, 100, (1 / 3, RED), (2 / 3, GREEN), (1, BLUE))
    pixels = decoder(32, 32, resize="crop").decode(wide)
    assert apart(pixels[:, 2:-2], np.broadcast_to(np.array(GREEN, np.uint8), (32, 28, 3))) < 1


def test_cropping_a_tall_picture_cuts_above_and_below() -> None:
    tall = Image.new("RGB", (100, 300), RED)
    tall.paste(GREEN, (0, 100, 100, 200))
    pixels = decoder(32, 32, resize="crop").decode(encoded(tall, "PNG"))
    assert apart(pixels[2:-2], np.broadcast_to(np.array(GREEN, np.uint8), (28, 32, 3))) < 1


def test_padding_lays_bars_of_black() -> None:
    pixels = decoder(32, 32, resize="pad").decode(encoded(Image.new("RGB", (64, 32), WHITE), "PNG"))
    assert (pixels[:8] == BLACK).all()
    assert (pixels[8:24] == WHITE).all()
    assert (pixels[24:] == BLACK).all()


def test_padding_a_tall_picture_lays_them_at_the_sides() -> None:
    pixels = decoder(32, 32, resize="pad").decode(encoded(Image.new("RGB", (16, 64), WHITE), "PNG"))
    assert (pixels[:, :12] == BLACK).all()
    assert (pixels[:, 12:20] == WHITE).all()
    assert (pixels[:, 20:] == BLACK).all()


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (8, 8), (16, 16)])
def test_the_thinnest_pictures_fit(resize: str, size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, RED), "PNG")
    pixels = decoder(8, 16, resize=resize).decode(data)
    assert pixels.shape == (8, 16, 3)
    assert (pixels == RED).all(axis=2).any()


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_at_the_same_aspect_every_way_of_resizing_is_one(resize: str) -> None:
    pixels = decoder(20, 30, resize=resize).decode(encoded(quarters(), "PNG"))
    expected = quarters().resize((30, 20), Image.Resampling.BILINEAR)
    assert apart(pixels, expected) < 1


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_the_cards_filter_resizes(name: str) -> None:
    image = Image.fromarray(random_pixels(4, (40, 40, 3)))
    expected = image.resize((60, 60), Image.Resampling[name.upper()])
    pixels = decoder(60, 60, filter=name).decode(encoded(image, "PNG"))
    assert apart(pixels, expected) < 1


def test_a_jpeg_decoded_at_reduced_scale_is_close_to_the_full_decode() -> None:
    y, x = np.mgrid[0:1600, 0:2400]
    scene = np.stack(
        [127 + 120 * np.sin(x / 190 + y / 310), 255 * y / 1600, 127 + 120 * np.cos(x * y / 4e5)], -1
    )
    data = encoded(Image.fromarray(scene.astype(np.uint8)), "JPEG", quality=92)
    for resize in ("stretch", "crop", "pad"):
        using = decoder(224, 224, resize=resize)
        with Image.open(io.BytesIO(data)) as full:
            whole = encoded(full, "BMP")  # a format that only decodes whole
        assert apart(using.decode(data), using.decode(whole)) < 2


def test_a_jpeg_hardly_larger_than_the_input_is_decoded_whole() -> None:
    image = Image.fromarray(random_pixels(6, (300, 300, 3)))
    data = encoded(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as full:
        expected = full.resize((224, 224), Image.Resampling.BILINEAR)
    assert apart(decoder(224, 224).decode(data), expected) < 1
