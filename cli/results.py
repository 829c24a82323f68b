"""`millrace results` and `errors`: what came of a job's images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from millrace.cli import options as o
from millrace.cli.command import command

if TYPE_CHECKING:
    from millrace.core.chunks import ChunkPlan
    from millrace.core.jobdir import JobDirectory
    from millrace.core.services import Services

JobOrUrl = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id, or the URL of its directory.")
]


@command
def results(
    job: JobOrUrl,
    form: Annotated[
        str, typer.Option("--format", envvar="MILLRACE_FORMAT", help="jsonl or csv (best class).")
    ] = "jsonl",
    file: Annotated[
        str | None,
        typer.Option("--file", "-o", envvar="MILLRACE_FILE", help="Write here, not to stdout."),
    ] = None,
    redis_url: o.RedisUrl = None,
) -> None:
    """Stream the outcomes committed so far, one line per image, in manifest order."""
    from millrace.core.errors import UsageError
    from millrace.core.outcome import decode_outcome
    from millrace.producer.outcome_csv import csv_blocks
    from millrace.producer.results import outcome_lines

    if form not in ("jsonl", "csv"):
        raise UsageError(f"--format {form}: expected jsonl or csv")
    directory, plan = _open(job, redis_url)
    lines = outcome_lines(directory, plan)
    if form == "jsonl":
        _write((line + b"\n" for line in lines), file)
    else:
        _write(csv_blocks(decode_outcome(line) for line in lines), file)


@command
def errors(job: JobOrUrl, redis_url: o.RedisUrl = None, as_json: o.AsJson = False) -> None:
    """Show a job's errors: how many by stage and code, then each one."""
    import orjson

    from millrace.cli import show

    counts, outcomes = _errors(job, redis_url)
    lines = (orjson.dumps(outcome) for outcome in outcomes)
    if as_json:
        head = b'{"by_code": %s, "errors": [' % orjson.dumps(counts)
        first = next(lines, b"")
        _write(chain((head, first), (b",\n" + line for line in lines), (b"]}\n",)), None)
        return
    show.histogram(counts)
    sys.stdout.flush()
    _write((line + b"\n" for line in lines), None)


def _errors(job: str, redis_url: str | None) -> tuple[dict[str, int], Iterator[dict[str, Any]]]:
    """The number of errors by stage and code, and the errors."""
    from collections import Counter

    from millrace.producer.job import Job
    from millrace.producer.results import error_outcomes

    if "/" not in job:
        handle = Job(o.services(redis_url), job)
        return handle.status().errors.by_code, handle.errors()
    directory, plan = _open(job, redis_url)
    counts = Counter(
        f"{outcome['error']['stage']}/{outcome['error']['code']}"
        for outcome in error_outcomes(directory, plan)
    )
    return dict(counts), error_outcomes(directory, plan)


def _open(job: str, redis_url: str | None) -> tuple[JobDirectory, ChunkPlan]:
    services = o.services(redis_url)
    directory = directory_of(services, job)
    return directory, directory.read_spec().plan


def directory_of(services: Services, job: str) -> JobDirectory:
    """The job's directory: by its URL from storage alone, by its id through Redis."""
    from millrace.core.jobdir import JobDirectory
    from millrace.core.storage import Location

    if "/" in job:
        return JobDirectory(services.stores, Location.parse(job))
    return JobDirectory(services.stores, services.jobs.spec(job).directory)


def _write(lines: Iterable[bytes], file: str | None) -> None:
    from millrace.core.errors import AccessDenied, UsageError

    if file is None:
        _copy(lines, sys.stdout.buffer)
        return
    try:
        with open(file, "wb") as out:
            _copy(lines, out)
    except OSError as error:
        kind = AccessDenied if isinstance(error, PermissionError) else UsageError
        raise kind(f"cannot write {file}: {error.strerror}") from error


def _copy(lines: Iterable[bytes], out: IO[bytes]) -> None:
    for line in lines:
        out.write(line)
    out.flush()
