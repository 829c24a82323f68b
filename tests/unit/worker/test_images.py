"""Bytes to pixels: whatever a picture is stored as, it becomes what a person would see."""

from __future__ import annotations

import io
import random
import struct
import threading
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from millrace.core.card import Card
from millrace.core.errors import ItemError, Stage
from millrace.worker.images import ImageDecoder
from millrace.worker.options import MAX_PIXELS
from tests.support import random_pixels

Pixels = npt.NDArray[np.uint8]

CODES = {"empty", "not_an_image", "decompression_bomb", "truncated", "corrupt"}
RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)

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


@pytest.fixture(autouse=True)
def pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder may raise Pillow's global limit; the next test starts from Pillow's own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)


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


def attempt(using: ImageDecoder, data: bytes) -> Pixels | ItemError:
    """The one or the other; anything else raised is raised."""
    try:
        return using.decode(data)
    except ItemError as error:
        return error


def refusal(data: bytes, using: ImageDecoder | None = None) -> ItemError:
    with pytest.raises(ItemError) as caught:
        (using or decoder()).decode(data)
    assert caught.value.stage is Stage.DECODE
    assert caught.value.code in CODES
    assert not caught.value.retryable
    return caught.value


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


@pytest.mark.parametrize("form", ["EPS", "PDF"])
def test_formats_that_run_programs_are_not_read(form: str) -> None:
    assert refusal(encoded(quarters(), form)).code == "not_an_image"


# --- what is refused ---


def test_no_bytes_are_empty() -> None:
    assert refusal(b"").code == "empty"


@pytest.mark.parametrize(
    "data", [b"x", b"not a picture", b"\0" * 1000, b"<html></html>", b'{"key": 1}', b"%PDF-1.7"]
)
def test_what_is_no_picture_is_said_to_be_none(data: bytes) -> None:
    assert refusal(data).code == "not_an_image"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_picture_is_refused(form: str, part: float) -> None:
    data = encoded(Image.fromarray(random_pixels(3, (64, 64, 3))), form)
    code = refusal(data[: int(len(data) * part)]).code
    assert code in ("truncated", "corrupt", "not_an_image")
    if form == "JPEG":
        assert code == "truncated"


def test_a_picture_over_the_limit_is_a_bomb() -> None:
    data = encoded(Image.new("RGB", (101, 100)), "PNG")
    error = refusal(data, decoder(max_pixels=10_000))
    assert error.code == "decompression_bomb"
    assert "101 x 100" in error.message
    assert "10000" in error.message


def test_a_picture_at_the_limit_is_decoded() -> None:
    data = encoded(Image.new("RGB", (100, 100), RED), "PNG")
    assert (decoder(max_pixels=10_000).decode(data) == RED).all()


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises far more pixels than it holds."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize("max_pixels", [10_000, MAX_PIXELS])
def test_a_header_that_promises_a_bomb_is_refused_unread(max_pixels: int) -> None:
    error = refusal(claiming(60_000, 60_000), decoder(max_pixels=max_pixels))
    assert error.code == "decompression_bomb"


def test_our_limit_decides_where_it_is_above_pillows() -> None:
    using = decoder(max_pixels=4_000_000_000)
    assert refusal(claiming(60_000, 60_000), using).code == "truncated"
    assert refusal(claiming(70_000, 70_000), using).code == "decompression_bomb"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "ICO"]),
    seed=st.integers(0, 2**32),
    edits=st.integers(1, 12),
)
def test_any_damage_is_a_picture_or_a_typed_error(form: str, seed: int, edits: int) -> None:
    data = bytearray(encoded(quarters(), form))
    chance = random.Random(seed)
    for _ in range(edits):
        data[chance.randrange(len(data))] = chance.randrange(256)
    outcome = attempt(decoder(max_pixels=1_000_000), bytes(data))
    if isinstance(outcome, ItemError):
        assert outcome.stage is Stage.DECODE
        assert outcome.code in CODES
    else:
        assert outcome.shape == (8, 8, 3)


# --- geometry ---


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
