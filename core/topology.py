"""Every queue, task, key and object name, spelled once.

Redis keys of one job share the hash tag `{job}`. Queue-wide keys carry the queue's name.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

PREDICT_CHUNK = "millrace.predict_chunk"
QUEUE_PREFIX = "millrace."

JOB_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
LABEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
LABEL_VALUE_PATTERN = r"^[^\x00-\x1f\x7f]{0,255}$"
VERSION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$"

JOBS = "millrace:jobs"
WORKERS = "millrace:workers"
DUTIES = "millrace:duties"
"""Sorted set: what an HTTP server has promised and not yet done, `what:job` → since when."""

JOB_FILE = "job.json"
MODEL_FILE = "model.json"
ERRORS_FILE = "errors.jsonl"
SUMMARY_FILE = "summary.json"
SUCCESS_FILE = "_SUCCESS"
MANIFEST_PREFIX = "manifest/"
RESULTS_PREFIX = "results/"
BY_KEY_PREFIX = "by-key/"

_CHUNK_NAME = re.compile(r"(?:^|/)results/part-(\d+)/chunk-(\d+)\.jsonl\Z")
_PART_NAME = re.compile(r"(?:^|/)manifest/part-(\d+)\.jsonl\Z")


def queue_name(model: str, version: str | None) -> str:
    """The queue a job waits in: one per model, and one per version a job pins.

    Pinned versions have queues of their own, so that workers of version 2 never take
    (and endlessly hand back) the chunks of a job that must finish on version 1.
    """
    return f"{QUEUE_PREFIX}{model}" if version is None else f"{QUEUE_PREFIX}{model}:{version}"


def manifest_part(part: int) -> str:
    """`manifest/part-00000.jsonl`"""
    return f"{MANIFEST_PREFIX}part-{part:05d}.jsonl"


def chunk_object(part: int, chunk: int) -> str:
    """`results/part-00000/chunk-0000017.jsonl`"""
    return f"{RESULTS_PREFIX}part-{part:05d}/chunk-{chunk:07d}.jsonl"


MANIFEST_COMPLETE = f"{MANIFEST_PREFIX}complete.json"
"""Written when the listing is: without it, more parts may be due."""


def parse_manifest_part(name: str) -> int | None:
    """The number a manifest part's name carries, or None for a foreign name."""
    match = _PART_NAME.search(name)
    if match is None:
        return None
    part = int(match.group(1))
    return part if match.group().lstrip("/") == manifest_part(part) else None


def parse_chunk_object(name: str) -> tuple[int, int] | None:
    """The part and chunk a results object's name carries, or None for a foreign name."""
    match = _CHUNK_NAME.search(name)
    if match is None:
        return None
    part, chunk = int(match.group(1)), int(match.group(2))
    return (part, chunk) if match.group().lstrip("/") == chunk_object(part, chunk) else None


def is_unfinished_chunk(name: str) -> bool:
    """Whether it is what obstore leaves in a directory of a chunk that is being written, or
    whose writer was killed: `chunk-0000017.jsonl#1`."""
    written, mark, number = name.rpartition("#")
    return bool(mark) and number.isdecimal() and parse_chunk_object(written) is not None


@dataclass(frozen=True, slots=True)
class JobKeys:
    """The Redis keys of one job."""

    job: str

    def _key(self, what: str) -> str:
        return f"millrace:{{{self.job}}}:{what}"

    @property
    def record(self) -> str:
        """Hash: spec, state, counts, feed pointer, timestamps."""
        return self._key("record")

    @property
    def done(self) -> str:
        """Bitmap of finished chunks."""
        return self._key("done")

    @property
    def failed(self) -> str:
        """Bitmap of finished chunks that hold at least one error line."""
        return self._key("failed")

    @property
    def attempts(self) -> str:
        """Hash: chunk → how often it was claimed."""
        return self._key("attempts")

    @property
    def owners(self) -> str:
        """Hash: chunk → `worker/claim token` of the lease that runs it."""
        return self._key("owners")

    @property
    def errors(self) -> str:
        """Hash: `stage/code` → images."""
        return self._key("errors")

    @property
    def samples(self) -> str:
        """List: the first few error lines, for the status."""
        return self._key("samples")

    @property
    def pace(self) -> str:
        """List, newest first: `milliseconds images` of recent completions."""
        return self._key("pace")

    @property
    def suspects(self) -> str:
        """Hash: `chunk:row` → how often the process died with that image alone in flight."""
        return self._key("suspects")

    @property
    def finalizer(self) -> str:
        """Lock of the process that is finalizing, or making the record anew."""
        return self._key("finalizer")

    @property
    def producer(self) -> str:
        """Lock of the process that lists the input."""
        return self._key("producer")

    @property
    def contents(self) -> tuple[str, ...]:
        """What Redis holds of the job, without its locks."""
        return (
            self.record,
            self.done,
            self.failed,
            self.attempts,
            self.owners,
            self.errors,
            self.samples,
            self.pace,
            self.suspects,
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Everything Redis holds of the job."""
        return (*self.contents, self.finalizer, self.producer)


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The Redis keys of one model queue."""

    queue: str

    @property
    def active(self) -> str:
        """Set: ids of the jobs on this queue that have not ended."""
        return f"millrace:active:{self.queue}"

    @property
    def leases(self) -> str:
        """Sorted set: `job:chunk` → expiry, milliseconds of Redis TIME."""
        return f"millrace:leases:{self.queue}"

    @property
    def fleet(self) -> str:
        """Sorted set: `slots|worker id` → expiry, milliseconds of Redis TIME."""
        return f"millrace:fleet:{self.queue}"

    @property
    def reconciler(self) -> str:
        """Lock of the worker that reconciles this queue."""
        return f"millrace:reconciler:{self.queue}"


def worker_key(worker: str) -> str:
    """Hash describing one worker process; expires when it stops renewing."""
    return f"millrace:worker:{worker}"


def lease_member(job: str, chunk: int) -> str:
    """The leases set's member for a chunk. Job ids hold no colon."""
    return f"{job}:{chunk}"


def split_lease_member(member: str) -> tuple[str, int]:
    """Inverse of `lease_member`."""
    job, _, chunk = member.rpartition(":")
    return job, int(chunk)


def by_key_object(key: str) -> str:
    """The `by-key/` object of an image: its key, escaped just enough to be a safe path.

    Injective: `%` is always escaped; an empty, `.` or `..` segment would vanish or climb
    in a path, so the characters that make it one are escaped too; so is the dot of a folder
    called `a.json`, where the key `a` would want a file. A key too long for a path segment of
    255 bytes or an object name of 1024 is named by its SHA-256.
    """
    segments = []
    last = key.count("/")
    for i, segment in enumerate(key.split("/")):
        safe = re.sub(r"[%\x00-\x1f\x7f]", lambda m: f"%{ord(m.group()):02X}", segment)
        if safe in (".", ".."):
            safe = safe.replace(".", "%2E")
        # An empty segment is a slash that follows a slash (or starts the key).
        if not safe and i < last:
            safe = "%2F"
        if safe.endswith(".json") and i < last:
            safe = safe.removesuffix(".json") + "%2Ejson"
        segments.append(safe)
    name = "/".join(segments).replace("%2F/", "%2F")
    too_long = len(name.encode()) > 800 or any(len(s.encode()) > 240 for s in name.split("/"))
    if too_long:
        name = f"%sha256-{hashlib.sha256(key.encode()).hexdigest()}"
    return f"{BY_KEY_PREFIX}{name}.json"


def by_key_digest(name: str) -> bytes:
    """Stands for the name of a `by-key/` object where ten million are held at once."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
