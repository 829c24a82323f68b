"""Chunk arithmetic: every row of a manifest belongs to exactly one chunk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.chunks import PART_ROWS, ChunkPlan

sizes = st.integers(1, PART_ROWS)


@given(sizes)
def test_a_part_holds_whole_chunks_and_at_most_8192_rows(size: int) -> None:
    plan = ChunkPlan(size)
    assert plan.rows_per_part == plan.chunks_per_part * size
    assert PART_ROWS - size < plan.rows_per_part <= PART_ROWS


@given(st.integers(64, PART_ROWS), st.integers(0, 5 * PART_ROWS))
def test_the_chunks_of_a_job_tile_its_rows(size: int, total: int) -> None:
    plan = ChunkPlan(size)
    full, rest = divmod(total, plan.rows_per_part)
    parts = [plan.rows_per_part] * full + [rest] * bool(rest)
    seen = []
    chunk = 0
    for part, rows in enumerate(parts):
        for _ in range(plan.chunks_in(rows)):
            assert plan.part_of(chunk) == part
            here = plan.rows_of(chunk)
            seen += [(part, here.start, min(here.stop, rows))]
            chunk += 1
    expected = [
        (part, start, min(start + size, rows))
        for part, rows in enumerate(parts)
        for start in range(0, rows, size)
    ]
    assert seen == expected


@given(sizes, st.integers(0, 2**31 - 1))
def test_a_chunk_lies_within_its_part(size: int, chunk: int) -> None:
    plan = ChunkPlan(size)
    rows = plan.rows_of(chunk)
    assert rows.stop - rows.start == size
    assert 0 <= rows.start < rows.stop <= plan.rows_per_part


@pytest.mark.parametrize("size", [0, -1, PART_ROWS + 1])
def test_a_chunk_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 8192"):
        ChunkPlan(size)


def test_no_rows_make_no_chunks() -> None:
    assert ChunkPlan(128).chunks_in(0) == 0
