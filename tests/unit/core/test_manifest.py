"""Manifest lines: what was listed is what is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.errors import CorruptRecord
from millrace.core.manifest import ManifestRow, decode_row, encode_rows

keys = st.text(max_size=40)
rows = st.lists(
    st.builds(
        ManifestRow,
        key=keys,
        etag=st.none() | keys,
        size=st.none() | st.integers(0, 2**63 - 1),
    ),
    max_size=20,
)


@given(rows)
def test_rows_are_read_back_as_they_were_written(rows: list[ManifestRow]) -> None:
    lines = encode_rows(rows).splitlines()
    assert [decode_row(line) for line in lines] == rows


@pytest.mark.parametrize(
    "key",
    [
        "a\nb",
        "a\r\nb",
        "line\u2028separator",
        "\x85",
        "\x00",
        "naïve",
        "e\u0301",
        "🦄",
        '"\\',
        "a\x1cb",
    ],
)
def test_a_key_never_breaks_its_line(key: str) -> None:
    body = encode_rows([ManifestRow(key), ManifestRow("next")])
    assert [decode_row(line).key for line in body.splitlines()] == [key, "next"]


def test_a_line_is_key_etag_and_size() -> None:
    assert encode_rows([ManifestRow("a.jpg", '"1"', 9)]) == (
        b'{"key":"a.jpg","etag":"\\"1\\"","size":9}\n'
    )


def test_no_rows_are_an_empty_part() -> None:
    assert encode_rows([]) == b""


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"a.jpg",
        b"null",
        b"5",
        b'"key"',
        b"[]",
        b"{}",
        b'{"key":"a"}',
        b'{"key":"a","etag":null}',
        b'{"key":5,"etag":null,"size":1}',
        b'{"key":null,"etag":null,"size":1}',
        b'{"key":"a","etag":5,"size":1}',
        b'{"key":"a","etag":null,"size":"1"}',
        b'{"key":"a","etag":null,"size":1',
        b'{"key":"\xff","etag":null,"size":1}',
    ],
)
def test_a_foreign_line_is_a_corrupt_record(line: bytes) -> None:
    with pytest.raises(CorruptRecord, match="not a manifest line"):
        decode_row(line)
