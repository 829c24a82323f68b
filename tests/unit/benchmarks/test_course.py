"""Pictures of somebody's own, before any model is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import course
from benchmarks.inputs import jpegs
from benchmarks.tables import Workload

OWN = Workload(model="mobilenetv2", inputs="own", storage="disk")


def test_pictures_of_ones_own_need_a_directory_that_holds_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "WORK", tmp_path / "work")
    with pytest.raises(ValueError, match="--pictures DIR"):
        course.lay_out(OWN, None)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="holds no JPEGs"):
        course.lay_out(OWN, tmp_path)


def test_they_are_copied_for_links_do_not_reach_another_file_system(tmp_path: Path) -> None:
    own, kept = tmp_path / "own", tmp_path / "work"
    own.mkdir()
    kept.mkdir()
    (kept / "of-last-time.jpg").write_bytes(b"old")
    for name in ("b.JPG", "a.jpeg"):
        (own / name).write_bytes(name.encode())
    copies = course.copied(jpegs(own), kept)
    assert [path.name for path in copies] == ["a.jpeg", "b.JPG"]
    assert sorted(kept.iterdir()) == copies
    assert [path.read_bytes() for path in copies] == [b"a.jpeg", b"b.JPG"]


def test_the_same_course_from_elsewhere_differs_in_its_storage_alone(tmp_path: Path) -> None:
    disk = course.Course(OWN, tmp_path, [], {}, tmp_path)
    s3 = disk.with_storage("s3")
    assert s3.workload.storage == "s3"
    assert s3.with_storage("disk") == disk


def test_pictures_that_lie_there_already_are_not_taken_away(tmp_path: Path) -> None:
    kept = tmp_path / "a.jpg"
    kept.write_bytes(b"mine")
    assert course.copied([kept], tmp_path) == [kept]
    assert kept.read_bytes() == b"mine"
