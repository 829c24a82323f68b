"""How a machine's cores are best shared out: many processes of few threads, or the reverse.

What was found is kept on disk, for the same model, options, versions and host.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import orjson

from millrace.core.log import get_logger
from millrace.worker.options import WorkerOptions
from millrace.worker.supervisor import THREADS, threads_each

log = get_logger(__name__)

READY = "ready"
"""What a probe says when its model is loaded; a line sent to it then starts it."""

WORTH = 1.03
"""More processes hold more copies of the model: they must gain this much."""


@dataclass(frozen=True, slots=True)
class Split:
    """So many processes of so many threads each."""

    processes: int
    threads: int
    images_per_s: float


def best_split(options: WorkerOptions, environment: Mapping[str, str]) -> Split:
    """The fastest split, as found on this machine before, or measured now.

    `environment` configures the processes. Raises nothing of the model's: one that cannot be
    loaded is a split of one process, which will say why.
    """
    kept = _place(options, environment)
    if (known := _read(kept)) is not None:
        log.info("known how to share the cores", **asdict(known))
        return known
    found: list[Split] = []
    candidates = _candidates()
    for processes in candidates:
        rate = _measure(processes, environment)
        if rate is None:
            break  # not enough memory, most likely; more processes will not do either
        found.append(Split(processes, threads_each(processes), round(rate, 2)))
        log.info("measured", **asdict(found[-1]))
    best = Split(1, threads_each(1), 0.0)
    for split in found:
        if split.images_per_s > best.images_per_s * WORTH:
            best = split
    if len(found) == len(candidates):
        _write(kept, best, found)
    return best


def _candidates() -> list[int]:
    """1, 2, 4, … and all the cores."""
    cores = len(os.sched_getaffinity(0))
    return sorted({*(1 << n for n in range(cores.bit_length()) if 1 << n <= cores), cores})


def _measure(processes: int, environment: Mapping[str, str]) -> float | None:
    """Images a second of so many processes at once; None if one of them ended before its time."""
    threads = {THREADS: str(threads_each(processes))}
    with ExitStack() as started:
        probes = [
            started.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "millrace.worker.probe"],
                    env={**os.environ, **environment, **threads},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            for _ in range(processes)
        ]
        for probe in probes:
            started.callback(probe.kill)
        if [_line(probe) for probe in probes] != [READY] * processes:
            return None
        for probe in probes:
            assert probe.stdin is not None
            probe.stdin.write("\n")
            probe.stdin.flush()
        rates = [_line(probe) for probe in probes]
        return sum(map(float, rates)) if all(rates) else None


def _line(probe: subprocess.Popen[str]) -> str:
    assert probe.stdout is not None
    return probe.stdout.readline().strip()


def _place(options: WorkerOptions, environment: Mapping[str, str]) -> Path:
    """Where the split of this model on this machine is kept."""
    facts = {
        "options": options.model_dump(mode="json"),
        "models": environment.get("MILLRACE_MODELS") or os.environ.get("MILLRACE_MODELS"),
        "cores": len(os.sched_getaffinity(0)),
        "host": os.uname().nodename,
        "versions": [_version(name) for name in ("millrace", "tensorflow", "openvino")],
    }
    name = hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    return Path(options.cache) / "splits" / f"{name}.json"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write(path: Path, best: Split, tried: list[Split]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps({"best": asdict(best), "tried": [asdict(s) for s in tried]}))
    except OSError as error:
        log.warning("cannot keep how to share the cores", error=str(error))


def _read(path: Path) -> Split | None:
    """What stands there; nothing if it was damaged."""
    try:
        best = orjson.loads(path.read_bytes())["best"]
        return Split(int(best["processes"]), int(best["threads"]), float(best["images_per_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
