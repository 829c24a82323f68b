"""One tree of errors; each class carries its meaning and the command line's exit code.

::

    MillraceError
    ├── UsageError            a flag, URL, glob or setting that makes no sense
    │   ├── BadLocation       a storage URL millrace cannot read
    │   ├── BadManifest       a line of the user's manifest, by number
    │   ├── BadData           training data, or a run's record, that cannot be used
    │   └── LocationNotAllowed  a place that MILLRACE_ALLOWED_LOCATIONS leaves out
    ├── NotFound
    │   ├── JobNotFound
    │   ├── ModelNotFound
    │   └── ObjectNotFound    a bucket, directory or object
    ├── AccessDenied          storage or Redis refused the credentials
    │   ├── OutsideRoot       a key or link that leads out of its place
    │   ├── Unauthenticated   the HTTP server knows no such token
    │   └── Forbidden         the token's role may not do this
    ├── Conflict
    │   ├── JobConflict       the job id stands for another spec
    │   └── AlreadyExists     a create-only write met an object
    ├── Unavailable
    │   ├── RedisUnavailable
    │   ├── StorageUnavailable
    │   ├── ServerUnavailable the HTTP server cannot be reached, or stops
    │   ├── NoWorkers         no worker serves the model
    │   └── Busy              the HTTP server does as much of this as it may
    ├── SourceChanged         the object's ETag is no longer the listed one
    ├── ObjectTooLarge        over the configured size limit
    ├── CorruptRecord         Redis or the job directory holds something not ours
    │   └── SpecMismatch      the record in Redis is not what job.json says
    ├── WaitTimeout           the job did not end in time
    ├── BadMessage            a queue entry that is not a chunk message
    ├── MissingExtra          an optional library is not installed
    ├── ModelError            a model or card that cannot be used
    └── ItemError             one image failed: stage, code, retryable
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """What the `millrace` command's exit status says; documented in docs/cli.md."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    COMPLETED_WITH_ERRORS = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    ACCESS_DENIED = 6
    CONFLICT = 7
    MODEL = 8
    NO_INPUTS = 9
    TIMEOUT = 10
    CHECK_FAILED = 11
    INTERNAL = 70
    WEDGED = 71
    MISSING_EXTRA = 72
    INTERRUPTED = 130


class MillraceError(Exception):
    """Root of the tree. `hint` says what to do about it, in one line."""

    code = "error"
    exit_code = ExitCode.INTERNAL

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MillraceError):
    """A flag, URL, glob or setting that makes no sense."""

    code = "usage"
    exit_code = ExitCode.USAGE
    field: str | None = None
    """Of a job's spec, if it is about one: the message begins with its name."""


class BadLocation(UsageError):
    """A storage URL millrace cannot read."""

    code = "bad_location"


class BadManifest(UsageError):
    """A line of the user's manifest that is neither a key nor `{"key": …}`."""

    code = "bad_manifest"

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(f"{source}, line {line}: {problem}")
        self.line = line


class BadData(UsageError):
    """Training data, or the record of a training run, that cannot be used."""

    code = "bad_data"


class LocationNotAllowed(UsageError):
    """A job's input or output lies where MILLRACE_ALLOWED_LOCATIONS does not let it."""

    code = "location_not_allowed"


class NotFound(MillraceError):
    """Something named does not exist."""

    code = "not_found"
    exit_code = ExitCode.NOT_FOUND


class JobNotFound(NotFound):
    """Redis knows no job by this id."""

    code = "job_not_found"


class ModelNotFound(NotFound):
    """The repository holds no such model or version."""

    code = "model_not_found"


class ObjectNotFound(NotFound):
    """A bucket, directory or object does not exist."""

    code = "object_not_found"


class AccessDenied(MillraceError):
    """Storage or Redis refused the credentials, or there were none."""

    code = "access_denied"
    exit_code = ExitCode.ACCESS_DENIED


class OutsideRoot(AccessDenied):
    """A key or link that leads out of the place the job declares."""

    code = "outside_root"


class Unauthenticated(AccessDenied):
    """The HTTP server got no token, or one it does not know."""

    code = "unauthenticated"


class Forbidden(AccessDenied):
    """Whoever asks may not do this: the role is too low, or the request comes from another site."""

    code = "forbidden"


class Conflict(MillraceError):
    """What is asked contradicts what stands."""

    code = "conflict"
    exit_code = ExitCode.CONFLICT


class JobConflict(Conflict):
    """The job id stands for another spec."""

    code = "job_conflict"


class AlreadyExists(Conflict):
    """A create-only write met an object."""

    code = "already_exists"


class Unavailable(MillraceError):
    """A service did not answer, or answered that it cannot serve now."""

    code = "unavailable"
    exit_code = ExitCode.UNAVAILABLE


class RedisUnavailable(Unavailable):
    """Redis cannot be reached, or refuses writes."""

    code = "redis_unavailable"


class StorageUnavailable(Unavailable):
    """Object storage cannot be reached, or kept failing through the retries."""

    code = "storage_unavailable"


class ServerUnavailable(Unavailable):
    """The HTTP server cannot be reached, or is stopping."""

    code = "server_unavailable"


class NoWorkers(Unavailable):
    """No worker serves the model, so nothing would answer in time."""

    code = "no_workers"


class Busy(Unavailable):
    """The HTTP server does as much of this at once as it may."""

    code = "busy"


class SourceChanged(MillraceError):
    """The object's ETag is no longer the one that was listed."""

    code = "source_changed"


class ObjectTooLarge(MillraceError):
    """The object is over the configured size limit."""

    code = "too_large"


class CorruptRecord(MillraceError):
    """Redis or the job directory holds something millrace did not write there."""

    code = "corrupt_record"


class SpecMismatch(CorruptRecord):
    """The job's record in Redis asks for something else than its `job.json`."""

    code = "spec_mismatch"


class WaitTimeout(MillraceError):
    """The job did not end within the time given."""

    code = "timeout"
    exit_code = ExitCode.TIMEOUT


class BadMessage(MillraceError):
    """A queue entry that is not a chunk message."""

    code = "bad_message"


class MissingExtra(MillraceError):
    """An optional library is not installed."""

    code = "missing_extra"
    exit_code = ExitCode.MISSING_EXTRA

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", hint=f"pip install 'millrace[{extra}]'")


class ModelError(MillraceError):
    """A model or card that cannot be used."""

    code = "model_error"
    exit_code = ExitCode.MODEL


class Stage(StrEnum):
    """Where in the worker an image failed."""

    FETCH = "fetch"
    DECODE = "decode"
    PREPROCESS = "preprocess"
    INFER = "infer"
    WRITE = "write"


class ItemError(MillraceError):
    """One image failed; becomes its outcome line and never more than that.

    `code` is a stable word for scripts, `retryable` says whether running the same
    image again could end differently.
    """

    def __init__(self, stage: Stage, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code
        self.retryable = retryable
