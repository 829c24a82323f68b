"""A TIFF's tiles count as what is decoded, however small its picture says it is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import pytest

from millrace.core.errors import ItemError
from millrace.core.pictures import allow_pixels, opened
from millrace.core.tiff import LENGTH, WIDTH, tile_size

SIDE = 16
BYTE, SHORT, LONG, SIGNED, LONG8 = 1, 3, 4, 9, 16
Entry = tuple[int, int, int]


def tiled(tile: Sequence[Entry], *, order: str = "<", big: bool = False) -> bytes:
    """A grey picture of 16 × 16 in one deflated tile, whose size these entries of (tag, kind,
    value) say."""
    whole = {tag: value for tag, _, value in tile}
    data = zlib.compress(bytes(min(whole[WIDTH] * whole[LENGTH], 1 << 24)))
    entries = [
        (256, LONG, SIDE), (257, LONG, SIDE), (258, SHORT, 8), (259, SHORT, 8), (262, SHORT, 1),
        (277, SHORT, 1), *tile, (324, LONG, 0), (325, LONG, len(data)),
    ]  # fmt: skip
    count, entry, first = ("Q", "HHQ", 16) if big else ("H", "HHL", 8)
    room = 8 if big else 4
    size = struct.calcsize(order + entry) + room
    at = first + struct.calcsize(order + count) + len(entries) * size + room
    head = struct.pack(order + ("HHHQ" if big else "HL"), *((43, 8, 0) if big else (42,)), first)
    out = (b"II" if order == "<" else b"MM") + head + struct.pack(order + count, len(entries))
    kinds = {BYTE: "B", SHORT: "H", LONG: "L", SIGNED: "l", LONG8: "Q"}
    for tag, kind, value in entries:
        said = struct.pack(order + kinds[kind], at if tag == 324 else value)
        out += struct.pack(order + entry, tag, kind, 1) + said.ljust(room, b"\0")
    return out + bytes(room) + data


def refusal(data: bytes, max_pixels: int = 10_000) -> ItemError:
    with pytest.raises(ItemError) as refused, opened(data, max_pixels=max_pixels) as image:
        image.load()
    return refused.value


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_a_picture_in_tiles_is_decoded_up_to_the_limit(order: str, big: bool, kind: int) -> None:
    data = tiled([(WIDTH, kind, 112), (LENGTH, kind, 80)], order=order, big=big)
    with opened(data, max_pixels=112 * 80) as image:
        image.load()
        assert image.size == (SIDE, SIDE)
    assert refusal(data, 112 * 80 - 1).code == "decompression_bomb"


def test_a_directory_that_pillow_does_not_read_is_read_as_libtiff_does() -> None:
    data = tiled([(WIDTH, LONG8, 112), (LENGTH, LONG8, 80)], order=">", big=True)
    assert tile_size(data, 16) == (112, 80)


@pytest.mark.parametrize("widths", [[16, 4096], [4096, 16], [1 << 31]])
def test_the_largest_tile_that_is_said_counts(widths: list[int]) -> None:
    data = tiled([*((WIDTH, LONG, width) for width in widths), (LENGTH, LONG, 4096)])
    assert refusal(data).code == "decompression_bomb"


def test_a_size_that_each_reads_in_its_own_way_is_refused() -> None:
    error = refusal(tiled([(WIDTH, SIGNED, 4096), (WIDTH, LONG, 16), (LENGTH, LONG, 4096)]))
    assert (error.code, "no number" in error.message) == ("corrupt", True)


def test_libtiff_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    allow_pixels(10_000)
    data = tiled([(WIDTH, LONG, 16), (LENGTH, LONG, 16)])
    assert refusal(data[:-6] + b"xxxxxx").stage == "decode"
    assert capfd.readouterr().err == ""


def test_a_directory_cut_off_is_an_error_of_the_picture() -> None:
    data = tiled([(WIDTH, LONG, 16), (LENGTH, LONG, 16)])
    assert refusal(data[:60]).code in ("corrupt", "not_an_image", "truncated")
