"""Progress of a training run: a line for each epoch, and on a terminal a bar within it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from millrace.models.training import Watch
from millrace.models.training_record import Epoch


@contextmanager
def training_progress(epochs: int, *, quiet: bool = False) -> Iterator[Watch]:
    """Who is to be told of batches and epochs. `quiet` shows nothing (for `--json`)."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield Watch()
        return
    if not console.is_terminal:
        yield Watch(epoch=lambda epoch: console.print(one_line(epoch, epochs), soft_wrap=True))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("epoch", total=None)

        def batch(done: int, of: int) -> None:
            text = "training" if done < of else "judging"
            progress.update(task, description=text, completed=done, total=of)

        def epoch(epoch: Epoch) -> None:
            progress.console.print(one_line(epoch, epochs))

        yield Watch(batch, epoch)


def one_line(epoch: Epoch, epochs: int) -> str:
    """`epoch 3/8: loss 0.0901, accuracy 97.06% unseen (0.1392, 95.94% seen), 1.3 s`"""
    return (
        f"epoch {epoch.number}/{epochs}: loss {epoch.unseen_loss:.4f}, "
        f"accuracy {epoch.unseen_accuracy:.2%} unseen ({epoch.loss:.4f}, "
        f"{epoch.accuracy:.2%} seen), {epoch.seconds:.1f} s"
    )
