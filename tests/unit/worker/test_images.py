"""Bytes to pixels: whatever a picture is stored as, it becomes what a person would see."""

from __future__ import annotations

import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support import random_pixels
from tests.unit.worker.pictures import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    WHITE,
    decoder,
    encoded,
    quarters,
    refusal,
)

pytestmark = pytest.mark.usefixtures("pillows_own_limit")


# --- what comes out ---


@pytest.mark.parametrize(("channels", "depth"), [("RGB", 3), ("BGR", 3), ("L", 1)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_any_mode_becomes_the_cards_input(channels: str, depth: int, mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    data = encoded(Image.new(mode, (31, 17)), form)
    pixels = decoder(12, 20, channels=channels).decode(data)
    assert pixels.shape == (12, 20, depth)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_a_picture_of_the_right_size_keeps_every_value() -> None:
    pixels = random_pixels(1, (8, 8, 3))
    assert (decoder().decode(encoded(Image.fromarray(pixels), "PNG")) == pixels).all()


def test_bgr_is_left_to_the_graph() -> None:
    """The decoder gives RGB in either case; the session turns it round."""
    data = encoded(Image.new("RGB", (8, 8), RED), "PNG")
    assert (decoder(channels="BGR").decode(data) == RED).all()


def test_grey_is_luminance() -> None:
    grey = decoder(channels="L").decode(encoded(Image.new("RGB", (9, 9), GREEN), "PNG"))
    assert (grey == 150).all()


def test_a_grey_picture_has_three_equal_channels_in_colour() -> None:
    values = random_pixels(2, (8, 8))
    pixels = decoder().decode(encoded(Image.fromarray(values), "PNG"))
    assert (pixels == values[:, :, np.newaxis]).all()


def test_one_decoder_serves_several_threads() -> None:
    using = decoder(40, 60)
    pictures = [encoded(Image.fromarray(random_pixels(n, (40, 60, 3))), "PNG") for n in range(4)]
    same: list[bool] = []

    def work(n: int) -> None:
        same.extend(
            bool((using.decode(pictures[n]) == random_pixels(n, (40, 60, 3))).all())
            for _ in range(20)
        )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert same == [True] * 80


# --- modes a person would not think about ---


def test_cmyk_looks_as_printed() -> None:
    inks = {
        (0, 255, 255, 0): RED,
        (255, 0, 255, 0): GREEN,
        (0, 0, 0, 255): BLACK,
        (0, 0, 0, 0): WHITE,
    }
    for ink, colour in inks.items():
        for form, options in (("JPEG", {"quality": 98}), ("TIFF", {})):
            pixels = decoder().decode(encoded(Image.new("CMYK", (16, 16), ink), form, **options))
            assert np.abs(pixels.astype(int) - colour).max() <= 4, (ink, form)


@pytest.mark.parametrize(
    ("mode", "form"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF")]
)
@pytest.mark.parametrize("channels", ["RGB", "L"])
def test_sixteen_bits_are_scaled_not_clipped(mode: str, form: str, channels: str) -> None:
    ramp = np.linspace(0, 65535, 64).reshape(8, 8)
    kind = {"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
    image = Image.fromarray(ramp.astype(kind))
    assert image.mode == mode
    pixels = decoder(channels=channels).decode(encoded(image, form))
    assert np.abs(pixels.astype(float) - (ramp / 257)[:, :, np.newaxis]).max() <= 1


def test_sixteen_bits_in_three_channels() -> None:
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + struct.pack(">HHH", 65535, 32768, 0) * 8 for _ in range(8))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    pixels = decoder().decode(data + chunk(b"IEND", b""))
    assert np.abs(pixels.astype(int) - (255, 128, 0)).max() <= 1


@pytest.mark.parametrize("top", [1.0, 255.0, 4095.0])
def test_floats_fill_the_range_of_their_kind(top: float) -> None:
    ramp = np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)
    pixels = decoder(channels="L").decode(encoded(Image.fromarray(ramp), "TIFF"))
    assert np.abs(pixels[:, :, 0].astype(float) - ramp / top * 255).max() <= 1


def test_negative_floats_are_black() -> None:
    ramp = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    pixels = decoder(channels="L").decode(encoded(Image.fromarray(ramp), "TIFF"))
    assert (pixels[:4] == 0).all()
    assert pixels[7, 7] == 255


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_no_numbers_are_refused(value: float) -> None:
    ramp = np.full((8, 8), value, np.float32)
    assert refusal(encoded(Image.fromarray(ramp), "TIFF")).code == "corrupt"


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_is_white(form: str) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (255, 0, 0, 255)
    pixels[:, 4:] = (0, 0, 255, 0)
    options = {"lossless": True} if form == "WEBP" else {}
    decoded = decoder().decode(encoded(Image.fromarray(pixels), form, **options))
    assert (decoded[:, :4] == RED).all()
    assert (decoded[:, 4:] == WHITE).all()


def test_what_is_half_transparent_is_half_white() -> None:
    decoded = decoder().decode(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128)), "PNG"))
    assert np.abs(decoded.astype(int) - (255, 127, 127)).max() <= 1


def test_grey_with_alpha_is_laid_on_white() -> None:
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[:4, :, 1] = 255
    decoded = decoder(channels="L").decode(encoded(Image.fromarray(pixels, "LA"), "PNG"))
    assert (decoded[:4] == 0).all()
    assert (decoded[4:] == 255).all()


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(form: str) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*BLUE, *RED, *GREEN])
    image.paste(1, (0, 0, 4, 8))
    decoded = decoder().decode(encoded(image, form, transparency=0))
    assert (decoded[:, :4] == RED).all()
    assert (decoded[:, 4:] == WHITE).all()


def test_a_transparent_colour_of_an_rgb_png_is_white() -> None:
    image = Image.new("RGB", (8, 8), BLUE)
    image.paste(RED, (0, 0, 4, 8))
    decoded = decoder().decode(encoded(image, "PNG", transparency=BLUE))
    assert (decoded[:, :4] == RED).all()
    assert (decoded[:, 4:] == WHITE).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_is_black_and_white(form: str) -> None:
    image = Image.new("1", (8, 8), 0)
    image.paste(1, (0, 0, 8, 4))
    decoded = decoder().decode(encoded(image, form))
    assert (decoded[:4] == WHITE).all()
    assert (decoded[4:] == BLACK).all()


def test_lab_shows_its_colours() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    for colour in (WHITE, BLACK, (200, 60, 60), (60, 60, 200)):
        image = ImageCms.applyTransform(Image.new("RGB", (8, 8), colour), to_lab)
        assert image is not None
        decoded = decoder().decode(encoded(image, "TIFF"))
        assert np.abs(decoded.astype(int) - colour).max() <= 8  # LAB of 8 bits is coarse


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(form: str) -> None:
    first, *others = (Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE))
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=others, **options)
    assert (decoder().decode(data) == RED).all()


@pytest.mark.parametrize(
    "form",
    ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "PCX", "SGI",
     "DDS", "QOI"],
)  # fmt: skip
def test_every_listed_format_is_read(form: str) -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50))
    decoded = decoder().decode(encoded(image, form))
    assert np.abs(decoded.astype(int) - (200, 100, 50)).max() <= 8


def test_an_icon_is_not_taken_for_a_tga() -> None:
    """Whose header it would do for, its first image being as long as it is."""
    pixels = random_pixels(5, (160, 160, 3))
    data = encoded(Image.fromarray(pixels), "ICO", sizes=[(160, 160)])
    assert data[16] == 1
    assert (decoder(160, 160).decode(data) == pixels).all()


@pytest.mark.parametrize("form", ["EPS", "PDF"])
def test_formats_that_run_programs_are_not_read(form: str) -> None:
    assert refusal(encoded(quarters(), form)).code == "not_an_image"
