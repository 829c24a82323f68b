"""A disk that is full, or not ours to write, is a typed error and no bug."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from millrace.core.disk import scratch, writing
from millrace.core.errors import AccessDenied, StorageUnavailable


def test_a_full_disk_is_told() -> None:
    full = Path("/dev/full")
    told = pytest.raises(StorageUnavailable, match="/dev/full cannot be written: No space")
    with told, writing(full):
        full.write_text("anything")


def test_a_refusal_is_told(tmp_path: Path) -> None:
    told = pytest.raises(AccessDenied, match="cannot be written: Permission denied")
    with told, writing(tmp_path):
        raise PermissionError(13, "Permission denied")


def test_a_scratch_directory_is_gone_afterwards() -> None:
    with scratch("test") as path:
        assert path.name.startswith("millrace-test-")
        (path / "file").touch()
    assert not path.exists()


def test_where_none_can_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    told = pytest.raises(StorageUnavailable, match="temporary directory cannot be written")
    with told, scratch("test"):
        pass
