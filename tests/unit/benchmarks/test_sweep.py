"""Settings take turns, are ordered by their medians, and those that fail are told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import sweep
from benchmarks.contenders import CONTENDERS, HERE, Peer
from tests.unit.benchmarks.courses import scripted, small_course, turns

LUCKY, EVEN = "--name lucky --rates 10,900,11", "--name even --rates 20"


def test_settings_take_turns_and_the_best_median_comes_first(
    tmp_path: Path, peers_here: None
) -> None:
    script = tmp_path / "peer.py"
    settings = [LUCKY, EVEN]
    found = sweep.sweep(scripted(script), small_course(tmp_path), 4, rounds=3, settings=settings)
    assert turns(script) == ["lucky", "even"] * 3
    assert [(flags, [round(rate) for rate in rates]) for flags, rates in found.items()] == [
        (EVEN, [20, 20, 20]),
        (LUCKY, [10, 900, 11]),
    ]


def test_every_combination_is_tried_and_what_fails_is_told_and_left_out(
    tmp_path: Path,
    peers_here: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = ["--always complain", "--always leave-one-out", "--shift 0"]
    monkeypatch.setitem(sweep.SETTINGS, "peer", (["--name a", "--name b"], faults))
    script = tmp_path / "peer.py"
    peer = scripted(script)
    found = sweep.sweep(peer, small_course(tmp_path), 4, 1, sweep.settings_of(peer))
    assert turns(script) == ["a"] * 3 + ["b"] * 3
    assert sorted(found) == ["--name a --shift 0", "--name b --shift 0"]
    told = capsys.readouterr().err.splitlines()
    assert "peer --name a --always complain: no room for the model" in told
    assert "peer --name b --always leave-one-out: 3 predictions for 4 images" in told


def test_every_peer_is_swept_with_options_that_its_script_has() -> None:
    peers = {one.name: one.script for one in CONTENDERS if isinstance(one, Peer)}
    assert peers.keys() == sweep.SETTINGS.keys()
    for name, script in peers.items():
        source = (HERE / "peers" / script).read_text()
        tried = re.findall(r"--[a-z-]+", str(sweep.SETTINGS[name]))
        assert tried
        assert {flag for flag in tried if f'"{flag}"' not in source} == set()
