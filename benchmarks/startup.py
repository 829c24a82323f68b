"""How soon a worker is ready, beside a bare script: `python -m benchmarks.startup`.

The script imports TensorFlow, loads the SavedModel and runs one picture. The worker is ready when
its model is loaded and warmed, its batch size found, and it asks the queue for work. They take
turns; the medians are printed as JSON, in seconds, and as a multiple of the script's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.course import lay_out
from benchmarks.services import environment
from benchmarks.tables import Workload
from millrace.cli.embedded_redis import EmbeddedRedis

SCRIPT = """
import sys
import numpy, tensorflow
predict = tensorflow.saved_model.load(sys.argv[1]).signatures["serving_default"]
name, spec = next(iter(predict.structured_input_signature[1].items()))
predict(**{name: numpy.zeros((1, *spec.shape[1:]), numpy.float32)})
print("ready", flush=True)
"""

ENGINES = ("tensorflow", "openvino")


def script_s(bundle: Path) -> float:
    """Seconds until the bare script has run the model."""
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(bundle)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as script:
        assert script.stdout is not None
        if script.stdout.readline().strip() != "ready":
            raise RuntimeError("the script ended before it was ready")
        return time.perf_counter() - begun


def worker_s(bundle: Path, engine: str, redis_url: str) -> float:
    """Seconds until a worker says that it is ready."""
    begun = time.perf_counter()
    with _worker(bundle, engine, redis_url) as lines:
        if not any(json.loads(line)["event"] == "ready" for line in lines if line[0] == "{"):
            raise RuntimeError("the worker ended before it was ready")
        return time.perf_counter() - begun


@contextmanager
def _worker(bundle: Path, engine: str, redis_url: str) -> Iterator[Iterator[str]]:
    """A worker process; yields what it logs."""
    given = {
        "MILLRACE_SAVED_MODEL": str(bundle),
        "MILLRACE_NAME": "startup",
        "MILLRACE_ENGINE": engine,
        "MILLRACE_THREADS": "1",
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_LOG_FORMAT": "json",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "millrace.worker.process"],
        env=environment(given),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        yield iter(process.stderr)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    course = lay_out(Workload(model="mobilenetv2", inputs="small", storage="disk"), None)
    with EmbeddedRedis() as redis:
        contenders: dict[str, Callable[[], float]] = {"script": lambda: script_s(course.bundle)}
        for engine in ENGINES:
            contenders[engine] = lambda engine=engine: worker_s(course.bundle, engine, redis.url)  # type: ignore[misc]
        taken = [{name: start() for name, start in contenders.items()} for _ in range(asked.rounds)]
    medians = {name: median(one[name] for one in taken) for name in contenders}
    found = {
        name: {"seconds": round(seconds, 2), "times": round(seconds / medians["script"], 2)}
        for name, seconds in medians.items()
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
