"""One folder of pictures per class."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.errors import BadData, ObjectNotFound, UsageError
from millrace.models import architecture
from millrace.models.image_folder import read_image_folder
from tests.support import random_pixels, write_png

FACTS = architecture("digits")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures of two classes, each of one grey, so that it can be told which it is."""
    for number in range(5):
        write_png(tmp_path / "dog" / f"{number}.png", np.full((8, 8), 10 + number, np.uint8))
        write_png(tmp_path / "cat" / f"{number}.png", np.full((9, 5), 100 + number, np.uint8))
    return tmp_path


def greys(images: npt.NDArray[np.uint8]) -> set[int]:
    return {int(image[0, 0, 0]) for image in images}


def test_folders_are_classes_in_order_of_their_names(pictures: Path) -> None:
    data = read_image_folder(pictures, FACTS)
    assert data.classes == ("cat", "dog")
    assert (len(data.seen), len(data.unseen)) == (8, 2)
    assert data.skipped == ()
    for part in (data.seen, data.unseen):
        assert part.images.shape[1:] == (8, 8, 1)
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
        for image, label in zip(part.images, part.labels, strict=True):
            assert (image[0, 0, 0] >= 100) == (label == 0)
    assert greys(data.seen.images) | greys(data.unseen.images) == {
        *range(10, 15),
        *range(100, 105),
    }


def test_the_share_held_out_can_be_said(pictures: Path) -> None:
    assert len(read_image_folder(pictures, FACTS, 0.4).unseen) == 4


def test_the_same_folder_is_the_same_data(pictures: Path, tmp_path: Path) -> None:
    one = read_image_folder(pictures, FACTS)
    copy = tmp_path / "another"
    for name in ("dog", "cat"):
        shutil.copytree(pictures / name, copy / name)
    assert read_image_folder(copy, FACTS).digest() == one.digest()


def test_what_is_no_picture_is_skipped_and_named(pictures: Path) -> None:
    (pictures / "cat" / "notes.txt").write_text("no picture")
    (pictures / "dog" / "broken.png").write_bytes(b"\x89PNG")
    (pictures / "dog" / ".DS_Store").write_bytes(b"passed over")
    (pictures / "LIST.json").write_text("beside the folders")
    (pictures / ".hidden").mkdir()
    data = read_image_folder(pictures, FACTS)
    assert data.skipped == ("cat/notes.txt", "dog/broken.png")
    assert data.classes == ("cat", "dog")
    assert len(data.seen) + len(data.unseen) == 10


@pytest.mark.parametrize("what", ["nothing", "one class", "an empty class", "a level more"])
def test_what_cannot_be_learnt_from_is_refused(what: str, pictures: Path, tmp_path: Path) -> None:
    words = "neither idx files nor folders"
    if what == "nothing":
        shutil.rmtree(pictures / "cat")
        shutil.rmtree(pictures / "dog")
    elif what == "one class":
        shutil.rmtree(pictures / "cat")
        words = "one class alone, 'dog'"
    elif what == "an empty class":
        (pictures / "emu").mkdir()
        words = "emu holds no files"
    else:
        shutil.move(pictures / "cat", pictures / "train" / "cat")
        words = "train holds no files"
    with pytest.raises(BadData, match=words):
        read_image_folder(pictures, FACTS)


def test_a_class_without_one_readable_picture_is_refused(pictures: Path) -> None:
    for file in (pictures / "cat").iterdir():
        file.write_bytes(b"broken")
    with pytest.raises(BadData, match="no picture of class 'cat'"):
        read_image_folder(pictures, FACTS)


def test_a_name_of_two_lines_is_refused(pictures: Path) -> None:
    write_png(pictures / "a\nb" / "1.png", random_pixels(1, (8, 8)))
    with pytest.raises(BadData, match="one line"):
        read_image_folder(pictures, FACTS)


def test_a_place_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        read_image_folder(tmp_path / "nowhere", FACTS)


def test_a_share_that_holds_nothing_out_is_refused(pictures: Path) -> None:
    with pytest.raises(UsageError, match="cannot be split"):
        read_image_folder(pictures, FACTS, 0.01)


def test_a_name_in_another_encoding_is_refused(pictures: Path) -> None:
    """As of archives that were packed on Windows."""
    write_png(pictures / os.fsdecode(b"caf\xe9") / "1.png", random_pixels(1, (8, 8)))
    with pytest.raises(BadData, match=r"'caf\\udce9' names a class, and is not in UTF-8"):
        read_image_folder(pictures, FACTS)
