"""How fast one worker process of several predicts: `python -m millrace.worker.probe`.

It loads the model as a worker would, says that it is ready, waits for a line on standard input,
predicts one picture over and over and prints how many images a second that was. Configured by
`MILLRACE_…`, like a worker.
"""

from __future__ import annotations

import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from millrace.core.errors import MillraceError
from millrace.core.log import configure
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.worker.agreement import Crew
from millrace.worker.exits import fail
from millrace.worker.inference import Inference
from millrace.worker.model_source import find_model
from millrace.worker.options import WorkerOptions
from millrace.worker.split import READY

SECONDS = 3.0
CHUNK = 64
PICTURE = (640, 480)


def picture() -> bytes:
    """A JPEG of a usual size, with something to see in it."""
    bands = (
        Image.linear_gradient("L").resize(PICTURE),
        Image.effect_mandelbrot(PICTURE, (-2.0, -1.2, 1.0, 1.2), 50),
        Image.radial_gradient("L").resize(PICTURE),
    )
    encoded = io.BytesIO()
    Image.merge("RGB", bands).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def measure(inference: Inference, slots: int, seconds: float = SECONDS) -> float:
    """Images a second, from bytes to scores, with so many chunks in flight."""
    data = picture()
    rows = [ManifestRow(str(number)) for number in range(CHUNK)]

    def run(until: float) -> int:
        images = 0
        while time.monotonic() < until:
            inference.pipeline.run(rows, lambda row: data)
            images += len(rows)
        return images

    started = time.monotonic()
    with ThreadPoolExecutor(slots) as threads:
        done = sum(threads.map(run, [started + seconds] * slots))
    return done / (time.monotonic() - started)


def main() -> None:
    try:
        settings = Settings.load()
        configure("error", settings.log_format)
        options = WorkerOptions.load()
        inference = Inference(find_model(Services(settings), options), options, Crew.load())
    except MillraceError as error:
        fail(error)
    print(READY, flush=True)
    sys.stdin.readline()
    print(measure(inference, options.chunk_slots), flush=True)
    inference.close()


if __name__ == "__main__":
    main()
