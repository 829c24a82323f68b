"""A race of six, three rounds long: who runs when, and what is made of how it went."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest

from benchmarks.contenders import CORES, Millrace, Peer
from benchmarks.harness import images_for
from benchmarks.race import PEERS_SHARE, Entrant, race
from benchmarks.tables import Row, Table, Workload
from tests.unit.benchmarks.courses import peers_run_here, scripted, small_course, turns

ROUNDS, SECONDS = 3, 4.0
BEGUN = images_for(10.0 * CORES * PEERS_SHARE, SECONDS)
"""Images of a peer's first round where no limit could be measured."""


class Absent(Peer):
    """A peer whose packages are not there."""

    def missing(self) -> str:
        return "not installed"


@dataclass(frozen=True, slots=True)
class Raced:
    """A race that is over."""

    order: Sequence[str]
    rows: Sequence[Row]
    said: Sequence[str]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Raced:
    directory = tmp_path_factory.mktemp("race")
    course, script = small_course(directory), directory / "peer.py"
    contenders = [
        scripted(script, "first", rates="50,100,40"),
        scripted(script, "flaky", rates="99", turn_2="complain"),
        scripted(script, "last", rates="40,150,120"),
        scripted(script, "cheat", always="leave-one-out"),
        scripted(script, "odd", always="time-nothing"),
        Absent("gone", str(script)),
    ]
    entrants = [Entrant(one.name, one, course) for one in contenders]
    entrants[2].base = "first"
    with peers_run_here(), redirect_stderr(StringIO()) as said:
        rows = race(entrants, ROUNDS, SECONDS)
    return Raced(turns(script), rows, said.getvalue().splitlines())


def test_all_take_a_turn_a_round_and_each_round_is_begun_by_another(raced: Raced) -> None:
    first = ["first", "flaky", "last", "cheat", "odd"]
    second = ["flaky", "last", "first"]
    third = ["last", "first"]
    assert raced.order == [*first, *second, *third]


def test_there_is_a_row_for_everyone_in_the_order_given(raced: Raced) -> None:
    assert [row.name for row in raced.rows] == ["first", "flaky", "last", "cheat", "odd", "gone"]
    assert [len(row.samples) for row in raced.rows] == [ROUNDS, 0, ROUNDS, 0, 0, 0]


def test_a_row_has_a_sample_of_every_round(raced: Raced) -> None:
    first = raced.row("first")
    assert [sample.rate for sample in first.samples] == [50, 100, 40]
    assert (first.rate, first.spread, first.peer, first.absent) == (50, (40, 100), True, None)


def test_who_fails_once_has_no_results_and_says_why(raced: Raced) -> None:
    assert raced.row("flaky").absent == "no room for the model"
    assert raced.row("flaky").rate is None
    assert raced.row("gone").absent == "not installed"
    assert raced.row("cheat").absent == f"{BEGUN - 1} predictions for {BEGUN} images"
    assert raced.row("odd").absent == "KeyError: 'seconds'"


def test_failures_are_told_when_they_happen(raced: Raced) -> None:
    assert "gone is out: not installed" in raced.said
    assert raced.said.index("flaky is out: no room for the model") > raced.said.index(
        "round 2/3  flaky"
    )
    assert "round 3/3  flaky" not in raced.said


def test_without_a_limit_to_begin_with_the_reason_is_told(raced: Raced) -> None:
    (line,) = [line for line in raced.said if line.startswith("no limit to begin with")]
    assert "no-bundle" in line, "the model that is not there is the reason"


def test_a_run_has_as_many_images_as_its_best_rate_so_far_needs(raced: Raced) -> None:
    for name, best in (("first", (50, 100)), ("last", (40, 150))):
        then = [images_for(rate, SECONDS) for rate in best]
        assert [sample.images for sample in raced.row(name).samples] == [BEGUN, *then]


def test_ratios_to_a_base_pair_what_ran_in_one_round(raced: Raced) -> None:
    workload = Workload(model="none", inputs="small", storage="disk")
    table = Table(
        workload=workload, rows=tuple(raced.rows), measured_at=datetime.now(UTC), commit="none"
    )
    last = raced.row("last")
    assert (last.rate, raced.row("first").rate) == (120, 50)
    assert table.ratio(last) == 1.5, "the median of 40 / 50, 150 / 100 and 120 / 40"


def test_millraces_row_is_no_peers_and_its_command_names_no_place(tmp_path: Path) -> None:
    row = Entrant("ours", Millrace("ours"), small_course(tmp_path), base="other").row()
    assert (row.peer, row.base, row.rate) == (False, "other", None)
    assert row.command.startswith("millrace run IMAGES --model MODEL --out OUT ")
