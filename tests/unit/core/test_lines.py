"""Lines out of blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.lines import split_lines


@given(st.lists(st.binary(max_size=5)), st.integers(1, 7))
def test_wherever_the_blocks_end_the_lines_are_the_same(parts: list[bytes], size: int) -> None:
    text = b"\n".join(part.replace(b"\n", b"") for part in parts)
    blocks = [text[at : at + size] for at in range(0, len(text), size)]
    *expected, last = text.split(b"\n")
    assert list(split_lines(blocks, 100, ValueError)) == expected + [last] * bool(last)


@pytest.mark.parametrize("blocks", [[b"a\nbbbb\nc"], [b"a\nb", b"bb", b"b"], [b"a\n", b"bbbb"]])
def test_a_line_that_is_too_long_is_named(blocks: list[bytes]) -> None:
    lines = split_lines(blocks, 3, lambda number: ValueError(f"line {number}"))
    assert next(lines) == b"a"
    with pytest.raises(ValueError, match="line 2"):
        next(lines)
