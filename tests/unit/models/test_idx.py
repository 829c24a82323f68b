"""Idx files: what is one, and what only looks like one."""

from __future__ import annotations

import gzip
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from millrace.core.errors import BadData, ExitCode, ObjectNotFound
from millrace.models.idx import read_idx
from tests.unit.models.idx_files import CODES, idx_bytes, write_idx

SMALL = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train-images-idx3-ubyte"


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_type_is_read_plain_and_gzipped(kind: str, end: str, tmp_path: Path) -> None:
    values = (np.arange(12) - 3).astype(kind).reshape(3, 4)
    write_idx(tmp_path / f"some{end}", values)
    found = read_idx(tmp_path / f"some{end}")
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_content_says_whether_it_is_gzipped_not_the_name(file: Path) -> None:
    file.write_bytes(gzip.compress(idx_bytes(SMALL)))
    np.testing.assert_array_equal(read_idx(file), SMALL)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)))
def test_any_array_comes_back(values: npt.NDArray[Any]) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(idx_bytes(values))
        file.flush()
        np.testing.assert_array_equal(read_idx(Path(file.name)), values)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_array_or_a_typed_error(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with suppress(BadData):
            assert isinstance(read_idx(Path(file.name)), np.ndarray)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no idx file: it begins with nothing"),
        (b"\x00\x00", "no idx file"),
        (b"\x89PNG\r\n\x1a\n", "no idx file: it begins with 89 50 4e 47"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x01a", "no idx file"),  # no such type
        (b"\x00\x00\x08\x00", "no idx file"),  # no dimensions
        (b"\x00\x00\x08\x03\x00\x00", "ends within its header"),
        (idx_bytes(SMALL)[:-1], "truncated: 23 of 24 bytes"),
        (idx_bytes(SMALL) + b"!", "goes on after its 24 bytes"),
        (gzip.compress(idx_bytes(SMALL))[:-9], "damaged gzip file"),
        (gzip.compress(idx_bytes(SMALL))[:-8] + bytes(8), "damaged gzip file"),
        (b"\x1f\x8b\x08", "damaged gzip file"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "claims to hold"),
        (b"\x00\x00\x08\x01\x7f\xff\xff\xff", "truncated: 0 of 2,147,483,647 bytes"),
        (b"\x00\x00\x08\x41" + b"\0\0\0\1" * 65 + b"a", "a shape that no array has: 1 × 1 × 1 × …"),
        (b"\x00\x00\x08\x03" + bytes(4) + b"\xff" * 8, "no array has: 0 × 4294967295 × 4294967295"),
    ],
    ids=range(15),
)
def test_what_is_not_whole_or_not_idx_is_refused(content: bytes, words: str, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(BadData, match=words) as caught:
        read_idx(file)
    assert str(file) in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_file_that_is_not_there_is_not_found(file: Path) -> None:
    with pytest.raises(ObjectNotFound):
        read_idx(file)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="cannot be read"):
        read_idx(tmp_path)
