"""A chunk runner over real services, and jobs for it to run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.card import Card
from millrace.core.claims import Claims, Lease, ModelIdentity
from millrace.core.errors import ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow, decode_row
from millrace.core.message import ChunkMessage
from millrace.core.record import JobRecord
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import JobKeys, QueueKeys
from millrace.worker.batcher import BatchLimits, MicroBatcher
from millrace.worker.images import ImageDecoder
from millrace.worker.in_hand import InHand
from millrace.worker.pipeline import Pipeline, Threads
from millrace.worker.runner import ChunkRunner, Model
from tests.support import submitted, write_png

QUEUE = "millrace.mean"
IDENTITY = ModelIdentity("1", "sha256:mean")
MAX_ATTEMPTS = 2


def mean(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The model: the mean grey of each picture."""
    means: npt.NDArray[np.float32] = batch.mean(axis=(1, 2, 3), dtype=np.float32)
    return means[:, np.newaxis]


def predictions_of(scores: npt.NDArray[np.float32], top_k: int | None) -> list[dict[str, Any]]:
    if scores[0] == 255:
        raise ItemError(Stage.INFER, "too_bright", "white as snow")
    if scores[0] == 254:
        raise ValueError("almost white")
    if scores[0] == 253:
        return [{"mean": object()}]
    return [{"mean": float(scores[0]), "top_k": top_k}]


@dataclass
class Bench:
    """A runner over real services, a model that can be changed, and jobs to run."""

    services: Services
    root: Path
    in_hand: InHand = field(default_factory=InHand)
    predict: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]] = mean
    predicted: int = 0

    def __post_init__(self) -> None:
        card = Card.make(name="mean", signature="s", height=2, width=2, channels="L")
        self.claims = Claims(
            self.services.redis, worker="bench", lease_s=30, max_attempts=MAX_ATTEMPTS
        )
        self.batcher = MicroBatcher(self._call, BatchLimits(4, 0.001))
        self.batcher.start()
        self.pipeline = Pipeline(
            ImageDecoder(card, max_pixels=1_000_000).decode, self.batcher, Threads(4, 2, 16)
        )
        self.runner = ChunkRunner(
            self.services,
            self.claims,
            self.pipeline,
            Model(IDENTITY, (QUEUE,), predictions_of),
            self.in_hand,
        )

    def _call(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.predicted += len(batch)
        return self.predict(batch)

    def close(self) -> None:
        self.pipeline.close()
        self.batcher.stop()

    def job(self, images: int = 5, **fields: Any) -> JobSpec:
        """Submit `images` pictures, number n of grey n, in chunks of three."""
        for n in range(images):
            write_png(self.root / "in" / f"{n:02d}.png", np.full((2, 2), n, np.uint8))
        asked: dict[str, Any] = {"model": "mean", "chunk_size": 3} | fields
        return submitted(self.services, self.root, **asked)

    def directory(self, spec: JobSpec) -> JobDirectory:
        return JobDirectory(self.services.stores, spec.directory)

    def handle(self, spec: JobSpec, *chunks: int) -> None:
        for chunk in chunks:
            self.runner.handle(ChunkMessage(job=spec.job_id, chunk=chunk))

    def lines(self, spec: JobSpec, chunk: int) -> list[dict[str, Any]]:
        body = self.directory(spec).read_chunk(spec.plan, chunk)
        assert body is not None
        return [json.loads(line) for line in body.splitlines()]

    def rows(self, spec: JobSpec) -> list[ManifestRow]:
        """The manifest, in its order: a directory is listed in any."""
        return [decode_row(line) for line in self.directory(spec).part_lines(0)]

    def keys(self, spec: JobSpec) -> list[str]:
        return [row.key for row in self.rows(spec)]

    def record(self, spec: JobSpec) -> JobRecord:
        return self.services.jobs.record(spec.job_id)

    def attempts(self, spec: JobSpec, chunk: int) -> int:
        return int(self.services.redis.raw.hget(JobKeys(spec.job_id).attempts, chunk) or 0)

    def leases(self) -> list[bytes]:
        found: list[bytes] = self.services.redis.raw.zrange(QueueKeys(QUEUE).leases, 0, -1)
        return found

    def claim(self, spec: JobSpec, chunk: int) -> Lease:
        """As another worker would."""
        answer, lease = self.claims.claim(QUEUE, spec.job_id, chunk, IDENTITY)
        assert answer.holds_lease
        return lease


@contextmanager
def bench_with(redis_url: str, root: Path, **settings: Any) -> Iterator[Bench]:
    """A bench whose settings are not the usual ones."""
    services = Services(Settings.load(redis_url=redis_url, **settings))
    made = Bench(services, root)
    try:
        yield made
    finally:
        made.close()
        services.redis.close()
