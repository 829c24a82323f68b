"""Medians, ratios, the limit: what the tables say follows from what was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.tables import Cost, Machine, Results, Row, Sample, Table, Workload, load

MACHINE = Machine(cores=2, cpu="Abacus 3000", memory_gib=8.0)


def sample(rate: float, *, wall_s: float = 14.0, agreement: float = 1.0) -> Sample:
    return Sample(images=round(rate * 10), seconds=10.0, wall_s=wall_s, agreement=agreement)


def row(name: str, *rates: float, peer: bool = False, base: str | None = None) -> Row:
    samples = tuple(sample(rate) for rate in rates)
    return Row(name=name, peer=peer, command=f"run {name}", samples=samples, base=base)


def with_costs(measured: Row, *costs: Cost | None) -> Row:
    """The same with what the machine needed in each round."""
    samples = tuple(
        sample.model_copy(update={"cost": cost})
        for sample, cost in zip(measured.samples, costs, strict=True)
    )
    return measured.model_copy(update={"samples": samples})


def table(*rows: Row, model: str = "m", inputs: str = "small", storage: str = "disk") -> Table:
    return Table(
        workload=Workload(model=model, inputs=inputs, storage=storage),
        rows=rows,
        measured_at=datetime(2026, 5, 1, 12, 30, tzinfo=UTC),
        commit="abc1234",
    )


def test_a_rate_is_the_median_of_the_rounds() -> None:
    measured = row("ours", 90, 130, 100)
    assert measured.rate == 100
    assert measured.spread == (90, 130)
    assert measured.around_s == 4.0


def test_an_entrant_without_samples_has_no_rate() -> None:
    absent = Row(name="ours", peer=False, command="", absent="not installed")
    assert (absent.rate, absent.spread, absent.around_s, absent.agreement) == (None,) * 4
    assert table(absent).ratio(absent) is None


def test_agreement_is_the_worst_rounds() -> None:
    samples = (sample(10, agreement=1.0), sample(10, agreement=0.97))
    assert Row(name="x", peer=True, command="", samples=samples).agreement == 0.97


def test_ratios_are_to_the_best_peer() -> None:
    ours, slow, fast = row("ours", 120), row("slow", 20, peer=True), row("fast", 60, peer=True)
    measured = table(ours, slow, fast)
    assert measured.best_peer is fast
    assert [measured.ratio(one) for one in measured.rows] == [2.0, pytest.approx(1 / 3), 1.0]


def test_a_base_is_compared_with_instead_of_a_peer() -> None:
    one, two = row("one", 50, 60, 70), row("two", 90, 60, 140, base="one")
    measured = table(one, two, row("x", 9, peer=True))
    assert measured.ratio(two) == 1.8, "the median of 1.8, 1 and 2, each of one round"
    assert table(row("one", 50), two).ratio(two) is None


def test_the_limit_is_what_the_cores_could_do_if_they_did_nothing_else() -> None:
    cost = Cost(decode_s=0.004, predict_s=0.006)
    assert cost.limit(2) == pytest.approx(200)
    dear = Cost(decode_s=0.008, predict_s=0.012)
    measured = with_costs(row("ours", 180, 500, 95, 180), cost, None, dear, cost)
    assert measured.limit(2) == pytest.approx(200)
    assert measured.efficiency(2) == pytest.approx(0.9), "each round beside its own limit"
    assert row("ours", 180).limit(2) is None
    assert row("ours", 180).efficiency(2) is None


def test_a_new_table_replaces_the_one_of_its_workload_alone() -> None:
    first, other = table(row("ours", 1)), table(row("ours", 2), storage="s3")
    again = table(row("ours", 3))
    results = Results(machine=MACHINE, versions={})
    for one in (other, first, again):
        results = results.with_table(one)
    assert results.tables == (again, other)


def test_results_are_kept_only_for_the_same_machine_and_versions(tmp_path: Path) -> None:
    stored = tmp_path / "results.json"
    results = Results(machine=MACHINE, versions={"ray": "1"}).with_table(table(row("ours", 1)))
    stored.write_text(results.model_dump_json())
    assert load(MACHINE, {"ray": "1"}, stored) == results
    assert load(MACHINE, {"ray": "2"}, stored).tables == ()
    larger = MACHINE.model_copy(update={"cores": 64})
    assert load(larger, {"ray": "1"}, stored) == Results(machine=larger, versions={"ray": "1"})
    assert load(MACHINE, {}, tmp_path / "none").tables == ()
