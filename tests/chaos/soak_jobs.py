"""The jobs of the soak: submitted by real commands that may be killed, and seen to their end."""

from __future__ import annotations

import io
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image

from millrace.core.errors import ExitCode, JobNotFound, MillraceError
from millrace.core.job import JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.status import JobStatus
from millrace.core.storage import Location, Stores
from millrace.producer.job import Job
from tests.chaos.soak_rig import Rig
from tests.faults.poison import POISON
from tests.support import MILLRACE, random_pixels

BUCKET = "soak"
FOLDERS = {"few": 30, "some": 150, "many": 500}
BROKEN_EVERY = 40
POISONED = "some/0020.png"
POLL_S = 0.3


def upload() -> dict[str, npt.NDArray[np.uint8]]:
    """Fill the bucket; the pixels by key, of all that can be predicted."""
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket=BUCKET)
    pixels: dict[str, npt.NDArray[np.uint8]] = {}
    for folder, images in FOLDERS.items():
        for n in range(images):
            key, file = f"{folder}/{n:04d}.png", io.BytesIO()
            if n % BROKEN_EVERY == 7:
                file.write(b"no picture")
            else:
                pixels[key] = random_pixels(len(pixels), (8, 8))
                Image.fromarray(pixels[key]).save(file, "PNG")
            if key == POISONED:
                del pixels[key]
                file.write(POISON)
            client.put_object(Bucket=BUCKET, Key=key, Body=file.getvalue())
    return pixels


@dataclass
class Jobs:
    """Keeps some jobs going until the rig's time is over; remembers all it began."""

    rig: Rig
    env: Mapping[str, str]
    log: Path
    seed: str
    images: dict[str, int] = field(default_factory=dict)
    """Of each job, how many its input holds."""
    faults: Counter[str] = field(default_factory=Counter)
    unfinished: list[str] = field(default_factory=list)
    """Jobs that did not end in time."""

    def run(self, at_once: int, settle_s: float) -> None:
        """Returns when every job has ended, or `settle_s` after the faults did."""
        lanes = [
            threading.Thread(target=self._lane, args=(lane, settle_s)) for lane in range(at_once)
        ]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()

    def _lane(self, lane: int, settle_s: float) -> None:
        chance = random.Random(f"{self.seed} lane {lane}")
        number = 0
        while not self.rig.over:
            job = f"soak-{lane}-{number:03d}"
            folder = chance.choice(sorted(FOLDERS))
            self.images[job] = FOLDERS[folder]
            number += 1
            arguments = [
                *("enqueue", f"s3://{BUCKET}/{folder}", "--model", "tiny"),
                *("--out", f"s3://{BUCKET}/out", "--job-id", job),
                *("--chunk-size", str(chance.choice([1, 5, 16, 64]))),
                *("--priority", chance.choice(["low", "normal", "high"])),
            ]
            killed_after = chance.uniform(0.4, 2.0) if chance.random() < 0.3 else None
            self._drive(job, arguments, killed_after, settle_s)

    def _drive(
        self, job: str, arguments: list[str], killed_after: float | None, settle_s: float
    ) -> None:
        """What a person does who wants this job done, whatever is said in between."""
        self._command(*arguments, killed_after=killed_after)
        services = Services(Settings.load(redis_url=self.rig.redis.url))
        ends_by: float | None = None
        while True:
            if ends_by is None and self.rig.over:
                ends_by = time.monotonic() + settle_s
            if ends_by is not None and time.monotonic() > ends_by:
                self.unfinished.append(job)
                return
            try:
                status = Job(services, job).status()
                if status.terminal:
                    return
                self._help(job, status)
            except JobNotFound:
                code = self._command("resume", f"s3://{BUCKET}/out/{job}", "--from-storage")
                if code == ExitCode.NOT_FOUND:
                    self._command(*arguments)
                if code == ExitCode.CONFLICT and was_cancelled(f"s3://{BUCKET}/out/{job}"):
                    return
            except MillraceError:
                pass  # it is away for the moment
            time.sleep(POLL_S)

    def _help(self, job: str, status: JobStatus) -> None:
        if status.health == "no_producer" or (self.rig.over and status.state is JobState.PAUSED):
            self._command("resume", job)

    def _command(self, *arguments: str, killed_after: float | None = None) -> int:
        """Run the real command; the exit code, which may be that of a kill."""
        env = {**os.environ, **self.env}
        with self.log.open("ab") as log:
            log.write(f"--- {arguments}\n".encode())
            log.flush()
            process = subprocess.Popen([*MILLRACE, *arguments], env=env, stdout=log, stderr=log)
            try:
                return process.wait(killed_after or 120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if killed_after is not None:
            self.faults["producer_killed"] += 1
        return process.returncode


def was_cancelled(uri: str) -> bool:
    """Whether the job had published that it was, which no wipe of Redis takes back."""
    stores, place = Stores(Settings.load()), Location.parse(uri)
    summary = JobDirectory(stores, place).read_summary()
    return summary is not None and summary["state"] == JobState.CANCELLED


def check_errors(
    outcomes: list[dict[str, Any]], pixels: Mapping[str, npt.NDArray[np.uint8]]
) -> None:
    """An image without prediction is one that has none, or that the store did not give."""
    for outcome in outcomes:
        key, error = outcome["key"], outcome.get("error", {}).get("code")
        if error == "storage_unavailable":
            continue
        if key in pixels:
            assert error is None, outcome
        else:
            assert error == ("worker_crashed" if key == POISONED else "not_an_image"), outcome


@dataclass
class Account:
    """What the store holds of the jobs in the end."""

    images: int = 0
    predicted: int = 0
    lost: int = 0
    duplicated: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, uri: str) -> None:
        """Count a job's manifest rows and outcome lines, whatever they are."""
        stores, location = Stores(Settings.load()), Location.parse(uri)
        store = stores.open(location)

        def lines(folder: str) -> list[dict[str, Any]]:
            names = [item.key for item in store.list(f"{location.prefix}{folder}")]
            return [orjson.loads(line) for name in names for line in store.get(name).splitlines()]

        rows, outcomes = lines("manifest/part-"), lines("results/")
        seen = Counter(outcome["key"] for outcome in outcomes)
        self.images += len(rows)
        self.lost += len({row["key"] for row in rows} - set(seen))
        self.duplicated += seen.total() - len(seen)
        self.predicted += sum("predictions" in outcome for outcome in outcomes)
        self.errors.update(o["error"]["code"] for o in outcomes if "error" in o)
