"""What limits a job, worked out of the time its workers counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.bottleneck import ADVICE, bottleneck_of
from millrace.core.record import TimingTotals

us = st.integers(0, 10**12)


@pytest.mark.parametrize(
    ("timing", "stage"),
    [
        (TimingTotals(infer=95, wait_decode=5), "predict"),
        (TimingTotals(infer=90, wait_fetch=10), "predict"),
        (TimingTotals(infer=89, wait_fetch=11), "fetch"),
        (TimingTotals(infer=60, wait_fetch=10, wait_decode=30), "decode"),
        (TimingTotals(infer=60, wait_decode=10, wait_write=30), "write"),
        # Stages that are slow, but hide behind one another.
        (TimingTotals(fetch=900, decode=500, infer=99, wait_fetch=1), "predict"),
        # Nothing could be decoded.
        (TimingTotals(fetch=900, wait_decode=7), "decode"),
    ],
)
def test_who_keeps_the_model_waiting_is_the_limit(timing: TimingTotals, stage: str) -> None:
    found = bottleneck_of(timing)
    assert found is not None
    assert found.stage == stage
    assert found.advice.startswith(f"{stage}-bound: ")


@pytest.mark.parametrize("timing", [TimingTotals(), TimingTotals(1, 2, 3, 4)])
def test_nothing_is_said_of_what_was_not_measured(timing: TimingTotals) -> None:
    """The records of earlier workers have no waits."""
    assert bottleneck_of(timing) is None


@given(us, us, us, us)
def test_predicting_and_waiting_make_up_the_whole(i: int, f: int, d: int, w: int) -> None:
    found = bottleneck_of(TimingTotals(0, 0, i, 0, f, d, w))
    assert (found is None) == (f + d + w == 0)
    if found is not None:
        assert found.predicting + sum(found.waiting.values()) == pytest.approx(1, abs=0.001)


def test_there_is_advice_for_every_stage() -> None:
    assert list(ADVICE) == ["fetch", "decode", "predict", "write"]
