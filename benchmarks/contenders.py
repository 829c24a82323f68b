"""Who takes part: millrace in its ways of running, and its peers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.tables import Workload

HERE = Path(__file__).parent
PEER_PYTHON = HERE / ".venv" / "bin" / "python"
MILLRACE = (sys.executable, "-m", "millrace.cli.main")
CORES = len(os.sched_getaffinity(0))
"""Those we may use, as `millrace worker` counts them."""

Resize = Literal["filtered", "sampled"]
"""How a contender shrinks pictures: looking at every pixel, or at the nearest few."""

CHUNK, SLOW_CHUNK = 128, 32
"""Images per chunk. Of 12-megapixel ones, or with a slow model, 128 would be many seconds of work
in one hand, for which everyone else has to wait in the end."""


@dataclass(frozen=True, slots=True)
class Work:
    """One run's input and output. `images` is a directory or an `s3://` URL."""

    model: Path
    images: str
    out: Path
    workload: Workload


@dataclass(frozen=True, slots=True)
class Millrace:
    """`millrace run` with some flags, on every core."""

    name: str
    flags: tuple[str, ...] = ()
    processes: int = CORES
    engine: str = "tensorflow"
    precision: str = "float32"
    resize: Resize = "filtered"

    def command(self, work: Work) -> list[str]:
        """What to run; it prints the ended job's status as JSON."""
        return [*MILLRACE, *self._arguments(work)]

    def shown(self, work: Work) -> str:
        """The command as a person would write it."""
        return " ".join(["millrace", *self._arguments(work)])

    def _arguments(self, work: Work) -> list[str]:
        return [
            *("run", work.images, "--model", str(work.model), "--out", str(work.out)),
            *("--job-id", "bench", "--chunk-size", str(_chunk_size(work.workload)), "--json"),
            *("--processes", str(self.processes), "--threads", "1"),
            *("--engine", self.engine, "--precision", self.precision, *self.flags),
        ]

    def missing(self) -> str | None:
        """Why it cannot take part, if it cannot."""
        known = self.engine != "openvino" or find_spec("openvino")
        return None if known else "OpenVINO is not installed"


@dataclass(frozen=True, slots=True)
class Peer:
    """A script of `peers/`, run in the peers' own environment.

    `best`: its flags for some inputs, as `benchmarks.sweep` found them; for others, and where
    there are none, its defaults are the best.
    """

    name: str
    script: str
    resize: Resize = "filtered"
    best: Mapping[str, str] = field(default_factory=dict)

    def command(self, work: Work) -> list[str]:
        """What to run; it prints {"images", "seconds"} as its last line."""
        options = ("--model", str(work.model), "--images", work.images, "--out", str(work.out))
        flags = self.best.get(work.workload.inputs, "").split()
        return [str(PEER_PYTHON), str(HERE / "peers" / self.script), *options, *flags]

    def shown(self, work: Work) -> str:
        """The command as a person would write it."""
        return " ".join(self.command(work)).replace(f"{HERE.parent}/", "")

    def missing(self) -> str | None:
        """Why it cannot take part, if it cannot."""
        return None if PEER_PYTHON.exists() else "benchmarks/.venv is not made"


Contender = Millrace | Peer

CONTENDERS: tuple[Contender, ...] = (
    Millrace("millrace-tensorflow-float32"),
    Millrace("millrace-tensorflow-bfloat16", precision="bfloat16"),
    Millrace("millrace-openvino-float32", engine="openvino"),
    Millrace("millrace-openvino-bfloat16", engine="openvino", precision="bfloat16"),
    Peer("celery-tutorial", "celery_tutorial.py"),
    Peer("tf-data", "tf_data.py", resize="sampled"),
    Peer("ray-data", "ray_data.py"),
    Peer("daft", "daft_udf.py"),
)


def _chunk_size(workload: Workload) -> int:
    slow = workload.inputs == "large" or workload.model == "resnet50"
    return SLOW_CHUNK if slow else CHUNK


def chosen(names: Sequence[str]) -> tuple[Contender, ...]:
    """The contenders of these names or, for none, all. Raises KeyError."""
    known = {contender.name: contender for contender in CONTENDERS}
    return tuple(known[name] for name in names) if names else CONTENDERS
