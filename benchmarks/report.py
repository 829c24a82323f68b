"""Results as Markdown: for the terminal a table at a time, for the repository RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.tables import STORED, Cost, Results, Row, Table

REPORT = STORED.with_name("RESULTS.md")

INTRODUCTION = """\
# Results

Written by `make bench` and `make bench-scale`; do not edit. How to run and read them:
[docs/performance.md](../docs/performance.md).

Images per second are medians of the rounds, slowest and fastest in brackets; contenders took
turns on the same files. Counted is, for millrace, from the first chunk's start to the job's end
(as its status says) and, for the peers, from the moment their model was loaded and had run until
their last prediction was written; start-up is the rest of the whole process. The limit is
cores ÷ (CPU seconds to decode one image + CPU seconds to predict one), measured in the same
rounds in a bare loop on all cores at once; beside it stands how many times the best peer's rate it
is. Efficiency is rate ÷ limit, round by round. Agreement is the share of images whose top class is
that of the plain signature on pictures decoded whole and shrunk as the contender's own library does
it: with a filter, or (tf-data) by samples; the worst round counts. The S3 endpoint is a server of
our own on the same cores, for moto's would be the bottleneck; its CPU per image is told. Listing
the pictures counts for the peers and not for millrace; it takes milliseconds from disk, and up to a
fifth of a second from S3. Weights are random.
"""


def markdown(results: Results) -> str:
    """RESULTS.md."""
    machine = results.machine
    parts = [
        INTRODUCTION,
        "## Machine and versions\n",
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_gib} GiB of memory.\n",
        ", ".join(f"{name} {version}" for name, version in results.versions.items()) + ".\n",
    ]
    parts += [table_markdown(table, machine.cores) for table in results.tables]
    if results.scale is not None:
        parts.append(scale_markdown(results.scale))
    return "\n".join(parts)


def write(results: Results, directory: Path = STORED.parent) -> None:
    """Keep the results, and their report beside them."""
    stored = results.model_dump_json(indent=1) + "\n"
    (directory / STORED.name).write_text(stored, encoding="utf-8")
    (directory / REPORT.name).write_text(markdown(results), encoding="utf-8")


def table_markdown(table: Table, cores: int) -> str:
    """One workload's table, what was absent and why, and the commands."""
    best = table.best_peer
    header = ["contender", "images/s", "÷ best peer", "limit (÷ best peer)"]
    header += ["efficiency", "agreement", "start-up, s"]
    if table.workload.storage == "s3":
        header.append("S3 endpoint, CPU ms/image")
    rows = []
    for row in table.rows:
        if row.rate is None:
            continue
        cells = [
            f"**{row.name}**" if row is best else row.name,
            _rate(row),
            _times(table.ratio(row)),
            _limit(table, row, cores),
            _percent(row.efficiency(cores)),
            _percent(row.agreement),
            _number(row.around_s),
        ]
        rows.append([*cells, _number(row.store_ms, 2)][: len(header)])
    return "\n".join(
        [
            f"## {table.workload.name}\n",
            _grid(header, rows),
            _costs(table.rows),
            _absent(table.rows),
            _commands(table),
        ]
    )


def scale_markdown(table: Table) -> str:
    """millrace against itself, each row beside the one it is compared with."""
    header = ("run", "images/s", "ratio", "to", "start-up, s", "S3 endpoint, CPU ms/image")
    rows = [
        [
            row.name,
            _rate(row),
            _times(table.ratio(row)) if row.base else "",
            row.base or "",
            _number(row.around_s),
            _number(row.store_ms, 2),
        ]
        for row in table.rows
        if row.rate is not None
    ]
    return "\n".join(
        [
            f"## Scaling: {table.workload.model}, {table.workload.inputs}\n",
            _grid(header, rows),
            _absent(table.rows),
            _commands(table),
        ]
    )


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _costs(rows: Sequence[Row]) -> str:
    told = [f"{row.name} {_cost(row.costs)}" for row in rows if row.costs]
    return f"CPU per image, decoding + predicting: {'; '.join(told)}.\n" if told else ""


def _cost(costs: Sequence[Cost]) -> str:
    middle = sorted(costs, key=lambda cost: cost.decode_s + cost.predict_s)[len(costs) // 2]
    return f"{1000 * middle.decode_s:.2f} + {1000 * middle.predict_s:.2f} ms"


def _absent(rows: Sequence[Row]) -> str:
    lines = [f"- {row.name} is absent: {row.absent}" for row in rows if row.absent]
    return "\n".join(lines) + "\n" if lines else ""


def _commands(table: Table) -> str:
    numbers = [str(sample.images) for row in table.rows for sample in row.samples]
    span = f"{min(numbers, key=int)} to {max(numbers, key=int)}" if numbers else "no"
    when = f"{table.measured_at:%Y-%m-%d %H:%M} UTC, commit {table.commit}"
    commands = "\n".join(row.command for row in table.rows if row.samples)
    return f"Measured {when}; {span} images a run.\n\n```sh\n{commands}\n```\n"


def _rate(row: Row) -> str:
    if row.rate is None or row.spread is None:
        return ""
    slowest, fastest = row.spread
    return f"{row.rate:.1f} ({slowest:.1f}–{fastest:.1f})"


def _limit(table: Table, row: Row, cores: int) -> str:
    limit = row.limit(cores)
    return "" if limit is None else f"{limit:.1f} ({_times(table.ratio_at_limit(row, cores))})"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}×"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"
