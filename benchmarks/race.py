"""Entrants take turns, round after round; what comes of it is a row for each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import harness, limit
from benchmarks.check import Cheated
from benchmarks.command import Failed
from benchmarks.contenders import CORES, Contender, Millrace, Work
from benchmarks.course import Course
from benchmarks.tables import Cost, Row, Sample

PEERS_SHARE = 0.6
"""Of the limit: how many images a peer's first round has. Later rounds follow its best."""


@dataclass(slots=True)
class Entrant:
    """A contender on a course, and what it has done so far.

    `base` is whom it is compared with; `limited`, whether its limit is measured too.
    """

    name: str
    contender: Contender
    course: Course
    latency_ms: float = 0
    base: str | None = None
    limited: bool = False
    samples: list[Sample] = field(default_factory=list)
    absent: str | None = None

    def row(self) -> Row:
        """Its results; an entrant that failed once has none."""
        work = Work(Path("MODEL"), "IMAGES", Path("OUT"), self.course.workload)
        return Row(
            name=self.name,
            peer=not isinstance(self.contender, Millrace),
            command=self.contender.shown(work),
            samples=() if self.absent else tuple(self.samples),
            base=self.base,
            absent=self.absent,
        )


def race(entrants: Sequence[Entrant], rounds: int, seconds: float) -> tuple[Row, ...]:
    """Run everyone once a round, each round begun by another; a run takes about `seconds`."""
    for entrant in entrants:
        if why := entrant.contender.missing():
            _drop(entrant, why)
    guess = _guess(entrants[0].course)
    for number in range(rounds):
        shift = number % len(entrants)
        for entrant in [*entrants[shift:], *entrants[:shift]]:
            if entrant.absent is None:
                say(f"round {number + 1}/{rounds}  {entrant.name}")
                _take_turn(entrant, guess, seconds)
    return tuple(entrant.row() for entrant in entrants)


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def _take_turn(entrant: Entrant, guess: float, seconds: float) -> None:
    """Measure the entrant's limit, if wished, and then the entrant."""
    contender, expected, cost = entrant.contender, guess, None
    if not isinstance(contender, Millrace):
        expected *= PEERS_SHARE
    elif entrant.limited:
        try:
            cost = _limit_of(entrant.course, contender.engine, contender.precision)
        except limit.NotMeasured as error:
            say(f"    its limit is not measured: {error}")
        else:
            expected = cost.limit(CORES)
    if entrant.samples:
        expected = max(sample.rate for sample in entrant.samples)
    images = harness.images_for(expected, seconds)
    try:
        sample = harness.run(contender, entrant.course, images, entrant.latency_ms)
    except (Failed, Cheated) as error:
        _drop(entrant, str(error))
        return
    except Exception as error:  # whatever it was, the others' rounds count
        _drop(entrant, f"{type(error).__name__}: {error}")
        return
    entrant.samples.append(sample.model_copy(update={"cost": cost}))
    say(
        f"    {sample.rate:.1f} images/s: {sample.images} in {sample.seconds:.1f} s, "
        f"whole process {sample.wall_s:.1f} s, agreement {sample.agreement:.1%}"
    )


def _guess(course: Course) -> float:
    """Images a second, to begin with."""
    try:
        return _limit_of(course, "tensorflow", "float32").limit(CORES)
    except limit.NotMeasured as error:
        say(f"no limit to begin with: {error}")
        return 10.0 * CORES


def _limit_of(course: Course, engine: str, precision: str) -> Cost:
    return limit.measure(course.bundle, course.pictures[0].parent, engine, precision)


def _drop(entrant: Entrant, why: str) -> None:
    entrant.absent = why
    say(f"{entrant.name} is out: {why}")
