"""Each peer in many settings, so that it races in its best.

`python -m benchmarks.sweep` prints a table for each: MobileNetV2 on small pictures from disk, the
settings taking turns, the best of the rounds of each (a setting is judged by what it can do).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from benchmarks import harness
from benchmarks.contenders import CONTENDERS, CORES, Peer
from benchmarks.course import lay_out
from benchmarks.race import say
from benchmarks.run import BASE

BATCHES = (8, 16, 32)
THREADS = (1, CORES)

SETTINGS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "celery-tutorial": {"--concurrency": (1, CORES, 2 * CORES)},
    "tf-data": {"--threads": THREADS, "--batch": BATCHES},
    "ray-data": {"--actors": (1, CORES), "--threads": THREADS, "--batch": BATCHES},
    "daft": {"--concurrency": (1, CORES), "--threads": THREADS, "--batch": BATCHES},
}


def settings(peer: Peer) -> Iterator[Peer]:
    """The peer in each of its settings."""
    choices = SETTINGS[peer.name]
    for values in product(*choices.values()):
        flags = [f"{flag} {value}" for flag, value in zip(choices, values, strict=True)]
        yield replace(peer, name=" ".join(flags), flags=tuple(" ".join(flags).split()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--images", type=int, default=640)
    asked = parser.parse_args(arguments)
    course = lay_out(BASE, None)
    for peer in CONTENDERS:
        if not isinstance(peer, Peer) or peer.name not in asked.only:
            continue
        tried = list(settings(peer))
        best = dict.fromkeys((one.name for one in tried), 0.0)
        for number, one in product(range(asked.rounds), tried):
            rate = harness.run(one, course, asked.images).rate
            say(f"round {number + 1}/{asked.rounds}  {peer.name} {one.name}: {rate:.1f} images/s")
            best[one.name] = max(best[one.name], rate)
        print(f"\n| {peer.name} | images/s |\n| --- | ---: |")
        for name, rate in sorted(best.items(), key=lambda item: -item[1]):
            print(f"| `{name}` | {rate:.1f} |", flush=True)


if __name__ == "__main__":
    main()
