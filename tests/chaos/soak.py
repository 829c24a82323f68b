"""Random faults against three workers and several jobs at once: `make soak`.

Whatever happened, in the end every job must be exact: each manifest row has one outcome line,
the status says what `verify` finds, each prediction is what the model itself answers.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.errors import JobConflict
from millrace.core.jobdir import JobDirectory
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.producer.job import Job
from millrace.producer.recover import restore
from millrace.producer.verify import verify
from tests.chaos.soak_faults import HANDS, Fault
from tests.chaos.soak_jobs import BUCKET, Account, Jobs, check_errors, upload, was_cancelled
from tests.chaos.soak_rig import Rig, SoakWorker, Weather
from tests.faults.poison import killed_by_poison
from tests.faults.redis_server import MortalRedis
from tests.faults.s3_proxy import s3_proxy
from tests.job_checks import check_job, check_predictions
from tests.support import export_tiny

WORKERS = 3
JOBS_AT_ONCE = 3
SETTLE_S = 240
PAUSE_S = 4

IMPATIENT = {
    "MILLRACE_LEASE_S": "3",
    "MILLRACE_RECONCILE_S": "1",
    "MILLRACE_REDIS_TIMEOUT_S": "2",
    "MILLRACE_WATCHDOG_S": "10",
    "MILLRACE_STORAGE_REQUEST_TIMEOUT_S": "3",
    "MILLRACE_STORAGE_RETRY_TIMEOUT_S": "30",
}


def main() -> int:
    """Exit code 0 if everything was exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--keep", type=Path, help="a folder for the logs")
    options = parser.parse_args()
    print(f"soak: seed {options.seed}, {options.minutes:g} minutes", flush=True)
    with ExitStack() as stack:
        logs = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs.mkdir(parents=True, exist_ok=True)
        return soak(options.seed, options.minutes * 60, logs, stack)


def soak(seed: str, lasts_s: float, logs: Path, stack: ExitStack) -> int:
    redis = stack.enter_context(MortalRedis(append_only=True))
    s3 = stack.enter_context(EmbeddedS3())
    os.environ.update(s3.environment)  # for this process, which sees the store as it is
    pixels = upload()
    repository = logs / "models"
    export_tiny(repository)
    weather = Weather(f"{seed} weather")
    endpoint = stack.enter_context(
        s3_proxy(s3.endpoint, instead=weather.instead, afterwards=weather.afterwards)
    )
    env = {"MILLRACE_REDIS_URL": redis.url, "MILLRACE_MODELS": str(repository), **IMPATIENT}
    troubled = env | s3.environment | {"AWS_ENDPOINT_URL": endpoint}
    deadly = troubled | killed_by_poison(logs / "killer", logs / "deaths")
    workers = [SoakWorker(redis, deadly, logs / f"worker-{n}.log") for n in range(WORKERS)]
    for worker in workers:
        stack.callback(worker.stop)
    rig = Rig(redis, weather, workers, time.monotonic() + lasts_s)
    jobs = Jobs(rig, troubled, logs / "commands.log", seed)
    # A pool, because its threads stay: a server ends with the thread that started it.
    hands = stack.enter_context(ThreadPoolExecutor(len(HANDS)))
    shaken = [
        hands.submit(shake, rig, f"{seed} {n}", faults, jobs.faults)
        for n, faults in enumerate(HANDS)
    ]
    jobs.run(JOBS_AT_ONCE, SETTLE_S)
    for hand in shaken:
        hand.result()
    return report(jobs, repository / "tiny" / "1", pixels)


def shake(rig: Rig, seed: str, faults: Sequence[Fault], happened: Counter[str]) -> None:
    """One fault after another, until the time is over."""
    chance, began = random.Random(seed), time.monotonic()
    while not rig.over:
        fault = chance.choice(faults)
        print(f"{time.monotonic() - began:6.1f} s  {fault.__name__}", flush=True)
        fault(rig, chance)
        happened[fault.__name__] += 1
        time.sleep(chance.uniform(0, PAUSE_S))


def report(jobs: Jobs, bundle: Path, pixels: dict[str, npt.NDArray[np.uint8]]) -> int:
    """Look at every job as a reader of the store would, and print what was found."""
    services = Services(Settings.load(redis_url=jobs.rig.redis.url))
    account, wrong, cancelled = Account(), list(jobs.unfinished), 0
    for job in jobs.images:
        if job in jobs.unfinished:
            continue
        uri = f"s3://{BUCKET}/out/{job}"
        try:
            directory = JobDirectory(services.stores, Location.parse(uri))
            if was_cancelled(uri):
                cancelled += 1
                assert verify(services, directory).ok
                continue
            account.add(uri)
            with suppress(JobConflict):  # Redis knows it; if not, it had ended before a wipe
                restore(services, directory)
            status = Job(services, job).wait(SETTLE_S)
            outcomes = check_job(uri, status.model_dump(mode="json"))
            assert len(outcomes) == jobs.images[job]
            found = verify(services, directory)
            assert found.ok, found.findings
            assert found.asked_redis
            check_errors(outcomes, pixels)
            check_predictions(bundle, outcomes, pixels)
        except Exception as error:
            print(f"{job}: {error!r}"[:2000])
            wrong.append(job)
    happened = ", ".join(f"{name} {times}" for name, times in sorted(jobs.faults.items()))
    print(f"faults injected: {jobs.faults.total()} ({happened})")
    print(f"jobs: {len(jobs.images)}, cancelled {cancelled}, not exact {len(wrong)} {wrong or ''}")
    print(
        f"images: {account.images}, predicted {account.predicted}, errors {dict(account.errors)}, "
        f"lost {account.lost}, duplicated {account.duplicated}"
    )
    return 1 if wrong or account.lost or account.duplicated else 0


if __name__ == "__main__":
    sys.exit(main())
