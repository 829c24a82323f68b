"""Courses of a few bytes, and peers that are real scripts which predict nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import contenders
from benchmarks.contenders import Peer, Resize
from benchmarks.course import Course
from benchmarks.tables import Workload

DISTINCT = 2

SCRIPT = """
import json, os, re, sys, time
from pathlib import Path
from urllib.request import urlopen

given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
images, name = given["--images"], given.get("--name", "peer")
log = Path(__file__).with_suffix(".log")
with log.open("a") as lines:
    print(name, file=lines)
turn = log.read_text().splitlines().count(name)
fault = given.get(f"--turn-{turn}") or given.get("--always")
if fault == "complain":
    sys.exit("warming up\\nno room for the model")
if fault == "say-nothing":
    sys.exit(0)
if fault == "fail-silently":
    os._exit(7)
if images.startswith("s3://"):
    bucket, _, prefix = images.removeprefix("s3://").partition("/")
    query = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}?list-type=2&prefix={prefix}/"
    keys = re.findall("<Key>(.*?)</Key>", urlopen(query).read().decode())
else:
    keys = sorted(str(path) for path in Path(images).iterdir())
if fault == "leave-one-out":
    keys.pop()
shift = int(given.get("--shift", 0))
if fault != "write-nothing":
    with open(given["--out"], "w") as lines:
        for key in keys:
            top = (int(Path(key).stem) + shift) % %d
            print(json.dumps({"key": key, "indices": [top, 1 - top]}), file=lines)
rates = given.get("--rates", "64").split(",")
seconds = len(keys) / float(rates[(turn - 1) % len(rates)])
print("what a library says first")
print(json.dumps({"images": len(keys)} | ({} if fault == "time-nothing" else {"seconds": seconds})))
""".replace("%d", str(DISTINCT))
"""Answers at once, and says it took as long as `--rates` has it for this turn of `--name`."""


def small_course(directory: Path, storage: str = "disk") -> Course:
    """Two pictures nobody decodes, a model nobody loads."""
    pictures = [directory / "pictures" / f"{number:05d}.jpg" for number in range(DISTINCT)]
    pictures[0].parent.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        picture.write_bytes(f"picture {number}".encode())
    return Course(
        Workload(model="none", inputs="small", storage=storage),
        directory / "no-bundle",
        pictures,
        # Whoever takes samples is right with what is wrong for the others.
        {"filtered": [0, 1], "sampled": [1, 0]},
        directory,
    )


def scripted(
    script: Path, name: str = "peer", resize: Resize = "filtered", **options: object
) -> Peer:
    """A peer whose script is SCRIPT, with options of it."""
    script.write_text(SCRIPT)
    flags = {"name": name, **{key.replace("_", "-"): value for key, value in options.items()}}
    best = " ".join(f"--{flag} {value}" for flag, value in flags.items())
    return Peer(name, str(script), resize, {"small": best})


def turns(script: Path) -> list[str]:
    """Who ran, in order."""
    log = script.with_suffix(".log")
    return log.read_text().splitlines() if log.exists() else []


@contextmanager
def peers_run_here() -> Iterator[None]:
    """The peers' own environment is this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders, "PEER_PYTHON", Path(sys.executable))
        yield
