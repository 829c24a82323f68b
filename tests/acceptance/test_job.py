"""The main job: a bucket in, JSON predictions out, exact to the last image."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.job_checks import check_job, check_predictions
from tests.support import (
    millrace,
    millrace_json,
    random_pixels,
    running_worker,
)

IMAGES = 600


def fill(bucket: str, images: int, side: int = 8) -> dict[str, npt.NDArray[np.uint8]]:
    """Upload random PNG files; returns key → pixels."""
    client = boto3.session.Session().client("s3")
    pixels = {f"in/{n:05d}.png": random_pixels(n, (side, side)) for n in range(images)}

    def put(key: str) -> None:
        file = io.BytesIO()
        Image.fromarray(pixels[key]).save(file, "PNG")
        client.put_object(Bucket=bucket, Key=key, Body=file.getvalue())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, pixels))
    return pixels


def test_a_bucket_is_predicted_exactly_once_by_workers_that_come_and_help(
    s3_env: dict[str, str], bucket: str, slow_repository: Path, tmp_path: Path
) -> None:
    env = s3_env | {"MILLRACE_MODELS": str(slow_repository)}
    pixels = fill(bucket, IMAGES)
    source, out = f"s3://{bucket}/in", f"s3://{bucket}/out"
    start = ["--model", "slow", "--threads", "1"]
    with (
        running_worker(*start, env=env, log=tmp_path / "one.log") as one,
        running_worker(*start, env=env, log=tmp_path / "two.log") as two,
    ):
        submitted = millrace_json(
            "enqueue", source, "--model", "slow", "--out", out, "--chunk-size", "8", env=env
        )
        job = submitted["job_id"]
        # Paused, so that however slowly the third starts there is work left for it.
        assert millrace("pause", job, env=env).returncode == 0
        with running_worker(*start, env=env, log=tmp_path / "three.log") as three:
            assert millrace("resume", job, env=env).returncode == 0
            watched = millrace("status", job, "--watch", env=env)
            assert watched.returncode == 0, watched.stderr
            workers = millrace_json("workers", env=env)
    assert {worker["model"] for worker in workers} == {"slow:1"}
    assert len(workers) == 3
    for worker in (one, two, three):
        assert worker.wait() == 0
        assert "finished a chunk" in worker.log

    status = millrace_json("status", job, env=env)
    assert status["state"] == "succeeded"
    assert status["counts"]["total"] == IMAGES
    outcomes = check_job(f"{out}/{job}", status)
    assert {outcome["key"] for outcome in outcomes} == set(pixels)

    check_predictions(slow_repository / "slow" / "1", outcomes, pixels)
    for outcome in outcomes:
        scores = [answer["score"] for answer in outcome["predictions"]]
        assert scores == sorted(scores, reverse=True)

    streamed = millrace("results", job, env=env).stdout.splitlines()
    assert len(streamed) == IMAGES
    assert millrace("errors", job, env=env).stdout.strip() == "no errors"
    assert job in millrace("jobs", env=env).stdout
