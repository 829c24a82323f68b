"""The machine and the versions that a rate belongs to."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.contenders import CORES, HERE, PEER_PYTHON
from benchmarks.report import REPORT
from benchmarks.tables import STORED, Machine

OURS = ("millrace", "tensorflow", "openvino", "pillow", "numpy", "obstore", "celery")
PEERS = ("celery", "tensorflow", "ray", "daft", "pillow", "numpy", "pyarrow")

_ASK = """
import json, sys
from importlib.metadata import distributions
found = {one.name: one.version for one in distributions()}
print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))
"""


def this_machine() -> Machine:
    """Cores, processor model, memory."""
    names = (
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = psutil.virtual_memory().total / 2**30
    return Machine(cores=CORES, cpu=next(names, "unknown"), memory_gib=round(memory, 1))


def versions() -> dict[str, str]:
    """Package → version, ours by their names and the peers' as `peers: name`."""
    found = {}
    for name in OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if PEER_PYTHON.exists():
        done = subprocess.run(
            [PEER_PYTHON, "-c", _ASK, *PEERS], capture_output=True, text=True, check=True
        )
        found |= {f"peers: {name}": value for name, value in json.loads(done.stdout).items()}
    return found


def commit(root: Path = HERE.parent) -> str:
    """The commit measured, with `+` if files differ from it.

    The results themselves may: a run writes them after each of its tables.
    """
    name = _git(root, "describe", "--always", "--exclude=*")
    written = (f":(exclude)benchmarks/{file.name}" for file in (STORED, REPORT))
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return f"{name}+" if changed else name or "unknown"


def _git(root: Path, *arguments: str) -> str:
    """What it prints, and nothing where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
