"""`--processes auto`: measured once with real worker processes, and remembered."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from millrace.worker import split
from millrace.worker.options import WorkerOptions
from millrace.worker.split import best_split
from tests.support import export_tiny


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
    monkeypatch.setattr(split, "_measure", lambda processes, _: rates[processes])
    # Twice the processes are not worth two images a second more; four times are worth ten.
    assert best_split(options_of(environment), environment).processes == 4
    (file,) = kept(environment)
    file.write_bytes(b"{")
    rates[4] = 101.0
    assert best_split(options_of(environment), environment).processes == 1


def test_a_split_that_fails_is_not_taken_and_nothing_is_kept(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {1: 100.0, 2: 150.0, 4: None}
    monkeypatch.setattr(split, "_candidates", lambda: [1, 2, 4])
    monkeypatch.setattr(split, "_measure", lambda processes, _: rates[processes])
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
