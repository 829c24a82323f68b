"""Everything a workload needs before the clock starts: pictures, a model, the right answers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.command import run_json
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
    """Make what is not there yet. `own` is the directory of the inputs called `own`.

    Raises ValueError if there are none; Failed if the model is not made.
    """
    if workload.inputs == "own":
        if own is None:
            raise ValueError("inputs of your own need --pictures DIR")
        pictures = copied(jpegs(own), WORK / "pictures" / "own")
        if not pictures:
            raise ValueError(f"{own} holds no JPEGs")
    else:
        pictures = write_set(KINDS[workload.inputs], WORK / "pictures" / workload.inputs)
    # A process of its own, for TensorFlow would stay in this one and take its memory.
    command = [sys.executable, "-m", "benchmarks.models", workload.model, str(WORK / "models")]
    answer = run_json([*command, *map(str, pictures)], os.environ)
    return Course(workload, Path(answer["bundle"]), pictures, answer["top"], WORK)


def copied(pictures: Sequence[Path], directory: Path) -> list[Path]:
    """The pictures where they can be linked to: links do not reach another file system."""
    if pictures and directory.exists() and pictures[0].parent.samefile(directory):
        return list(pictures)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return [Path(shutil.copy(picture, directory)) for picture in pictures]
