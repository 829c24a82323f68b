"""Bitmaps as Redis keeps them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millrace.core.bitmaps import bitmap, clear_bits, set_bits

NUMBERS = st.sets(st.integers(0, 200))


@given(NUMBERS)
def test_bits_are_read_as_they_were_set(numbers: set[int]) -> None:
    assert list(set_bits(bitmap(numbers))) == sorted(numbers)


@given(NUMBERS, st.integers(0, 230))
def test_the_clear_bits_are_the_others_below_an_end(numbers: set[int], end: int) -> None:
    assert list(clear_bits(bitmap(numbers), end)) == sorted(set(range(end)) - numbers)


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_full_bitmap_has_clear_bits_only_beyond_its_own_end(full: int, end: int) -> None:
    assert list(clear_bits(bitmap(range(full)), end)) == list(range(full, end))
