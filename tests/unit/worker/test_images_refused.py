"""What is no picture, damaged or too large is refused with a code; nothing else is raised."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from millrace.core.errors import ItemError, Stage
from millrace.worker.images import ImageDecoder
from millrace.worker.options import MAX_PIXELS
from tests.support import random_pixels
from tests.unit.worker.pictures import CODES, RED, Pixels, decoder, encoded, quarters, refusal

pytestmark = pytest.mark.usefixtures("pillows_own_limit")


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


def attempt(using: ImageDecoder, data: bytes) -> Pixels | ItemError:
    """The one or the other; anything else raised is raised."""
    try:
        return using.decode(data)
    except ItemError as error:
        return error


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
