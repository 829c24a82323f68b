"""Millrace and its peers on the same files, taking turns.

Without options four tables are made: MobileNetV2 on small pictures from disk, and that with the
pictures, the storage or the model exchanged. --models, --inputs and --storage choose others; a
run replaces its tables in RESULTS.md and keeps the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from benchmarks.contenders import CONTENDERS, CORES, Contender, chosen
from benchmarks.course import Course, lay_out
from benchmarks.inputs import KINDS
from benchmarks.machine import commit, this_machine, versions
from benchmarks.models import ARCHITECTURES
from benchmarks.race import Entrant, race, say
from benchmarks.report import table_markdown, write
from benchmarks.tables import Table, Workload, load

BASE = Workload(model="mobilenetv2", inputs="small", storage="disk")
DEFAULT = (
    BASE,
    BASE.model_copy(update={"inputs": "large"}),
    BASE.model_copy(update={"storage": "s3"}),
    BASE.model_copy(update={"model": "resnet50"}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    rounds, seconds = (1, 3.0) if asked.quick else (asked.rounds, asked.seconds)
    load(this_machine(), versions())  # what cannot be added to must show before the race
    for workload in workloads(asked):
        say(f"{workload.name}: pictures and model")
        course = lay_out(workload, asked.pictures)
        table = _table(chosen(asked.only), course, rounds, seconds)
        print(table_markdown(table, CORES), flush=True)
        if not asked.quick and not asked.only:
            write(load(this_machine(), versions()).with_table(table))
    return 0


def _table(contenders: Sequence[Contender], course: Course, rounds: int, seconds: float) -> Table:
    entrants = [Entrant(one.name, one, course, limited=True) for one in contenders]
    measured = commit()  # before: the checkout may change under a long race
    rows = race(entrants, rounds, seconds)
    return Table(
        workload=course.workload, rows=rows, measured_at=datetime.now(UTC), commit=measured
    )


def workloads(asked: argparse.Namespace) -> tuple[Workload, ...]:
    """The tables to make, one for each."""
    inputs = ["own"] if asked.pictures else asked.inputs
    if not (asked.quick or asked.models or inputs or asked.storage):
        return DEFAULT
    crossed = product(
        asked.models or [BASE.model], inputs or [BASE.inputs], asked.storage or [BASE.storage]
    )
    return tuple(Workload(model=m, inputs=i, storage=s) for m, i, s in crossed)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make bench", description=__doc__)

    def several(flag: str, among: Sequence[str], told: str | None = None) -> None:
        made.add_argument(flag, nargs="+", choices=list(among), default=[], help=told)

    made.add_argument("--quick", action="store_true", help="one short round, not recorded")
    several("--only", [one.name for one in CONTENDERS], "just these, not recorded")
    several("--models", list(ARCHITECTURES))
    several("--inputs", list(KINDS))
    several("--storage", ["disk", "s3"])
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--seconds", type=float, default=12, help="about how long a run takes")
    made.add_argument("--pictures", type=Path, help="a directory of JPEGs instead of ours")
    return made


if __name__ == "__main__":
    sys.exit(main())
