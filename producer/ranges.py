"""A job's outcomes by where they stand in the manifest: from one row on, so many of them.

A cursor is a row of the manifest. Rows whose chunk is not finished are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from millrace.core.bitmaps import set_bits
from millrace.core.errors import CorruptRecord
from millrace.core.jobdir import JobDirectory
from millrace.core.outcome import decode_outcome
from millrace.core.record import JobRecord
from millrace.core.services import Services

PAGE_BYTES = 8 * 1024 * 1024
"""A page of errors ends with the line that goes beyond."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `start` to `stop` of the manifest that have an outcome: whole chunks, cut at the ends.
    `next_row` is where the next range begins; None if nothing finished follows."""

    chunks: list[int] | None
    """None for all that are finished, from the one that holds `start`."""
    start: int
    stop: int
    next_row: int | None


class OutcomeRanges:
    """The finished chunks of one job, as Redis knew them when this was made.

    Raises JobNotFound, LocationNotAllowed, and while reading what the store raises.
    """

    def __init__(self, services: Services, job: str) -> None:
        self.record: JobRecord = services.jobs.record(job)
        spec = self.record.spec
        services.stores.allowed.check(spec.input.uri, spec.output)
        self._plan = spec.plan
        self._directory = JobDirectory(services.stores, spec.directory)
        self._jobs, self._job = services.jobs, job

    def results(self, start: int = 0, limit: int | None = None) -> Rows:
        """At most `limit` outcomes from the row `start` on."""
        finished = _from_row(self._jobs.done_bitmap(self._job), start, self._plan.chunk_size)
        if limit is None:
            return Rows(None, start, self.record.counts.total, None)
        chunks, left = list[int](), limit
        stop = start
        for chunk in finished:
            first, end = self._rows(chunk)
            first = max(first, start)
            if first >= end:
                continue
            if left == 0:
                return Rows(chunks, start, stop, first)
            chunks.append(chunk)
            stop = min(end, first + left)
            left -= stop - first
            if stop < end:
                return Rows(chunks, start, stop, stop)
        return Rows(chunks, start, stop, None)

    def blocks(self, rows: Rows) -> Iterator[bytes]:
        """The raw lines of a range, a chunk's at a time. Raises CorruptRecord if an object that was
        written is gone: what is left is not what came of every image."""
        chunks = rows.chunks
        if chunks is None:
            done = self._jobs.done_bitmap(self._job)
            chunks = [*_from_row(done, rows.start, self._plan.chunk_size)]
        for chunk, body in self._bodies(chunks):
            first = chunk * self._plan.chunk_size
            if first >= rows.start and first + self._plan.chunk_size <= rows.stop:
                yield body
                continue
            lines = body.splitlines(keepends=True)
            yield b"".join(lines[max(0, rows.start - first) : max(0, rows.stop - first)])

    def errors(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The error lines from the row `start` on, each with its row. Raises CorruptRecord."""
        failed = self._jobs.failed_bitmap(self._job)
        chunks = [*_from_row(failed, start, self._plan.chunk_size)]
        for chunk, body in self._bodies(chunks):
            for row, line in enumerate(body.splitlines(), chunk * self._plan.chunk_size):
                if row >= start and "error" in decode_outcome(line):
                    yield row, line

    def errors_page(self, start: int, limit: int) -> tuple[list[bytes], int | None]:
        """At most `limit` of them, and the row where the next page begins."""
        lines, size = list[bytes](), 0
        for row, line in self.errors(start):
            if len(lines) == limit or size > PAGE_BYTES:
                return lines, row
            lines.append(line)
            size += len(line)
        return lines, None

    def _bodies(self, chunks: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        bodies = self._directory.read_chunks(self._plan, chunks)
        for chunk, body in zip(chunks, bodies, strict=True):
            if not body:
                raise CorruptRecord(
                    f"the outcomes of chunk {chunk} of job {self._job} are gone",
                    hint=f"millrace verify {self._job}",
                )
            yield chunk, body

    def _rows(self, chunk: int) -> tuple[int, int]:
        """A chunk's rows, of which the last chunk has fewer: every part but the last is full."""
        first = chunk * self._plan.chunk_size
        return first, min(first + self._plan.chunk_size, self.record.counts.total)


def gathered(blocks: Iterable[bytes], least_bytes: int = 64 * 1024) -> Iterator[bytes]:
    """The same bytes in blocks that are worth a step of their own."""
    held, size = list[bytes](), 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= least_bytes:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _from_row(bitmap: bytes, row: int, chunk_size: int) -> Iterator[int]:
    first = row // chunk_size
    byte = first // 8
    numbers = (byte * 8 + bit for bit in set_bits(bitmap[byte:]))
    return (chunk for chunk in numbers if chunk >= first)
