"""Feed, don't flood: keep a window of each job's chunks in its queue, and re-send lost ones.

`feed` and `feed_missing` are the one way chunks reach a queue: the producer calls them while
listing, workers when they finish a chunk, the reconciler for what vanished.
"""

from __future__ import annotations

from millrace.core.bitmaps import clear_bits
from millrace.core.chunk_queue import ChunkQueue
from millrace.core.job import TAKES_WORK, JobSpec
from millrace.core.jobstore import JobStore
from millrace.core.topology import JobKeys, QueueKeys


class Feeder:
    """Tops queues up from the jobs' feed pointers."""

    def __init__(self, store: JobStore, queue: ChunkQueue, *, window: int) -> None:
        self._store = store
        self._queue = queue
        self._window = window

    def feed(self, spec: JobSpec) -> int:
        """Send the next chunks of a job, if fewer than its window wait; returns how many.

        The pointer moves before the messages are sent: if the sender dies in between,
        they are missing, and `feed_missing` finds them.
        """
        keys = JobKeys(spec.job_id)
        with self._store.redis.errors():
            chunks = self._store.redis.script("feed")(
                keys=[keys.record, keys.owners, QueueKeys(spec.queue).fleet, keys.done],
                args=[self._window],
            )
        return self._queue.send(spec.queue, spec.job_id, chunks)

    def feed_missing(self, spec: JobSpec, waiting: set[tuple[str, int]]) -> int:
        """Re-send chunks behind the pointer that are not finished, leased, or in `waiting`;
        returns how many. A job that takes no work is sent nothing.

        `waiting` is what `ChunkQueue.waiting` saw *before* this call, so that a chunk taken
        in the meantime shows as leased or finished.
        """
        job = spec.job_id
        record = self._store.record(job)
        if record.state not in TAKES_WORK or record.fed == record.done - record.ahead:
            return 0
        running = self._store.running_chunks(job)
        done = self._store.done_bitmap(job)
        missing = [
            chunk
            for chunk in clear_bits(done, record.fed)
            if chunk not in running and (job, chunk) not in waiting
        ]
        return self._queue.send(spec.queue, job, missing)
