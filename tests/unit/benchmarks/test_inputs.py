"""Pictures: the same on every machine, and as heavy as photographs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.inputs import KINDS, jpeg, link_many, picture_of, write_set

SMALL = KINDS["small"]


def test_a_picture_is_the_same_bytes_every_time() -> None:
    assert jpeg(SMALL, 3) == jpeg(SMALL, 3)
    assert jpeg(SMALL, 3) != jpeg(SMALL, 4)


def test_small_pictures_weigh_what_photographs_of_their_size_do() -> None:
    for number in range(4):
        data = jpeg(SMALL, number)
        assert 40_000 < len(data) < 120_000
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (500, 375), "RGB")


def test_large_ones_have_twelve_megapixels() -> None:
    large = KINDS["large"]
    assert large.width * large.height == 12_000_000


def test_a_set_is_written_once(tmp_path: Path) -> None:
    few = replace(SMALL, distinct=3)
    paths = write_set(few, tmp_path)
    written = [path.stat().st_mtime_ns for path in paths]
    assert write_set(few, tmp_path) == paths
    assert [path.stat().st_mtime_ns for path in paths] == written
    assert len({path.read_bytes() for path in paths}) == 3


def test_any_number_of_files_is_links_to_the_few(tmp_path: Path) -> None:
    pictures = []
    for number in range(3):
        pictures.append(tmp_path / f"{number}.jpg")
        pictures[-1].write_bytes(bytes([number]))
    link_many(pictures, 5, tmp_path / "many")
    link_many(pictures, 4, tmp_path / "many")
    files = sorted((tmp_path / "many").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.jpg" for number in range(4)]
    for file in files:
        assert file.samefile(pictures[picture_of(file.name, 3)])


@pytest.mark.parametrize(("name", "picture"), [("000000.jpg", 0), ("a/b/000257.jpg", 1)])
def test_a_files_name_tells_its_picture(name: str, picture: int) -> None:
    assert picture_of(name, 256) == picture
