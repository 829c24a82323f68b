"""Each peer in many settings, so that it races in its best (`Peer.best` in contenders.py).

`python -m benchmarks.sweep` prints a table for each peer, the best setting first, of MobileNetV2
on small pictures from disk; with --inputs large, of large ones, and with --try, of just the
settings said. They take turns, round after round; a setting's rate is the median of its rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from statistics import median

from benchmarks import harness
from benchmarks.check import Cheated
from benchmarks.command import Failed
from benchmarks.contenders import CONTENDERS, CORES, Peer
from benchmarks.course import Course, lay_out
from benchmarks.inputs import KINDS
from benchmarks.race import say
from benchmarks.run import BASE

BATCHES = [f"--batch {size}" for size in (8, 32)]
THREADS = [f"--threads {threads}" for threads in (1, CORES)]
ACTORS = [
    f"--actors {actors} --actor-cpus {cpus}"
    for actors, cpus in ((1, 0.1), (1, 1), (CORES, 0.1), (CORES, 0.5))
]

SETTINGS: Mapping[str, Sequence[Sequence[str]]] = {
    "celery-tutorial": ([f"--concurrency {times * CORES}" for times in (1, 2)],),
    "tf-data": (THREADS, BATCHES),
    "ray-data": (ACTORS, BATCHES),
    "daft": ([f"--concurrency {count}" for count in (1, CORES)], THREADS, BATCHES),
}
"""What to cross for each peer."""


def settings_of(peer: Peer) -> list[str]:
    """The flags of every setting worth trying."""
    return list(map(" ".join, product(*SETTINGS[peer.name])))


def sweep(
    peer: Peer, course: Course, images: int, rounds: int, settings: Sequence[str]
) -> dict[str, list[float]]:
    """Images per second of the peer in each setting, round by round; the best first."""
    found: dict[str, list[float]] = {}
    for flags in [*settings] * rounds:
        tuned = replace(peer, best={course.workload.inputs: flags})
        try:
            rate = harness.run(tuned, course, images).rate
        except (Failed, Cheated) as error:
            say(f"{peer.name} {flags}: {error}")
        else:
            found.setdefault(flags, []).append(rate)
            say(f"{peer.name} {flags}: {rate:.1f} images/s")
    return dict(sorted(found.items(), key=lambda item: -median(item[1])))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--inputs", choices=list(KINDS), default=BASE.inputs)
    parser.add_argument("--try", dest="tried", action="append", metavar="FLAGS")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args(arguments)
    if asked.tried and len(asked.only) != 1:
        parser.error("--try is of one peer: say --only")
    course = lay_out(BASE.model_copy(update={"inputs": asked.inputs}), None)
    for peer in CONTENDERS:
        if isinstance(peer, Peer) and peer.name in asked.only:
            print(f"\n| {peer.name} | images/s |\n| --- | ---: |")
            settings = asked.tried or settings_of(peer)
            for flags, rates in sweep(peer, course, asked.images, asked.rounds, settings).items():
                spread = f"{median(rates):.1f} ({min(rates):.1f}–{max(rates):.1f})"
                print(f"| `{flags}` | {spread} |", flush=True)


if __name__ == "__main__":
    main()
