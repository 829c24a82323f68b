"""How fast this machine predicts when it is split among so many processes.

`python -m millrace.worker.probe` is one of them: it loads the model as a worker would, says
`ready`, waits for a line, predicts one picture over and over for a while and prints how many
a second.
"""

from __future__ import annotations

import io
import sys
import time

from millrace.core.errors import MillraceError
from millrace.core.log import configure
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.worker.exits import fail
from millrace.worker.inference import Inference
from millrace.worker.model_source import find_model
from millrace.worker.options import WorkerOptions

SECONDS = 3.0
PICTURE = (640, 480)


def picture() -> bytes:
    """A JPEG of a usual size with something to see in it."""
    from PIL import Image

    gradient = Image.linear_gradient("L").resize(PICTURE)
    waves = Image.effect_mandelbrot(PICTURE, (-2.0, -1.2, 1.0, 1.2), 50)
    encoded = io.BytesIO()
    Image.merge("RGB", (gradient, waves, Image.radial_gradient("L").resize(PICTURE))).save(
        encoded, "JPEG", quality=90
    )
    return encoded.getvalue()


def main() -> None:
    """Load, wait for a line on standard input, predict for `SECONDS`, print images a second."""
    try:
        settings = Settings.load()
        configure("error", settings.log_format)
        options = WorkerOptions.load()
        inference = Inference(find_model(Services(settings), options), options)
    except MillraceError as error:
        fail(error)
    data = picture()
    rows = [ManifestRow(str(number), None, None) for number in range(2 * inference.batch_size)]
    inference.pipeline.run(rows, lambda row: data)
    print("ready", flush=True)
    sys.stdin.readline()
    images, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < SECONDS:
        inference.pipeline.run(rows, lambda row: data)
        images += len(rows)
    print(images / took, flush=True)
    inference.close()


if __name__ == "__main__":
    main()
