"""Progress where there is no terminal: a line now and then, on standard error."""

from __future__ import annotations

import pytest

from millrace.cli import progress
from millrace.cli.progress import describe, listing_progress, one_line, prediction_progress
from millrace.producer import ListingProgress
from tests.unit.cli.test_show import a_status


def test_a_line_holds_state_counts_rate_and_time_left() -> None:
    line = one_line(a_status(succeeded=2000, failed=345))
    assert line == "running: 2,345/12,345 images, 345 failed, 10.0 images/s, 1,000 s left"


def test_an_unknown_time_left_is_left_out() -> None:
    assert "left" not in one_line(a_status(listing_complete=0))


@pytest.mark.parametrize(
    ("health", "words"),
    [("ok", "running"), ("no_workers", "waiting for a worker"), ("stalled", "running (stalled)")],
)
def test_what_is_wrong_is_said(health: str, words: str) -> None:
    assert describe(a_status().model_copy(update={"health": health})) == words


def test_a_state_of_three_words_is_spelled_out() -> None:
    assert describe(a_status(state="completed_with_errors", total=0)) == "completed with errors"


@pytest.mark.parametrize("quiet", [True, False])
def test_lines_come_now_and_then_and_on_standard_error(
    quiet: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    with listing_progress(quiet=quiet) as listed, prediction_progress(quiet=quiet) as predicted:
        listed(ListingProgress(1000, 1, 1))
        predicted(a_status())
    out, err = capsys.readouterr()
    assert out == ""
    assert ("listed 1,000 images" in err) is not quiet
    assert ("running: 0/12,345 images" in err) is not quiet


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with listing_progress() as listed, prediction_progress() as predicted:
        listed(ListingProgress(1000, 1, 1))
        predicted(a_status())
    assert capsys.readouterr() == ("", "")
