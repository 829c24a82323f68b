"""Jobs in a real directory whose chunks are run by hand, and what is known of them where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from millrace.core.bitmaps import set_bits
from millrace.core.errors import ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory, decode_rows
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line, tally
from millrace.core.record import TimingTotals
from millrace.core.services import Services
from millrace.core.topology import chunk_object
from millrace.producer.enqueue import enqueue
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_worker, created

CAT = [{"label": "cat", "index": 3, "score": 0.75}]
FAILING = {0: "decode/corrupt", 5: "fetch/not_found", 6: "decode/corrupt", 13: "infer/internal"}
"""Images that may be made to fail in a job of 19 or more."""


def directory_of(services: Services, spec: JobSpec) -> JobDirectory:
    return JobDirectory(services.stores, spec.directory)


def listed_job(
    services: Services, output: Path | str, *, images: int = 6, job_id: str = "j", **fields: object
) -> JobSpec:
    """A job over `0.jpg`, `1.jpg`, …, two to a chunk: written down, listed and fed."""
    spec = a_spec(job_id, output=str(output), **fields)
    created(services, spec)
    enqueue(services, spec, (ManifestRow(f"{n}.jpg", f'"{n}"', 1) for n in range(images)))
    return spec


def work(
    services: Services,
    spec: JobSpec,
    *chunks: int,
    failing: Mapping[int, str] | None = None,
    time: TimingTotals = NO_TIME,
) -> None:
    """Run chunks as a worker does, to the end of the job if they are the last ones.

    `failing` images end as errors: their number → `stage/code`.
    """
    directory = directory_of(services, spec)
    worker = a_worker(services)
    for chunk in chunks:
        lines = directory.part_lines(spec.plan.part_of(chunk))
        rows = decode_rows(lines, spec.plan, chunk)
        answer, lease = worker.claim(spec.queue, spec.job_id, chunk, MODEL)
        assert answer.holds_lease, answer
        body = encode_lines(_outcome(row, failing or {}) for row in rows)
        body = directory.create_chunk(spec.plan, chunk, body)
        if worker.finish(lease, tally(body, rows), time)[1]:
            services.finalizer.finalize(spec.job_id)


def _outcome(row: ManifestRow, failing: Mapping[int, str]) -> bytes:
    code = failing.get(int(row.key.removesuffix(".jpg")))
    if code is None:
        return prediction_line(row, CAT)
    stage, _, word = code.partition("/")
    return error_line(row, ItemError(Stage(stage), word, "it failed"), 1)


def lose(services: Services) -> None:
    """Redis has lost all it held."""
    services.redis.raw.flushall()


def known(services: Services, job: str = "j") -> dict[str, Any]:
    """What Redis says of a job that storage can say as well."""
    snapshot = services.jobs.snapshot(job)
    record = snapshot.record
    return {
        "spec": record.spec,
        "counts": record.counts,
        "manifest": (record.parts, record.chunks, record.listing_complete),
        "done": [*set_bits(services.jobs.done_bitmap(job))],
        "failed": [*set_bits(services.jobs.failed_bitmap(job))],
        "by_code": snapshot.by_code,
        "samples": snapshot.samples,
    }


def waiting(services: Services, spec: JobSpec) -> list[int]:
    """The chunks in the job's queue, none of them twice."""
    found = sorted(chunk for _, chunk in services.queue.waiting(spec.queue))
    assert services.redis.raw.llen(spec.queue) == len(found), "a chunk waits twice"
    return found


def object_of(spec: JobSpec, chunk: int) -> Path:
    """Where the outcomes of a chunk stand, in a job on disk."""
    return Path(spec.directory.root) / chunk_object(spec.plan.part_of(chunk), chunk)
