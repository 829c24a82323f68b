"""Millrace beside itself: with more processes, and with storage that takes its time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.contenders import CORES, Millrace
from benchmarks.course import Course, lay_out
from benchmarks.inputs import KINDS
from benchmarks.machine import commit, this_machine, versions
from benchmarks.models import ARCHITECTURES
from benchmarks.race import Entrant, race, say
from benchmarks.report import scale_markdown, write
from benchmarks.tables import Table, Workload, load

LATENCY_MS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, not recorded")
    parser.add_argument("--model", choices=list(ARCHITECTURES), default="mobilenetv2")
    parser.add_argument("--inputs", choices=list(KINDS), default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="about how long a run takes")
    parser.add_argument("--flags", default="", help="more for millrace run, say --engine openvino")
    asked = parser.parse_args(arguments)
    rounds, seconds = (1, 3.0) if asked.quick else (asked.rounds, asked.seconds)
    load(this_machine(), versions())  # what cannot be added to must show before the race
    workload = Workload(model=asked.model, inputs=asked.inputs, storage="disk")
    say(f"{workload.name}: pictures and model")
    disk = lay_out(workload, None)
    measured = commit()  # before: the checkout may change under a long race
    rows = race(entrants(disk, tuple(asked.flags.split())), rounds, seconds)
    table = Table(workload=workload, rows=rows, measured_at=datetime.now(UTC), commit=measured)
    print(scale_markdown(table))
    if not asked.quick:
        write(load(this_machine(), versions()).model_copy(update={"scale": table}))
    return 0


def entrants(disk: Course, flags: tuple[str, ...]) -> list[Entrant]:
    """Who races on the files of `disk`: each but the first is compared with one before it."""
    s3 = disk.with_storage("s3")
    one = Millrace("1 process", flags, processes=1)
    most = Millrace(f"{CORES} processes", flags)
    return [
        Entrant("1 process, disk", one, disk),
        Entrant(f"{most.name}, disk", most, disk, base="1 process, disk"),
        Entrant(f"{most.name}, S3", most, s3, base=f"{most.name}, disk"),
        Entrant(
            f"{most.name}, S3 at {LATENCY_MS} ms a GET",
            most,
            s3,
            latency_ms=LATENCY_MS,
            base=f"{most.name}, disk",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
