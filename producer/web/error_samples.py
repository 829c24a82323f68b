"""A few failed images of each kind, for the histogram of errors, found with little reading."""

from __future__ import annotations

from functools import partial
from itertools import islice

from millrace.core.bitmaps import set_bits
from millrace.core.job import JobSpec
from millrace.core.outcome import decode_outcome
from millrace.producer.web.gallery import Found
from millrace.producer.web.job_files import JobFiles
from millrace.producer.web.kept import Kept

OF_EACH = 5
MOST_CHUNKS = 12
CHUNKS_KEPT = 512


class ErrorSamples:
    """Of the first chunks that hold errors, which never change, so each is read once."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        self._chunks: Kept[tuple[JobSpec, int], dict[str, list[Found]]] = Kept(CHUNKS_KEPT)

    def of(self, spec: JobSpec, with_errors: bytes) -> dict[str, list[Found]]:
        """`stage/code` → some of its images; `with_errors` has a bit for each chunk that holds
        an error. A code that is rare may be left out. Raises what reading the job raises."""
        found: dict[str, list[Found]] = {}
        for chunk in islice(set_bits(with_errors), MOST_CHUNKS):
            kept = self._chunks.get((spec, chunk), partial(self._read, spec, chunk))
            for code, some in kept.items():
                found[code] = [*found.get(code, ()), *some][:OF_EACH]
        return found

    def _read(self, spec: JobSpec, chunk: int) -> dict[str, list[Found]]:
        body = self._files.directory(spec).read_chunk(spec.plan, chunk) or b""
        found: dict[str, list[Found]] = {}
        for row, line in enumerate(body.splitlines(), chunk * spec.chunk_size):
            outcome = decode_outcome(line)
            error = outcome.get("error")
            if error is not None:
                some = found.setdefault(f"{error['stage']}/{error['code']}", [])
                if len(some) < OF_EACH:
                    some.append(Found(row, outcome))
        return found
