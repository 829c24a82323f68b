"""Images per second of every architecture, through the engines of a worker.

`python -m benchmarks.architectures [NAME…]` prints the table of docs/models.md in Markdown. The
networks have random weights, which changes nothing about the work; their bundles are made once and
kept (`--make` makes them and measures nothing). A rate is that of predicting one full batch after
another, of the size a worker would choose, on all cores: no picture is fetched or decoded.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.course import WORK
from benchmarks.machine import this_machine, versions
from millrace.core.bundle import Bundle, read_bundle
from millrace.core.errors import MillraceError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export import export_keras
from millrace.models import architecture, architectures, build
from millrace.worker.batch_size import warm_up
from millrace.worker.engines import load_predictor
from millrace.worker.tuning import EngineName, Precision, Tuning

SEED = 20
SECONDS = 4.0
"""How long each model predicts, and at least two batches."""

ENGINES = {
    "TensorFlow": Tuning(engine=EngineName.TENSORFLOW),
    "OpenVINO": Tuning(engine=EngineName.OPENVINO),
    "OpenVINO, bfloat16": Tuning(engine=EngineName.OPENVINO, precision=Precision.BFLOAT16),
}
PARAMETERS = "parameters.json"


def ensure_bundle(name: str, repository: Path) -> Bundle:
    """The bundle `<repository>/<name>/1`, made on the first call."""
    path = repository / name / "1"
    if not path.exists():
        load_tensorflow()
        import keras

        keras.utils.set_random_seed(SEED)
        found, model = architecture(name), build(name)
        export_keras(
            model,
            name=name,
            version="1",
            repository=str(repository),
            scale=found.scale,
            channels=found.channels,
        )
        (repository / name / PARAMETERS).write_text(json.dumps(model.count_params()))
    return read_bundle(path)


def images_per_second(bundle: Bundle, tuning: Tuning) -> float:
    """Raises ModelError, MissingExtra."""
    predictor = load_predictor(bundle, tuning)
    size = warm_up(predictor, None)
    pixels = np.random.default_rng(SEED).integers(0, 256, (size, *predictor.input_shape), np.uint8)
    predictor.predict(pixels)
    begun, batches = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < SECONDS or batches < 2:
        predictor.predict(pixels)
        batches += 1
    return batches * size / spent


def table(names: Sequence[str], repository: Path) -> Iterator[str]:
    """Line by line, for some take their time."""
    head = ["architecture", "input", "parameters", "`--scale`", *ENGINES]
    yield f"| {' | '.join(head)} |"
    yield f"|---|---|---:|---|{'---:|' * len(ENGINES)}"
    for name in names:
        found, bundle = architecture(name), ensure_bundle(name, repository)
        parameters = json.loads((repository / name / PARAMETERS).read_text())
        rates = []
        for tuning in ENGINES.values():
            try:
                rates.append(_rounded(images_per_second(bundle, tuning)))
            except MillraceError as error:
                rates.append(f"no: {error.message}")
        size = f"{found.height} × {found.width} {found.channels}"
        facts = [f"`{name}`", size, _count(parameters), f"`{found.scale}`"]
        yield f"| {' | '.join([*facts, *rates])} |"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 100_000 else f"{parameters / 1e3:.1f} k"


def _rounded(rate: float) -> str:
    """Two digits, which is more than two runs have in common."""
    digits = max(0, len(str(int(rate))) - 2)
    return f"{round(rate, -digits):,.0f}" if rate >= 10 else f"{rate:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all that there are")
    parser.add_argument("--make", action="store_true", help="make the bundles, measure nothing")
    asked = parser.parse_args()
    names, repository = asked.names or architectures(), WORK / "architectures"
    if asked.make:
        for name in names:
            print(ensure_bundle(name, repository).path)
        return
    for line in table(names, repository):
        print(line, flush=True)
    machine, found = this_machine(), versions()
    libraries = ", ".join(f"{name} {found[name]}" for name in ("tensorflow", "openvino"))
    print(f"\n{machine.cores} cores of {machine.cpu}; {libraries}.")


if __name__ == "__main__":
    main()
