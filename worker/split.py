"""How a machine's cores are best shared out: many processes of few threads, or the reverse.

What was found is kept on disk, for the same model, options, versions and host.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import orjson

from millrace.core.bundle import Bundle, compute_digest
from millrace.core.errors import MillraceError
from millrace.core.log import get_logger
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.worker.model_source import find_model
from millrace.worker.options import WorkerOptions
from millrace.worker.supervisor import THREADS, environments_each, threads_each
from millrace.worker.tuning import gpus

log = get_logger(__name__)

READY = "ready"
"""What a probe says when its model is loaded; a line sent to it then starts it."""

WORTH = 1.03
"""More processes hold more copies of the model: they must gain this much."""

CLOSE = 1.5
"""What was slower than the fastest by more than that is not measured again."""

PATIENCE_S = 300.0
"""How long probes may take to load their model and measure; some seconds is usual."""


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
    try:
        bundle = find_model(Services(_settings(environment)), options)
    except MillraceError:
        return _alone()
    kept = _place(bundle, options)
    if (known := _read(kept)) is not None:
        log.info("known how to share the cores", **asdict(known))
        return known
    candidates = _candidates()
    found = _tried(candidates, environment)
    best = _alone()
    for split in found:
        if split.images_per_s > best.images_per_s * WORTH:
            best = split
    if len(found) == len(candidates):
        _write(kept, best, found)
    return best


def _tried(candidates: Sequence[int], environment: Mapping[str, str]) -> list[Split]:
    """Each number of processes, in two rounds of which the better counts: beside something else
    one measurement alone is chance, and it is kept. Whatever follows one that fails is left out."""
    found: dict[int, Split] = {}

    def measure(processes: int) -> bool:
        rate = _measure(_environments(processes, environment))
        if rate is None:
            return False
        before = found[processes].images_per_s if processes in found else 0.0
        found[processes] = Split(processes, threads_each(processes), round(max(rate, before), 2))
        log.info("measured", processes=processes, images_per_s=round(rate, 2))
        return True

    for processes in candidates:
        if not measure(processes):
            break  # not enough memory, most likely; more processes will not do either
    fastest = max((split.images_per_s for split in found.values()), default=0.0)
    close = [split.processes for split in found.values() if split.images_per_s * CLOSE >= fastest]
    if len(close) > 1:
        for processes in close:
            measure(processes)
    return [*found.values()]


def _alone() -> Split:
    return Split(1, threads_each(1), 0.0)


def _settings(environment: Mapping[str, str]) -> Settings:
    """Those of the processes, as far as a model is found by them."""
    return Settings.load(models=environment.get("MILLRACE_MODELS") or None)


def _candidates() -> list[int]:
    """1, 2, 4, … and all the cores."""
    cores = len(os.sched_getaffinity(0))
    return sorted({*(1 << n for n in range(cores.bit_length()) if 1 << n <= cores), cores})


def _environments(processes: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What each of so many probes is told: as the workers will be, and the threads to measure."""
    threads = {THREADS: str(threads_each(processes))}
    return [each | threads for each in environments_each(processes, environment)]


def _measure(environments: Sequence[Mapping[str, str]]) -> float | None:
    """Images a second of probes configured so, at once; None if one of them ended before its
    time, or they ran out of it."""
    with ExitStack() as started:
        probes = [
            started.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "millrace.worker.probe"],
                    env={**os.environ, **environment},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            for environment in environments
        ]
        for probe in probes:
            started.callback(probe.kill)
        # Whoever is killed says nothing more, and its line comes back empty.
        deadline = threading.Timer(PATIENCE_S, _give_up, [probes])
        started.callback(deadline.cancel)
        deadline.start()
        if [_line(probe) for probe in probes] != [READY] * len(probes):
            return None
        if not all(_go(probe) for probe in probes):
            return None
        rates = [_line(probe) for probe in probes]
        return sum(map(float, rates)) if all(rates) else None


def _give_up(probes: Sequence[subprocess.Popen[str]]) -> None:
    log.warning("measuring takes too long; not measured", processes=len(probes), s=PATIENCE_S)
    for probe in probes:
        probe.kill()


def _go(probe: subprocess.Popen[str]) -> bool:
    """Start a probe that is ready; False if it is gone."""
    assert probe.stdin is not None
    try:
        with probe.stdin:
            probe.stdin.write("\n")
    except BrokenPipeError:
        return False
    return True


def _line(probe: subprocess.Popen[str]) -> str:
    assert probe.stdout is not None
    return probe.stdout.readline().strip()


def _place(bundle: Bundle, options: WorkerOptions) -> Path:
    """Where the split of this model, run so on this machine, is kept."""
    facts = {
        # Of its files as they lie there, for they may be replaced under the same name.
        "model": compute_digest(bundle.path, bundle.card, bundle.labels),
        "options": options.model_dump(mode="json"),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": gpus(),
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
