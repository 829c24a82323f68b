"""`--processes auto`: measured once with real worker processes, and remembered."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
import pytest

from millrace.cli.model_options import worker_environment
from millrace.worker import split, supervisor
from millrace.worker.options import WorkerOptions
from millrace.worker.split import best_split
from tests.support import capture_logs, export_tiny


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    export_tiny(tmp_path / "models")
    return {
        "MILLRACE_MODEL": "tiny:1",
        "MILLRACE_MODELS": str(tmp_path / "models"),
        "MILLRACE_CACHE": str(tmp_path / "cache"),
    }


def options_of(environment: dict[str, str]) -> WorkerOptions:
    return WorkerOptions.load(
        model=environment["MILLRACE_MODEL"], cache=environment["MILLRACE_CACHE"]
    )


def kept(environment: dict[str, str]) -> list[Path]:
    return list(Path(environment["MILLRACE_CACHE"]).glob("splits/*.json"))


def test_the_fastest_split_is_measured_once(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = len(os.sched_getaffinity(0))
    found = best_split(options_of(environment), environment)
    (file,) = kept(environment)
    tried = orjson.loads(file.read_bytes())["tried"]
    assert [one["processes"] for one in tried][:2] == [1, 2][: len(tried)]
    assert all(one["images_per_s"] > 0 for one in tried)
    assert all(one["threads"] == max(1, cores // one["processes"]) for one in tried)
    assert found.images_per_s >= max(one["images_per_s"] for one in tried) / split.WORTH
    monkeypatch.setattr(split, "_measure", lambda *_: pytest.fail("measured again"))
    assert best_split(options_of(environment), environment) == found


def test_what_was_kept_and_damaged_is_measured_again(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {1: 100.0, 2: 102.0, 4: 110.0}
    monkeypatch.setattr(split, "_candidates", lambda: [1, 2, 4])
    monkeypatch.setattr(split, "_measure", lambda probes: rates[len(probes)])
    # Twice the processes are not worth two images a second more; four times are worth ten.
    assert best_split(options_of(environment), environment).processes == 4
    (file,) = kept(environment)
    file.write_bytes(b"{")
    rates[4] = 101.0
    assert best_split(options_of(environment), environment).processes == 1


def test_one_measurement_beside_something_else_decides_nothing(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is close is measured twice, in turns, and the better counts."""
    rates = {1: [100.0, 90.0], 2: [80.0, 140.0], 4: [50.0]}
    asked: list[int] = []

    def measure(probes: Sequence[Mapping[str, str]]) -> float:
        asked.append(len(probes))
        return rates[len(probes)].pop(0)

    monkeypatch.setattr(split, "_candidates", lambda: [1, 2, 4])
    monkeypatch.setattr(split, "_measure", measure)
    assert best_split(options_of(environment), environment) == split.Split(
        2, supervisor.threads_each(2), 140.0
    )
    assert asked == [1, 2, 4, 1, 2]


def test_a_split_that_fails_is_not_taken_and_nothing_is_kept(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {1: 100.0, 2: 150.0, 4: None}
    monkeypatch.setattr(split, "_candidates", lambda: [1, 2, 4])
    monkeypatch.setattr(split, "_measure", lambda probes: rates[len(probes)])
    assert best_split(options_of(environment), environment).processes == 2
    assert not kept(environment)


def test_a_cache_that_cannot_be_written_costs_only_the_next_measurement(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(split, "_candidates", lambda: [1])
    monkeypatch.setattr(split, "_measure", lambda *_: 100.0)
    assert best_split(options_of(environment), environment).images_per_s == 100


def test_a_model_that_does_not_load_is_left_to_one_process_which_says_why(
    environment: dict[str, str],
) -> None:
    environment["MILLRACE_MODEL"] = "tiny:2"
    assert best_split(options_of(environment), environment).processes == 1
    assert not kept(environment)


@pytest.mark.parametrize("cores", [1, 2, 6, 8])
def test_what_is_tried(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    tried = {1: [1], 2: [1, 2], 6: [1, 2, 4, 6], 8: [1, 2, 4, 8]}
    assert split._candidates() == tried[cores]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many probes each measurement was of; none is started."""
    found: list[int] = []

    def measure(probes: Sequence[Mapping[str, str]]) -> float:
        found.append(len(probes))
        return 100.0

    monkeypatch.setattr(split, "_candidates", lambda: [1])
    monkeypatch.setattr(split, "_measure", measure)
    return found


def test_another_version_under_the_same_name_is_measured_anew(
    environment: dict[str, str], measured: list[int]
) -> None:
    environment["MILLRACE_MODEL"] = "tiny"
    versions = Path(environment["MILLRACE_MODELS"]) / "tiny"
    for _ in range(2):
        best_split(options_of(environment), environment)
    assert measured == [1]
    shutil.copytree(versions / "1", versions / "2")
    best_split(options_of(environment), environment)
    assert measured == [1, 1]


def test_a_saved_model_that_was_overwritten_is_measured_anew(
    environment: dict[str, str], measured: list[int]
) -> None:
    path = Path(environment["MILLRACE_MODELS"]) / "tiny" / "1"
    options = WorkerOptions.load(
        saved_model=str(path), name="mine", cache=environment["MILLRACE_CACHE"]
    )
    for _ in range(2):
        best_split(options, {})
    assert measured == [1]
    graph = path / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-1])
    best_split(options, {})
    assert measured == [1, 1]


def test_another_number_of_gpus_is_measured_anew(
    environment: dict[str, str], measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for visible in ("", "0,1", "0,1", "0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        best_split(options_of(environment), environment)
    assert measured == [1, 1, 1]


@pytest.mark.usefixtures("no_environment")
@pytest.mark.parametrize(("said", "decode_threads"), [({}, "3"), ({"decode_threads": 5}, "5")])
def test_probes_are_told_what_the_workers_will_be(
    said: dict[str, int], decode_threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "gpus", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    options = {"model": "tiny", "device": "gpu", **said}
    told = split._environments(3, worker_environment(options))
    assert [one["MILLRACE_DEVICE"] for one in told] == ["gpu:0", "gpu:1", "gpu:0"]
    assert {one["MILLRACE_THREADS"] for one in told} == {"2"}
    assert {one["MILLRACE_DECODE_THREADS"] for one in told} == {decode_threads}
    assert {(one["MILLRACE_MODEL"], one["MILLRACE_CREW"]) for one in told} == {("tiny", "3")}


WAIT = "import threading; threading.Event().wait()"
SAY_READY = f"print({split.READY!r}, flush=True)"


@pytest.mark.parametrize("does", [WAIT, f"{SAY_READY}; {WAIT}"], ids=["loading", "measuring"])
def test_probes_that_hang_are_ended_and_not_measured(
    does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "PATIENCE_S", 0.5)
    (tmp_path / "sitecustomize.py").write_text(does)
    with capture_logs() as logs:
        assert split._measure([{"PYTHONPATH": str(tmp_path)}] * 2) is None
    assert [(entry["processes"], entry["s"]) for entry in logs] == [(2, 0.5)]


def test_probes_that_end_before_they_are_started_are_not_measured(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import os; {SAY_READY}; os._exit(1)")
    with capture_logs() as logs:
        assert split._measure([{"PYTHONPATH": str(tmp_path)}] * 2) is None
    assert logs == []


def test_a_model_that_cannot_be_run_is_left_to_one_process_which_says_why(
    environment: dict[str, str],
) -> None:
    path = Path(environment["MILLRACE_MODELS"]) / "tiny" / "1"
    (path / "saved_model.pb").write_bytes(b"this is no graph")
    alone = split.Split(1, supervisor.threads_each(1), 0.0)
    assert best_split(options_of(environment), environment) == alone
    assert not kept(environment)
