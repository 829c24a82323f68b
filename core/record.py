"""A job's record in Redis, read into one typed value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from millrace.core.errors import CorruptRecord, JobNotFound
from millrace.core.job import JobSpec, JobState
from millrace.core.limits import ErrorThreshold, parse_deadline
from millrace.core.notify.delivery import NO_DELIVERY, Delivery
from millrace.core.topology import queue_name


@dataclass(frozen=True, slots=True)
class Counts:
    """Images by what became of them: `total` is the sum of the others."""

    total: int
    succeeded: int
    failed: int
    skipped: int
    cancelled: int

    @property
    def pending(self) -> int:
        return self.total - self.succeeded - self.failed - self.skipped - self.cancelled

    @property
    def finished(self) -> int:
        return self.total - self.pending


@dataclass(frozen=True, slots=True)
class TimingTotals:
    """Worker time by stage, summed over images, in microseconds, that of decoding on the CPU; and
    how long the model waited while chunks were in hand, by the stage that kept it waiting."""

    fetch: int = 0
    decode: int = 0
    infer: int = 0
    write: int = 0
    wait_fetch: int = 0
    wait_decode: int = 0
    wait_write: int = 0

    def fields(self) -> dict[str, int]:
        """As fields of the record: `fetch_us`, …"""
        return {f"{name}_us": us for name, us in asdict(self).items()}

    def shares(self) -> dict[str, float]:
        """Each stage's part of the whole, 0 to 1, waits left out; all zero before anything ran."""
        named = {
            "fetch": self.fetch,
            "decode": self.decode,
            "infer": self.infer,
            "write": self.write,
        }
        whole = sum(named.values())
        return {stage: round(us / whole, 4) if whole else 0.0 for stage, us in named.items()}


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The record hash. Times are None until they happen."""

    spec: JobSpec
    state: JobState
    reason: str | None
    ending: JobState | None
    version: str | None
    digest: str | None
    counts: Counts
    chunks: int
    done: int
    fed: int
    """The feed pointer: chunks below it were sent at least once."""
    ahead: int
    """Finished chunks at or above the feed pointer: there are some after a restoration."""
    restored: int
    """Images that had an outcome when the record was made anew."""
    parts: int
    listing_complete: bool
    timing: TimingTotals
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    progress_at: datetime | None
    completed_at: datetime | None
    deadline: datetime | None = None
    delivery: Delivery = NO_DELIVERY
    """Of its notification, if its spec asks for one."""

    @property
    def queue(self) -> str:
        """The queue of the workers that may run it: those of the version it began with."""
        return queue_name(self.spec.model.name, self.version)

    @classmethod
    def read(cls, fields: dict[bytes, bytes]) -> JobRecord:
        """Parse the hash. Raises CorruptRecord."""
        text = {name.decode(): value.decode("utf-8", "replace") for name, value in fields.items()}
        try:
            return cls._parse(text)
        except (KeyError, ValueError) as error:
            raise CorruptRecord(f"not a job record: {error!r}") from error

    @classmethod
    def _parse(cls, text: dict[str, str]) -> JobRecord:
        def number(name: str) -> int:
            return int(text.get(name) or 0)

        def when(name: str) -> datetime | None:
            ms = text.get(name)
            return from_ms(int(ms)) if ms else None

        return cls(
            spec=JobSpec.from_json(text["spec"]),
            state=JobState(text["state"]),
            reason=text.get("reason") or None,
            ending=JobState(text["ending"]) if text.get("ending") else None,
            version=text.get("version") or None,
            digest=text.get("digest") or None,
            counts=Counts(
                total=number("total"),
                succeeded=number("succeeded"),
                failed=number("failed"),
                skipped=number("skipped"),
                cancelled=number("cancelled"),
            ),
            chunks=number("chunks"),
            done=number("done"),
            fed=number("fed"),
            ahead=number("ahead"),
            restored=number("restored"),
            parts=number("parts"),
            listing_complete=text.get("listing_complete") == "1",
            timing=TimingTotals(**{f.name: number(f"{f.name}_us") for f in fields(TimingTotals)}),
            created_at=from_ms(int(text["created_ms"])),
            updated_at=from_ms(int(text["updated_ms"])),
            started_at=when("started_ms"),
            progress_at=when("progress_ms"),
            completed_at=when("completed_ms"),
            deadline=when("deadline_ms"),
            delivery=Delivery.read(text),
        )


def record_of(job: str, fields: dict[bytes, bytes]) -> JobRecord:
    """The record that stands at a job's key. Raises JobNotFound, CorruptRecord."""
    if not fields:
        raise no_job(job)
    record = JobRecord.read(fields)
    _must_be_of(job, record.spec)
    return record


def spec_of(job: str, text: bytes | None) -> JobSpec:
    """The spec that stands in a job's record. Raises JobNotFound, CorruptRecord."""
    if text is None:
        raise no_job(job)
    spec = JobSpec.from_json(text)
    _must_be_of(job, spec)
    return spec


def _must_be_of(job: str, spec: JobSpec) -> None:
    if spec.job_id != job:
        raise CorruptRecord(f"the record of job {job} holds the spec of {spec.job_id}")


def no_job(job: str) -> JobNotFound:
    return JobNotFound(f"there is no job {job!r}", hint="`millrace jobs` lists them")


def initial_fields(spec: JobSpec) -> dict[str, str | int | float]:
    """The record of a job nothing has happened to yet."""
    threshold = ErrorThreshold.parse(spec.error_threshold or "")
    deadline = parse_deadline(spec.deadline, spec.created_at) if spec.deadline else None
    return {
        "spec": spec.model_dump_json(),
        "spec_digest": spec.digest,
        "state": JobState.QUEUED,
        "reason": "",
        "ending": "",
        "version": spec.model.version or "",
        "digest": spec.model.digest or "",
        "window_factor": spec.priority.window_factor,
        "listing_complete": 0,
        **dict.fromkeys(
            ("total", "succeeded", "failed", "skipped", "cancelled", "chunks", "done"), 0
        ),
        "fed": 0,
        "ahead": 0,
        "restored": 0,
        "parts": 0,
        "deadline_ms": to_ms(deadline) if deadline else "",
        "max_failed": _or_nothing(threshold.images),
        "max_failed_share": _or_nothing(threshold.share),
    }


def _or_nothing(number: float | None) -> float | str:
    return "" if number is None else number


def to_ms(when: datetime) -> int:
    """A UTC time as milliseconds."""
    return round(when.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    """Milliseconds of Redis TIME as a UTC time."""
    return datetime.fromtimestamp(ms / 1000, UTC)
