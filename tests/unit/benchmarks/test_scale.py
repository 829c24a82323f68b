"""Who is compared with whom when millrace races itself."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contenders import CORES, Millrace
from benchmarks.scale import LATENCY_MS, entrants
from tests.unit.benchmarks.courses import small_course


def test_processes_are_compared_with_one_and_storage_with_the_disk(tmp_path: Path) -> None:
    one, most, s3, slow = entrants(small_course(tmp_path), ())
    assert (one.base, most.base) == (None, one.name)
    assert (s3.base, slow.base) == (most.name, most.name)
    assert [who.course.workload.storage for who in (one, most, s3, slow)] == [
        "disk",
        "disk",
        "s3",
        "s3",
    ]
    assert [who.latency_ms for who in (one, most, s3, slow)] == [0, 0, 0, LATENCY_MS]


def test_what_is_compared_differs_in_nothing_else(tmp_path: Path) -> None:
    one, *others = entrants(small_course(tmp_path), ("--top-k", "1"))
    assert isinstance(one.contender, Millrace)
    assert one.contender.processes == 1
    (most,) = {who.contender for who in others}
    assert isinstance(most, Millrace)
    assert most.processes == CORES
    assert (one.contender.flags, one.contender.engine) == (most.flags, most.engine)
    assert one.row().command.replace("--processes 1", f"--processes {CORES}") == (
        others[0].row().command
    )
    assert one.row().command.endswith(" --top-k 1")


def test_each_has_a_name_of_its_own_and_a_base_that_takes_part(tmp_path: Path) -> None:
    names: list[str] = []
    for who in entrants(small_course(tmp_path), ()):
        assert who.base is None or who.base in names
        names.append(who.name)
    assert len(set(names)) == len(names)
