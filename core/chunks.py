"""Chunk number ↔ manifest part and rows: arithmetic, so a message needs only the number."""

from __future__ import annotations

from dataclasses import dataclass

PART_ROWS = 8192
DEFAULT_CHUNK_SIZE = 128


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How a job's manifest is cut: every part but the last holds `rows_per_part` rows."""

    chunk_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_size <= PART_ROWS:
            raise ValueError(f"chunk size must be from 1 to {PART_ROWS}, not {self.chunk_size}")

    @property
    def chunks_per_part(self) -> int:
        return PART_ROWS // self.chunk_size

    @property
    def rows_per_part(self) -> int:
        """At most 8192, and a multiple of the chunk size."""
        return self.chunks_per_part * self.chunk_size

    def part_of(self, chunk: int) -> int:
        return chunk // self.chunks_per_part

    def rows_of(self, chunk: int) -> slice:
        """The chunk's rows within its part; the last chunk of a job may have fewer."""
        start = chunk % self.chunks_per_part * self.chunk_size
        return slice(start, start + self.chunk_size)

    def chunks_of(self, part: int, rows: int) -> range:
        """The numbers of the chunks of a part that holds `rows` rows."""
        first = part * self.chunks_per_part
        return range(first, first + self.chunks_in(rows))

    def chunks_in(self, rows: int) -> int:
        """How many chunks `rows` rows of a part make."""
        return -(-rows // self.chunk_size)
