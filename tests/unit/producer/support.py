"""Jobs in a real directory whose chunks are run by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from millrace.core.errors import ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line, tally
from millrace.core.services import Services
from millrace.producer.enqueue import enqueue
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_worker

CAT = [{"label": "cat", "index": 3, "score": 0.75}]


def listed_job(
    services: Services, output: Path | str, *, images: int = 6, job_id: str = "j", **fields: object
) -> JobSpec:
    """A job over `0.jpg`, `1.jpg`, …, two to a chunk: written down, listed and fed."""
    spec = a_spec(job_id, output=str(output), **fields)
    JobDirectory(services.stores, spec.directory).create_spec(spec)
    services.jobs.create(spec)
    enqueue(services, spec, (ManifestRow(f"{n}.jpg", f'"{n}"', 1) for n in range(images)))
    return spec


def work(
    services: Services, spec: JobSpec, *chunks: int, failing: Mapping[int, str] | None = None
) -> None:
    """Run chunks as a worker does, to the end of the job if they are the last ones.

    `failing` images end as errors: their number → `stage/code`.
    """
    directory = JobDirectory(services.stores, spec.directory)
    worker = a_worker(services)
    for chunk in chunks:
        lines = directory.part_lines(spec.plan.part_of(chunk))
        rows = decode_rows(lines, spec.plan, chunk)
        answer, lease = worker.claim(spec.queue, spec.job_id, chunk, MODEL)
        assert answer.holds_lease, answer
        body = encode_lines(_outcome(row, failing or {}) for row in rows)
        body = directory.create_chunk(spec.plan, chunk, body)
        if worker.finish(lease, tally(body, rows), NO_TIME)[1]:
            services.finalizer.finalize(spec.job_id)


def _outcome(row: ManifestRow, failing: Mapping[int, str]) -> bytes:
    code = failing.get(int(row.key.removesuffix(".jpg")))
    if code is None:
        return prediction_line(row, CAT)
    stage, _, word = code.partition("/")
    return error_line(row, ItemError(Stage(stage), word, "it failed"), 1)
