"""Progress on long work: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from millrace.core.status import JobStatus
from millrace.producer import ListingProgress

LINE_EVERY_S = 5.0

T = TypeVar("T")


@contextmanager
def listing_progress(*, quiet: bool = False) -> Iterator[Callable[[ListingProgress], None]]:
    """Shows how many keys are listed. `quiet` shows nothing (for `--json`)."""
    with _line_progress("listing…", quiet) as show:
        yield lambda listed: show(f"listed {listed.images:,} images, {listed.bytes / 1e6:,.1f} MB")


@contextmanager
def checking_progress(*, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Shows how many images are checked. `quiet` shows nothing."""
    with _line_progress("checking…", quiet) as show:
        yield lambda images: show(f"checked {images:,} images")


@contextmanager
def _line_progress(first: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows one changing line."""
    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield _now_and_then(lambda text: console.print(text, highlight=False))
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(first, total=None)
        yield lambda text: progress.update(task, description=text)


@contextmanager
def prediction_progress(*, quiet: bool = False) -> Iterator[Callable[[JobStatus], None]]:
    """Shows a job's images done, rate and time left. `quiet` shows nothing."""
    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
        return
    if not console.is_terminal:
        yield _now_and_then(lambda status: console.print(one_line(status), highlight=False))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[images]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("waiting", total=None, images="", rate="")

        def update(status: JobStatus) -> None:
            counts = status.counts
            known = status.input.listing_complete
            failed = f", {counts.failed:,} failed" if counts.failed else ""
            progress.update(
                task,
                description=describe(status),
                total=counts.total if known else None,
                completed=counts.total - counts.pending,
                images=f"{counts.total - counts.pending:,}/{counts.total:,}"
                f"{'' if known else '+'}{failed}",
                rate=f"{status.rate_images_per_s:,.1f} images/s",
            )

        yield update


def one_line(status: JobStatus) -> str:
    """The status for a log file."""
    counts = status.counts
    eta = f", {status.eta_s:,.0f} s left" if status.eta_s is not None else ""
    return (
        f"{describe(status)}: {counts.total - counts.pending:,}/{counts.total:,} images, "
        f"{counts.failed:,} failed, {status.rate_images_per_s:,.1f} images/s{eta}"
    )


def describe(status: JobStatus) -> str:
    """The state in a word or two, and what is wrong if something is."""
    if status.health == "no_workers":
        return "waiting for a worker"
    if status.health == "stalled":
        return f"{status.state} (stalled)"
    return status.state.replace("_", " ")


def _now_and_then(show: Callable[[T], None]) -> Callable[[T], None]:
    due = time.monotonic() + LINE_EVERY_S

    def update(value: T) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + LINE_EVERY_S
            show(value)

    return update
