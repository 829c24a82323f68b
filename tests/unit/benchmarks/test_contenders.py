"""Who takes part, and that what is shown is what is run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from benchmarks import contenders
from benchmarks.contenders import CONTENDERS, CORES, HERE, Contender, Millrace, Peer, Work, chosen
from benchmarks.tables import Workload

SMALL = Workload(model="mobilenetv2", inputs="small", storage="disk")
WORK = Work(Path("MODEL"), "IMAGES", Path("OUT"), SMALL)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda one: one.name)
def test_the_command_shown_is_the_one_that_is_run(contender: Contender) -> None:
    shown, run = shlex.split(contender.shown(WORK)), contender.command(WORK)
    options = shown.index("--model")
    assert shown[options:] == run[run.index("--model") :]
    assert str(HERE.parent) not in contender.shown(WORK)


def test_names_are_unique_and_choose() -> None:
    names = [one.name for one in CONTENDERS]
    assert len(set(names)) == len(names)
    assert chosen(names[2:4]) == CONTENDERS[2:4]
    assert chosen([]) == CONTENDERS
    with pytest.raises(KeyError):
        chosen(["nobody"])


def test_millrace_runs_a_process_of_one_thread_on_every_core() -> None:
    for one in CONTENDERS:
        if isinstance(one, Millrace):
            assert f"--processes {CORES} --threads 1 " in one.shown(WORK)


def test_a_peer_races_with_the_flags_that_were_best_for_these_inputs() -> None:
    peer = Peer("x", "x.py", best={"small": "--batch 4"})
    assert peer.command(WORK)[-2:] == ["--batch", "4"]
    large = SMALL.model_copy(update={"inputs": "large"})
    elsewhere = Work(WORK.model, WORK.images, WORK.out, large)
    assert "--batch" not in peer.command(elsewhere)


def test_every_peers_script_is_there() -> None:
    for one in CONTENDERS:
        assert isinstance(one, Millrace) or (HERE / "peers" / one.script).is_file()


def test_why_a_peer_is_missing_names_no_place_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(contenders, "PEER_PYTHON", tmp_path / "bin" / "python")
    why = Peer("x", "x.py").missing()
    assert why == "benchmarks/.venv is not made"
