"""What one job owns in storage, as far as a page may show it: its manifest rows and its images.

An image is named by its job and its row number, never by a key: so nobody can ask for what is
not in a manifest. What a manifest names outside the job's input is refused, as in a worker.
"""

from __future__ import annotations

from millrace.core.errors import ObjectNotFound, OutsideRoot
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.services import Services
from millrace.core.storage import Location, Store
from millrace.producer.web.kept import Kept

PARTS_KEPT = 16
JOBS_KEPT = 64


class JobFiles:
    """Reads them; the last jobs and manifest parts are kept, for neither ever changes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._confirmed: Kept[JobSpec, JobDirectory] = Kept(JOBS_KEPT)
        self._parts: Kept[tuple[JobSpec, int], list[bytes]] = Kept(PARTS_KEPT)

    def spec(self, job: str) -> JobSpec:
        """Raises JobNotFound."""
        return self._services.jobs.spec(job)

    def directory(self, spec: JobSpec) -> JobDirectory:
        """Its directory, once its record was found to be what `job.json` says, for Redis is
        easier to write to. Raises SpecMismatch, LocationNotAllowed."""

        def confirmed() -> JobDirectory:
            directory = JobDirectory(self._services.stores, spec.directory)
            directory.confirm(spec)
            return directory

        return self._confirmed.get(spec, confirmed)

    def row(self, spec: JobSpec, number: int) -> ManifestRow:
        """Row `number` of the whole manifest, counted from 0. Raises ObjectNotFound if there is
        none."""
        part, at = divmod(number, spec.plan.rows_per_part)
        read = self.directory(spec).part_lines
        lines = self._parts.get((spec, part), lambda: read(part))
        if at >= len(lines):
            raise ObjectNotFound(f"the manifest of {spec.job_id} has no row {number}")
        return decode_row(lines[at])

    def row_at_hand(self, spec: JobSpec, number: int) -> ManifestRow | None:
        """That row, if no storage has to be asked for it."""
        part, at = divmod(number, spec.plan.rows_per_part)
        lines = self._parts.peek((spec, part)) or []
        return decode_row(lines[at]) if at < len(lines) else None

    def source(self, spec: JobSpec, row: ManifestRow) -> Store:
        """The store its input lies in. Raises OutsideRoot for a key that leads out of that."""
        source = Location.parse(spec.input.uri)
        if not row.key.startswith(source.prefix):
            raise OutsideRoot(f"{row.key!r} is not under {source}")
        return self._services.stores.open(source)
