"""A process killed in the middle of a write to a directory leaves nothing that counts."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from millrace.core.chunks import ChunkPlan
from millrace.core.jobdir import JobDirectory
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores

PLAN = ChunkPlan(2)

KILLED_MIDWAY = """
import resource, signal, sys
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores

store = Stores(StorageSettings.load()).open(Location.parse(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store.create(sys.argv[2], bytes(5000))
"""


def test_a_chunk_whose_writer_was_killed_is_neither_there_nor_in_the_way(tmp_path: Path) -> None:
    place = Location.parse(str(tmp_path / "out"))
    directory = JobDirectory(Stores(StorageSettings.load()), place)
    directory.create_chunk(PLAN, 0, b"one\n")
    (whole,) = (tmp_path / "out").rglob("*.jsonl")
    name = "results/part-00000/chunk-0000001.jsonl"
    command = [sys.executable, "-c", KILLED_MIDWAY, place.root, name]
    killed = subprocess.run(command, check=False, timeout=60)
    assert killed.returncode == -signal.SIGXFSZ
    (left,) = {*whole.parent.iterdir()} - {whole}
    assert left.name.startswith("chunk-0000001.jsonl#")

    assert [*directory.results(PLAN)] == [("results/part-00000/chunk-0000000.jsonl", 0)]
    assert directory.create_chunk(PLAN, 1, b"two\n") == b"two\n"
    assert sorted(directory.committed_chunks(PLAN)) == [0, 1]
    # Of what is not ours nothing is passed over.
    (whole.parent / "photo#1").touch()
    assert ("results/part-00000/photo#1", None) in directory.results(PLAN)
    assert left.exists()
    directory.remove()
    assert not Path(place.root).exists()
