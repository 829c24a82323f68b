"""Tables and lines for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millrace.core.errors import ExitCode
from millrace.core.job import JobState
from millrace.core.status import JobStatus, NotificationStatus

if TYPE_CHECKING:
    from millrace.core.fleet import SeenWorker
    from millrace.core.running import Running
    from millrace.producer.preview import Preview

_COLOURS = {
    JobState.SUCCEEDED: "green",
    JobState.COMPLETED_WITH_ERRORS: "yellow",
    JobState.FAILED: "red",
    JobState.CANCELLED: "red",
    JobState.EXPIRED: "red",
}


def exit_code(status: JobStatus) -> ExitCode:
    """What a command that waited for the job says of it."""
    if status.state is JobState.SUCCEEDED:
        return ExitCode.OK
    if status.state is JobState.COMPLETED_WITH_ERRORS:
        return ExitCode.COMPLETED_WITH_ERRORS
    return ExitCode.NO_INPUTS if status.reason == "no_inputs" else ExitCode.JOB_FAILED


def enqueued(job_id: str) -> None:
    console().print(f"job [bold]{escape(job_id)}[/]")


def submitted(job: JobStatus) -> None:
    """After `enqueue`: what to do next, or how it ended if it did."""
    if job.terminal:
        status(job)
        return
    out = console()
    out.print(f"job [bold]{escape(job.job_id)}[/]: {job.counts.total:,} images")
    if job.health == "no_workers":
        version = f":{job.model.version}" if job.model.version else ""
        out.print(f"  no worker serves it yet:  millrace worker --model {job.model.name}{version}")
    out.print(f"  watch it:  millrace status {escape(job.job_id)} --watch")


def status(job: JobStatus) -> None:
    """One job, in full."""
    counts = job.counts
    colour = _COLOURS.get(job.state, "cyan")
    state = f"[{colour}]{job.state.replace('_', ' ')}[/]"
    if job.reason:
        state += f" ({job.reason})"
    if job.health != "ok":
        state += f", [yellow]{job.health.replace('_', ' ')}[/]"
    table = grid()
    table.add_row("job", escape(job.job_id))
    table.add_row("state", state)
    version = f":{job.model.version}" if job.model.version else ""
    table.add_row("model", escape(f"{job.model.name}{version}"))
    table.add_row("input", escape(job.input.uri))
    more = "" if job.input.listing_complete or job.terminal else " (still listing)"
    table.add_row("images", f"{counts.total:,}{more}")
    table.add_row("succeeded", f"{counts.succeeded:,}")
    table.add_row("failed", f"{counts.failed:,}")
    for name in ("skipped", "cancelled", "pending"):
        if value := getattr(counts, name):
            table.add_row(name, f"{value:,}")
    eta = f", about {_duration(job.eta_s)} left" if job.eta_s else ""
    table.add_row("rate", f"{job.rate_images_per_s:,.1f} images/s{eta}")
    if job.bottleneck:
        table.add_row(
            "bottleneck",
            f"{job.bottleneck.advice} (the model was busy {job.bottleneck.predicting:.0%})",
        )
    if any(job.timing_share.values()):
        shares = (f"{stage} {share:.0%}" for stage, share in job.timing_share.items())
        table.add_row("time spent", ", ".join(shares))
    if not job.terminal:
        table.add_row("workers", f"{job.workers.active} on this job, {job.workers.live} live")
    for code, images in sorted(job.errors.by_code.items(), key=lambda item: -item[1]):
        table.add_row("", f"[yellow]{images:,}[/] {escape(code)}")
    table.add_row("results", escape(job.output.results_uri))
    if job.notification is not None:
        table.add_row("notification", escape(_notification(job.notification)))
    print_table(table)


def _notification(told: NotificationStatus) -> str:
    """`waiting: https://example.org, 2 tries, answered 503`"""
    tries = f", {told.attempts} {'try' if told.attempts == 1 else 'tries'}" if told.attempts else ""
    error = f", {told.error}" if told.error else ""
    return f"{told.state.replace('_', ' ')}: {told.to}{tries}{error}"


def jobs(rows: list[JobStatus]) -> None:
    table = _columns("job", "state", "model", "images", "failed", "done", "images/s", "created")
    for row in rows:
        state = row.state.replace("_", " ") + (f" ({row.reason})" if row.reason else "")
        version = f":{row.model.version}" if row.model.version else ""
        table.add_row(
            escape(row.job_id),
            f"[{_COLOURS.get(row.state, 'cyan')}]{state}[/]",
            escape(f"{row.model.name}{version}"),
            f"{row.counts.total:,}",
            f"{row.counts.failed:,}",
            f"{row.progress:.0%}",
            f"{row.rate_images_per_s:,.1f}",
            ago(row.created_at),
        )
    print_table(table if rows else "no jobs")


def workers(rows: list[SeenWorker]) -> None:
    table = _columns(
        "worker", "model", "state", "engine", "batch", "images", "images/s", "last seen"
    )
    for row in rows:
        running = row.info.running
        table.add_row(
            escape(row.info.worker.partition("/")[0]),
            escape(row.info.model),
            "[red]lost[/]" if row.lost else row.info.state,
            escape(_engine(running)) if running else "",
            f"{running.batch_size:,}" if running else "",
            f"{row.info.images:,}",
            f"{row.info.images_per_s:,.1f}",
            ago(row.last_seen),
        )
    print_table(table if rows else "no workers")


def _engine(running: Running) -> str:
    """`openvino bfloat16, 98.4% as float32`"""
    agreement = running.top_1_agreement
    agrees = "" if agreement is None else f", {agreement:.1%} as float32"
    return f"{running.engine} {running.precision}{agrees}"


def preview(found: Preview) -> None:
    """What a dry run found."""
    table = grid()
    table.add_row("images", f"{found.images:,} in {found.chunks:,} chunks")
    table.add_row("bytes", f"{found.bytes:,}")
    kinds = ", ".join(f"{images:,} {escape(kind)}" for kind, images in found.types.items())
    table.add_row("types", kinds or "-")
    for number, key in enumerate(found.first_keys):
        table.add_row("first keys" if not number else "", escape(key))
    version = f":{found.model['version']}" if found.model["version"] else ""
    table.add_row("model", escape(f"{found.model['name']}{version}"))
    table.add_row("output", escape(found.output))
    if found.standing:
        from millrace.producer.preview import MOST_STANDING

        more = " or more" if found.standing == MOST_STANDING else ""
        table.add_row("", f"[yellow]{found.standing:,}{more} objects stand there already[/]")
    writable = "[green]can be written[/]"
    table.add_row(
        "", f"[red]{escape(found.output_problem)}[/]" if found.output_problem else writable
    )
    print_table(table)
    console().print("nothing was enqueued")


def histogram(by_code: dict[str, int]) -> None:
    """Errors by stage and code, most first."""
    table = _columns("images", "stage/code")
    for code, images in sorted(by_code.items(), key=lambda item: -item[1]):
        table.add_row(f"{images:,}", escape(code))
    print_table(table if by_code else "no errors")


def ago(when: datetime) -> str:
    """`12 s ago`"""
    return f"{_duration((datetime.now(UTC) - when).total_seconds())} ago"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def grid() -> Table:
    """Names, which stay whole, and values, without lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _columns(*names: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in names:
        numeric = name in ("batch", "images", "failed", "done", "images/s")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name == "job")
    return table


def print_table(table: Table | str) -> None:
    """On standard output; into a pipe without the blanks that fill a cell up."""
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def console() -> Console:
    """Standard output, as wide as it needs to be where it is not a terminal."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 1000  # a pipe has no edge to fold at
    return out
