"""Nobody cheats: one prediction per image, and the top class the plain signature gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.inputs import picture_of

LEAST_AGREEMENT = 0.9
"""Below this a contender did other work than the rest, and its rate is not shown. The room is
for decoders and resize filters, which differ from project to project."""


class Cheated(Exception):
    """A contender did not do the work it was timed for."""


def agreement(top_classes: Mapping[str, int], images: int, reference: Sequence[int]) -> float:
    """The share of images whose top class is the reference's.

    `top_classes` maps the file name to the class. Raises Cheated unless it holds every one of
    the `images`, nothing else, and most of them agree.
    """
    wanted = {f"{number:06d}.jpg" for number in range(images)}
    if unknown := top_classes.keys() - wanted:
        raise Cheated(f"it predicted {min(unknown)}, which it was not given")
    if top_classes.keys() != wanted:
        raise Cheated(f"{len(top_classes)} predictions for {images} images")
    agreed = sum(
        top == reference[picture_of(name, len(reference))] for name, top in top_classes.items()
    )
    share = agreed / images
    if share < LEAST_AGREEMENT:
        raise Cheated(f"its top class is the plain signature's for only {share:.1%} of the images")
    return share


def millrace_answers(job_directory: Path) -> dict[str, int]:
    """File name → top class, of a job's outcome lines.

    Raises Cheated for an error line, or if an image was answered twice.
    """

    def top(row: dict[str, Any]) -> int:
        if "predictions" not in row:
            raise Cheated(f"an error line: {row}")
        return int(row["predictions"][0]["index"])

    return _answers(sorted(job_directory.glob("results/*/*.jsonl")), top)


def peer_answers(output: Path) -> dict[str, int]:
    """File name → top class, of a peer's file (or directory of files) of JSON lines.

    Raises Cheated if an image was answered twice.
    """
    files = sorted(output.rglob("*.json")) if output.is_dir() else [output]
    return _answers([file for file in files if file.exists()], lambda row: int(row["indices"][0]))


def _answers(files: Sequence[Path], top: Callable[[dict[str, Any]], int]) -> dict[str, int]:
    answers: dict[str, int] = {}
    for row in _rows(files):
        name = Path(row["key"]).name
        if name in answers:
            raise Cheated(f"{name} was answered twice")
        answers[name] = top(row)
    return answers


def _rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        with file.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
