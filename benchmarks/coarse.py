"""How often a picture that is read coarsely gets another top class than one that is read whole.

`python -m benchmarks.coarse --pictures DIR` takes a trained model as a worker does, from
`MILLRACE_…` (say MILLRACE_SAVED_MODEL, _NAME, _SIZE and _SCALE), enlarges random parts of the
photographs so that their shorter side has as many pixels as asked, and prints the share of equal
top classes for several values of `core.pictures.REDUCING_GAP`. Beside it stands the share where a
third of the values of the picture read whole are changed by one: what rounding alone does.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.inputs import jpegs
from millrace.core import pictures
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.worker.engines import load_predictor
from millrace.worker.images import ImageDecoder
from millrace.worker.model_source import find_model
from millrace.worker.options import WorkerOptions

GAPS = (3.0, 2.0, 1.0)
OFF_BY_ONE = (0.17, 0.66, 0.17)

Pixels = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    pixels: Pixels
    cpu_ms: float
    """Of one picture."""


def parts(photographs: Sequence[Path], count: int, shorter: int, seed: int = 0) -> list[bytes]:
    """JPEGs of random parts of the photographs in turn, enlarged to that shorter side."""
    dice = np.random.default_rng(seed)
    found = []
    for number in range(count):
        with Image.open(photographs[number % len(photographs)]) as opened:
            whole = opened.convert("RGB")
        width, height = (round(dice.uniform(0.6, 1.0) * side) for side in whole.size)
        left, top = dice.integers(0, (whole.width - width + 1, whole.height - height + 1))
        size = [round(side * shorter / min(width, height)) for side in (width, height)]
        part = io.BytesIO()
        box = (left, top, left + width, top + height)
        whole.crop(box).resize(size, Image.Resampling.LANCZOS).save(part, "JPEG", quality=90)
        found.append(part.getvalue())
    return found


def decode(decoder: ImageDecoder, encoded: Sequence[bytes]) -> Decoded:
    begun = time.process_time()
    pixels = np.stack([decoder.decode(data) for data in encoded])
    return Decoded(pixels, 1000 * (time.process_time() - begun) / len(encoded))


def off_by_one(pixels: Pixels) -> Pixels:
    """A third of the values changed by one."""
    steps = np.random.default_rng(1).choice([-1, 0, 1], pixels.shape, p=OFF_BY_ONE)
    changed: Pixels = np.clip(pixels.astype(np.int16) + steps, 0, 255).astype(np.uint8)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coarse", description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="a directory of JPEGs")
    parser.add_argument("--shorter", type=int, nargs="+", default=[760, 1520, 3000])
    parser.add_argument("--count", type=int, default=150)
    asked = parser.parse_args()
    photographs = jpegs(asked.pictures)
    options = WorkerOptions.load()
    bundle = find_model(Services(Settings.load()), options)
    predictor = load_predictor(bundle, options.tuning)

    def decoder(exact: bool) -> ImageDecoder:
        return ImageDecoder(bundle.card, max_pixels=options.max_pixels, exact=exact)

    def best(pixels: Pixels) -> npt.NDArray[np.intp]:
        return np.asarray(predictor.predict(pixels).argmax(axis=1))

    print(
        "| shorter side | read | CPU ms to decode | same top class |\n| ---: | --- | ---: | ---: |"
    )
    for shorter in asked.shorter:
        encoded = parts(photographs, asked.count, shorter)
        whole = decode(decoder(exact=True), encoded)
        expected = best(whole.pixels)
        rows = {"whole, off by one": Decoded(off_by_one(whole.pixels), whole.cpu_ms)}
        for gap in GAPS:
            pictures.REDUCING_GAP = gap
            rows[f"to {gap} times the input"] = decode(decoder(exact=False), encoded)
        for name, (pixels, cpu_ms) in rows.items():
            same = np.mean(best(pixels) == expected)
            print(f"| {shorter} | {name} | {cpu_ms:.1f} | {same:.1%} |", flush=True)


if __name__ == "__main__":
    main()
