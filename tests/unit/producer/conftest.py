"""Fixtures of the producer's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core import chunks
from millrace.core.services import Services
from tests.unit.producer.half_listed import PART, HalfListed


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest's parts hold `PART` rows."""
    monkeypatch.setattr(chunks, "PART_ROWS", PART)


@pytest.fixture
def photos(tmp_path: Path, small_parts: None) -> Path:
    """Ten files that pass for images: three parts of a manifest."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"x" * number)
    return folder


@pytest.fixture
def half(services: Services, photos: Path, tmp_path: Path) -> HalfListed:
    """Ten files, of which one part is listed and told."""
    return HalfListed(services, str(photos), str(tmp_path / "out")).die_after(1, 1)
