"""Careful mode: a chunk whose worker died runs image by image, to name the one at fault.

Each image is noted in Redis while it is alone in flight. If the process dies with the same one
twice, nothing else can have killed it: it becomes an error line, and the rest of the chunk
completes. Once would not do, for machines die too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from millrace.core.claims import CONVICTED, Claims, Lease
from millrace.core.errors import ItemError, MillraceError, Stage
from millrace.core.log import get_logger
from millrace.core.manifest import ManifestRow
from millrace.worker.pipeline import Fetch, Image, Pipeline

log = get_logger(__name__)

DEATHS = 2


class Careful:
    """Runs suspect chunks; `stopped` takes the note back of what is in flight."""

    def __init__(self, claims: Claims, pipeline: Pipeline) -> None:
        self._claims = claims
        self._pipeline = pipeline
        self._in_flight: dict[str, tuple[int, int]] = {}
        """Lease member → row, and its deaths before."""
        self._lock = threading.Lock()

    def run(self, lease: Lease, rows: Sequence[ManifestRow], fetch: Fetch) -> list[Image]:
        """As `Pipeline.run`, one by one. Nothing else may run in this process meanwhile.

        Raises what Redis raises: without the notes it would not be careful.
        """
        log.warning("running a chunk image by image", job=lease.job, chunk=lease.chunk)
        suspects = self._claims.suspects(lease)
        return [
            self._run_one(lease, number, row, fetch, suspects.get(number, 0))
            for number, row in enumerate(rows)
        ]

    def stopped(self, lease: Lease) -> None:
        """The process ends by itself; the image in flight is not to blame for it."""
        with self._lock:
            noted = self._in_flight.pop(lease.member, None)
        if noted is not None:
            self._claims.suspect(lease, *noted)

    def _run_one(
        self, lease: Lease, number: int, row: ManifestRow, fetch: Fetch, deaths: int
    ) -> Image:
        if deaths >= DEATHS:
            if deaths < CONVICTED:
                log.error("an image kills the worker", job=lease.job, key=row.key)
                self._claims.convict(lease, number)
            return Image(row, error=_crashed())
        self._claims.suspect(lease, number, deaths + 1)
        with self._lock:
            self._in_flight[lease.member] = number, deaths
        (image,) = self._pipeline.run([row], fetch)
        with self._lock:
            survived = self._in_flight.pop(lease.member, None) is not None
        if survived:
            self._acquit(lease, number)
        return image

    def _acquit(self, lease: Lease, number: int) -> None:
        try:
            self._claims.acquit(lease, number)
        except MillraceError as error:
            log.warning("an image stays under suspicion", job=lease.job, error=error.message)


def _crashed() -> ItemError:
    return ItemError(
        Stage.INFER,
        "worker_crashed",
        f"the worker died {DEATHS} times with this image alone in flight",
        retryable=False,
    )
