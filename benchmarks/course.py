"""Everything a workload needs before the clock starts: pictures, a model, the right answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contenders import HERE, Resize
from benchmarks.inputs import KINDS, jpegs, write_set
from benchmarks.tables import Workload

WORK = HERE / ".work"
"""Made once and kept: pictures, models, answers. Git ignores it."""


@dataclass(frozen=True, slots=True)
class Course:
    """A workload laid out. `reference`: each picture's plain top class, by way of shrinking."""

    workload: Workload
    bundle: Path
    pictures: Sequence[Path]
    reference: Mapping[Resize, Sequence[int]]
    directory: Path
    """Scratch, for links to the pictures and for outputs."""

    def with_storage(self, storage: str) -> Course:
        """The same, read from elsewhere."""
        return replace(self, workload=self.workload.model_copy(update={"storage": storage}))


def lay_out(workload: Workload, own: Path | None) -> Course:
    """Make what is not there yet. `own` is the directory of the inputs called `own`."""
    if workload.inputs == "own":
        if own is None:
            raise ValueError("inputs of your own need --pictures DIR")
        pictures = jpegs(own)
    else:
        pictures = write_set(KINDS[workload.inputs], WORK / "pictures" / workload.inputs)
    # A process of its own, for TensorFlow would stay in this one and take its memory.
    command = [sys.executable, "-m", "benchmarks.models", workload.model, str(WORK / "models")]
    done = subprocess.run(
        [*command, *map(str, pictures)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the model was not made: {done.stderr.strip()[-500:]}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    return Course(workload, Path(answer["bundle"]), pictures, answer["top"], WORK)
