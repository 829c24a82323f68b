"""What an image costs beside fetch, decode and predict: `python -m benchmarks.bookkeeping`.

One real worker process on a real redis-server and a real output directory runs a job at the
default chunk size; only fetch, decode and predict are stand-ins (`bookkeeping_worker`): six
bytes, one and the same 224 × 224 picture, scores of 1000 classes drawn before. Printed is the
process's CPU time per image, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bookkeeping_worker import CLASSES, REPORT, SIDE
from benchmarks.synthetic import SOURCE, SyntheticStores
from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.producer.job import Job
from millrace.producer.submit import make_spec, submit_spec

LIMIT_MS = 0.2
BATCH_SIZE = 4
"""What is found for MobileNetV2; larger ones would spread the cost of a batch over more images."""
STARTS_WITHIN_S, ENDS_WITHIN_S = 60.0, 200.0


def measure(images: int, directory: Path) -> dict[str, float]:
    """CPU milliseconds per image, `whole` and by what they were spent on; results, model and
    the worker's log lie below `directory`."""
    _write_bundle(directory / "models" / "standin" / "1")
    with EmbeddedRedis() as server:
        settings = Settings.load(redis_url=server.url, models=str(directory / "models"))
        services = Services(settings)
        services.stores = SyntheticStores(settings, images)
        report = directory / "report.json"
        environment = {
            **os.environ,
            "MILLRACE_REDIS_URL": server.url,
            "MILLRACE_MODELS": str(directory / "models"),
            "MILLRACE_MODEL": "standin",
            "MILLRACE_BATCH_SIZE": str(BATCH_SIZE),
            REPORT: str(report),
        }
        spec = make_spec(
            services, SOURCE, model=ModelRef("standin", None), output=str(directory / "out")
        )
        submit_spec(services, spec)
        with (directory / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.bookkeeping_worker"],
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            status = Job(services, spec.job_id).wait(timeout=ENDS_WITHIN_S)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(STARTS_WITHIN_S)
            services.redis.close()
    if status.counts.succeeded != images:
        raise SystemExit(f"{status.counts}: see {directory / 'worker.log'}")
    spent: dict[str, float] = json.loads(report.read_text())
    return {what: round(1000 * seconds / images, 4) for what, seconds in spent.items()}


def _write_bundle(path: Path) -> None:
    """A card beside a graph that is never loaded."""
    (path / "assets.extra").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"no graph")
    (path / LABELS_FILE).write_text("\n".join(f"class number {n}" for n in range(CLASSES)))
    card = Card.make(name="standin", version="1", signature="none", height=SIDE, width=SIDE)
    (path / CARD_FILE).write_text(card.model_dump_json())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40_000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as directory:
        spent = measure(images, Path(directory))
    print(json.dumps({"images": images, "cpu_ms_per_image": spent, "limit_ms": LIMIT_MS}, indent=2))


if __name__ == "__main__":
    main()
