"""The demo: train, export, fill a bucket, enqueue it, predict, compare with the true labels."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import boto3
import orjson
from rich.console import Console
from rich.table import Table

from millrace.cli import show
from millrace.cli.ctrl_c import CtrlC
from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.cli.local import crew_of
from millrace.cli.progress import listing_progress, prediction_progress
from millrace.core.status import JobStatus
from millrace.export import export_keras
from millrace.models.labelled import Dataset, Labelled
from millrace.models.recipes import classifier
from millrace.models.train import train_in_memory
from millrace.models.training_data import load_digits
from millrace.producer import Job, submit

BUCKET = "millrace-demo"
REPOSITORY = f"s3://{BUCKET}/models"
SERVE = {"MILLRACE_MODEL": "digits", "MILLRACE_LOG_LEVEL": "warning"}
WITHIN_S = 300


def run_demo(processes: int, keep: str) -> None:
    """Run it with so many worker processes; predictions are copied to the directory `keep`."""
    console = Console(stderr=True, highlight=False)
    with CtrlC() as ctrl_c, EmbeddedRedis() as redis, EmbeddedS3() as s3:
        os.environ |= s3.environment
        os.environ |= {"MILLRACE_REDIS_URL": redis.url, "MILLRACE_MODELS": REPOSITORY}
        console.print(f"redis-server on port {redis.port}, S3 endpoint at {s3.endpoint}")
        model, data = trained(console)
        console.print(f"trained on {len(data.seen):,} digits")
        with console.status("exporting it and filling the bucket"):
            labels = fill_bucket(model, data.unseen)
        console.print(f"{len(labels):,} held-out digits in s3://{BUCKET}/digits")
        with crew_of(processes, SERVE):
            with listing_progress() as listed:
                job = submit_digits(progress=listed)
            with prediction_progress() as predicted:

                def progress(status: JobStatus) -> None:
                    ctrl_c.check()
                    predicted(status)

                status = job.wait(WITHIN_S, progress=progress, poll_s=0.1)
        right, copy = _compare(job, labels, Path(keep))
    _show(status, right, copy)


def trained(console: Console) -> tuple[Any, Dataset]:
    """The model, and the digits it was trained with and has not seen."""
    with console.status("training a digit classifier"):
        recipe = classifier("digits")
        data = load_digits(recipe.architecture)
        return train_in_memory(recipe, data), data


def submit_digits(**more: Any) -> Job:
    """A job over the bucket, of small chunks, so that there is something to see."""
    return submit(
        f"s3://{BUCKET}/digits",
        model="digits",
        output=f"s3://{BUCKET}/predictions",
        chunk_size=16,
        **more,
    )


def fill_bucket(model: Any, digits: Labelled) -> dict[str, str]:
    """Export the model and upload the digits as PNG files; returns key → true label."""
    from PIL import Image

    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    export_keras(
        model,
        name="digits",
        version="1",
        repository=REPOSITORY,
        labels=[str(n) for n in range(10)],
        scale="0,255",
        channels="L",
    )
    labels = {}
    for number, (pixels, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
        key = f"digits/{number:04d}.png"
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0]).save(file, "PNG")
        client.put_object(Bucket=BUCKET, Key=key, Body=file.getvalue())
        labels[key] = str(label)
    return labels


def _compare(job: Job, labels: dict[str, str], keep: Path) -> tuple[int, Path]:
    """How many predictions are right, and where a copy of them all was kept."""
    keep.mkdir(parents=True, exist_ok=True)
    copy = keep / "predictions.jsonl"
    right = 0
    with copy.open("wb") as file:
        for outcome in job.results():
            file.write(orjson.dumps(outcome) + b"\n")
            best = [prediction["label"] for prediction in outcome.get("predictions", ())][:1]
            right += best == [labels[outcome["key"]]]
    return right, copy


def _show(status: JobStatus, right: int, copy: Path) -> None:
    counts = status.counts
    table = Table.grid(padding=(0, 2))
    table.add_row("images", f"{counts.total:,}")
    table.add_row("succeeded", f"{counts.succeeded:,}")
    table.add_row("failed", f"{counts.failed:,}")
    table.add_row("images/s", f"{status.rate_images_per_s:,.1f}")
    table.add_row("accuracy", f"{right / counts.total:.2%}")
    table.add_row("results", f"{status.output.results_uri} (gone with the endpoint)")
    table.add_row("", f"copied to {copy}")
    show.print_table(table)
