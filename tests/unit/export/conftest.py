"""Places to publish at, and what is published."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from tests.unit.export.publishing import write_bundle


@pytest.fixture
def stores() -> Stores:
    return Stores(Settings.load())


@pytest.fixture(params=["file", "s3"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty repository: a directory, then a bucket."""
    if request.param == "file":
        return Location.parse(str(tmp_path / "library"))
    return Location.parse(f"s3://{request.getfixturevalue('bucket')}/models")


@pytest.fixture
def place(library: Location) -> Location:
    return library.child("tiny").child("1")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps what it needs for a moment."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture(params=["saved_model.pb", "saved_model.pbtxt"])
def theirs(request: pytest.FixtureRequest, stores: Stores, place: Location) -> dict[str, bytes]:
    """A SavedModel of others, which has no card."""
    files = {request.param: b"their graph", "variables/variables.data": b"their weights"}
    files["variables/more.data"] = b"which we do not have"
    for name, data in files.items():
        stores.open(place).put(place.prefix + name, data)
    return files
