"""Photographs and difficult files of others, decoded as they are."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.card import Card
from millrace.core.errors import ItemError, Stage
from millrace.worker.images import ImageDecoder
from millrace.worker.options import MAX_PIXELS
from tests.unit.worker.pictures import CODES, apart

SIDE = 96
EACH_WITHIN_S = 5

Outcomes = dict[str, npt.NDArray[np.uint8] | ItemError]


def decode(file: Path, **facts: Any) -> npt.NDArray[np.uint8]:
    card = Card.make(name="made", signature="s", height=SIDE, width=SIDE, **facts)
    return ImageDecoder(card, max_pixels=MAX_PIXELS).decode(file.read_bytes())


def attempt(file: Path) -> npt.NDArray[np.uint8] | ItemError:
    """The one or the other; anything else raised is raised."""
    try:
        return decode(file)
    except ItemError as error:
        return error


def files(folder: Path) -> list[Path]:
    """Every picture of a folder; its list is the one file that is none."""
    return sorted(file for file in folder.iterdir() if file.name != "LIST.json")


def test_every_photograph_decodes(real: Path) -> None:
    photographs = files(real / "images")
    assert photographs
    for file in photographs:
        for channels, depth in (("RGB", 3), ("L", 1)):
            pixels = decode(file, channels=channels)
            assert pixels.shape == (SIDE, SIDE, depth), file.name
            assert pixels.dtype == np.uint8
            assert np.ptp(pixels) > 60, file.name  # a photograph has light and dark


@pytest.fixture(scope="module")
def outcomes(real: Path) -> Outcomes:
    """What became of every difficult file."""
    found = {}
    for file in files(real / "nasty"):
        started = time.monotonic()
        found[file.name] = attempt(file)
        assert time.monotonic() - started < EACH_WITHIN_S, file.name
    return found


def test_every_difficult_file_is_a_picture_or_a_typed_error(outcomes: Outcomes) -> None:
    codes: dict[str, str] = {}
    for name, outcome in outcomes.items():
        if isinstance(outcome, ItemError):
            assert outcome.stage is Stage.DECODE, name
            assert outcome.code in CODES, name
            codes[name] = outcome.code
        else:
            assert outcome.shape == (SIDE, SIDE, 3), name
            assert outcome.dtype == np.uint8
    expected = {
        "Pillow__decompression_bomb.ico": "decompression_bomb",
        "Pillow__truncated_jpeg.jpg": "truncated",
        "Pillow__test-ole-file.doc": "not_an_image",
        "Pillow__drawing.wmf": "not_an_image",
    }
    assert {name: codes.get(name) for name in expected} == expected


def test_what_others_could_decode_is_decoded(real: Path, outcomes: Outcomes) -> None:
    """Nothing is refused that Pillow, asked to read any of its formats, could read."""
    listed = json.loads((real / "nasty" / "LIST.json").read_text())
    readable = [entry["file"] for entry in listed if entry["pillow"] == "ok"]
    assert len(readable) > 80
    assert [name for name in readable if isinstance(outcomes[name], ItemError)] == []


@pytest.mark.parametrize("method", ["stretch", "pad", "crop"])
def test_the_hoppers_in_every_orientation_agree(method: str, real: Path) -> None:
    upright = decode(real / "images" / "Pillow__hopper.jpg", resize=method)
    family = sorted((real / "nasty").glob("Pillow__hopper_orientation_*"))
    assert len(family) >= 7
    for file in family:
        assert apart(decode(file, resize=method), upright) < 4, file.name


@pytest.mark.parametrize("scene", ["landscape", "portrait"])
def test_a_scene_stored_in_every_orientation_agrees(scene: str, real: Path) -> None:
    stored = [
        decode(real / "nasty" / f"exif-samples__jpg_orientation_{scene}_{n}.jpg")
        for n in range(1, 9)
    ]
    for other in stored[2:]:
        assert apart(other, stored[1]) < 3
    # The first file of each scene has other colours than its seven twins, which carry an
    # embedded profile; the picture itself is the same.
    together = np.corrcoef(stored[0].ravel(), stored[1].ravel())[0, 1]
    assert together > 0.95


def test_a_turned_fax_reads_from_left_to_right(real: Path) -> None:
    """A line of text, lying on its side in the file: upright it is wider than high."""
    pixels = decode(real / "nasty" / "Pillow__g4_orientation_6.tif", resize="pad")
    paper = (pixels[:, :, 0] > 127).nonzero()
    assert np.ptp(paper[1]) > np.ptp(paper[0])
