"""The demo with a dashboard: the same model and bucket, a server, and a job to watch."""

from __future__ import annotations

import io
import os
from typing import Any

import boto3
from rich.console import Console

from millrace.cli.ctrl_c import CtrlC
from millrace.cli.digits_demo import BUCKET, REPOSITORY, SERVE, fill_bucket, submit_digits, trained
from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.cli.local import crew_of
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.models.labelled import Labelled

TOKENS = ("MILLRACE_OPERATOR_TOKEN", "MILLRACE_VIEWER_TOKEN", "MILLRACE_TOKENS_FILE")
"""Whoever is at this machine is let in; tokens of another server would contradict that."""


def run_web_demo(processes: int, port: int) -> None:
    """Run it until Ctrl-C, with so many worker processes; `port` 0 takes a free one."""
    # First of all, so that a library that is missing is told before anything is trained.
    from millrace.cli.serve import refuse_missing

    refuse_missing()
    from millrace.producer.http.app import create_app
    from millrace.producer.http.server import serve_app
    from millrace.producer.http.settings import HttpSettings

    console = Console(stderr=True, highlight=False)
    with CtrlC(), EmbeddedRedis() as redis, EmbeddedS3() as s3:
        os.environ |= s3.environment
        os.environ |= {
            "MILLRACE_REDIS_URL": redis.url,
            "MILLRACE_MODELS": REPOSITORY,
            "MILLRACE_ALLOWED_LOCATIONS": f"s3://{BUCKET}",
        }
        for name in TOKENS:
            os.environ.pop(name, None)
        model, data = trained(console)
        with console.status("exporting it and filling a bucket"):
            images = _fill_bucket(model, data.unseen)
        with crew_of(processes, SERVE):
            job = submit_digits()
            settings = HttpSettings.load(
                http_host="127.0.0.1",
                http_port=port,
                no_auth=True,
                uploads=f"s3://{BUCKET}/uploads",
            )
            app = create_app(Services(Settings.load()), settings)

            def ready(url: str) -> None:
                for line in (
                    f"{images:,} images in s3://{BUCKET}/digits, one job over them\n",
                    f"  the dashboard:  [bold]{url}/[/]",
                    f"  the job:        {url}/jobs/{job.id}\n",
                    "Ctrl-C ends all of it.",
                ):
                    console.print(line, soft_wrap=True)

            serve_app(app, settings, ready)


def _fill_bucket(model: Any, digits: Labelled) -> int:
    """The model, the digits, and a few files that show what becomes of such; how many images."""
    labels = fill_bucket(model, digits)
    odd = _odd_files(digits)
    client = boto3.client("s3")
    for key, body in odd.items():
        client.put_object(Bucket=BUCKET, Key=f"digits/{key}", Body=body)
    return len(labels) + len(odd)


def _odd_files(digits: Labelled) -> dict[str, bytes]:
    """Key → content: every bucket holds some that are no pictures, or only half of one."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(digits.images[0][..., 0]).resize((256, 256)).save(file, "PNG")
    whole = file.getvalue()
    return {
        "0100-half.png": whole[: len(whole) // 2],
        "0230-half.png": whole[: len(whole) // 3],
        "0340-empty.png": b"",
        "0410-notes.png": b"these are no pixels",
        "0555-notes.png": b"<html>403 Forbidden</html>",
    }
