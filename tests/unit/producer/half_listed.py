"""A job whose producer died while it was listing."""

from __future__ import annotations

from itertools import islice

import orjson

from millrace.core.job import JobState
from millrace.core.jobdir import decode_rows
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.outcome import tally
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.producer.job import Job
from millrace.producer.source import image_references
from millrace.producer.verify import verify
from tests.unit.core.support import MODEL, NO_TIME, a_spec, a_worker, created
from tests.unit.producer.support import directory_of

PART = 4
"""Rows to a part in the tests of listing, where no one wants to list 8192."""

DEATHS = [(0, 0), (1, 0), (1, 1), (2, 1), (3, 1), (3, 3)]
"""Parts that stand and parts that Redis was told of when the producer died."""


class HalfListed:
    """A job whose producer died: `parts` stand, of which `published` were told to Redis."""

    def __init__(self, services: Services, source: str, output: str, **spec: object) -> None:
        self.services = services
        given = {"uri": source} | {
            name: spec.pop(name) for name in ("manifest", "include") if name in spec
        }
        self.spec = created(services, a_spec("j", input=given, output=output, **spec))
        self.directory = directory_of(services, self.spec)

    def die_after(self, parts: int, published: int) -> HalfListed:
        rows = image_references(
            self.services.stores, self.spec.input, Location.parse(self.spec.output)
        )
        for part in range(parts):
            self.directory.create_part(part, some := [*islice(rows, PART)])
            if part < published:
                count = self.spec.plan.chunks_in(len(some))
                self.services.jobs.publish_part("j", part, len(some), count)
        self.services.feeder.feed(self.spec)
        return self

    @property
    def manifest(self) -> list[ManifestRow]:
        parts = map(self.directory.part_lines, self.directory.parts())
        return [decode_row(line) for lines in parts for line in lines]

    @property
    def keys(self) -> list[str]:
        return [row.key for row in self.manifest]

    def finish(self) -> None:
        """Run all chunks; the job must thereby end, whole."""
        job = Job(self.services, "j")
        directory, worker = self.directory, a_worker(self.services)
        for chunk in range(self.services.jobs.record("j").chunks):
            lines = directory.part_lines(self.spec.plan.part_of(chunk))
            rows = decode_rows(lines, self.spec.plan, chunk)
            _, lease = worker.claim(self.spec.queue, "j", chunk, MODEL)
            body = b"".join(
                orjson.dumps({"key": row.key, "etag": row.etag, "predictions": []}) + b"\n"
                for row in rows
            )
            directory.create_chunk(self.spec.plan, chunk, body)
            worker.finish(lease, tally(body, rows), NO_TIME)
        assert job.status().state is JobState.SUCCEEDED
        assert job.status().counts.total == len(self.manifest)
        assert verify(self.services, directory).ok
