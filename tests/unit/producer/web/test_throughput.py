"""Completions added up in columns, which widen."""

from __future__ import annotations

from datetime import timedelta

from millrace.producer.web.charts import chart_of
from millrace.producer.web.throughput import MOST_COLUMNS, REMEMBERED, Throughput, ThroughputHistory
from tests.unit.core.support import a_spec

START = 1_764_000_000_000


def pace(*completions: tuple[float, int]) -> list[tuple[int, int]]:
    """Newest first, as Redis tells it, of (seconds, images) in their order."""
    return [(START + int(seconds * 1000), images) for seconds, images in reversed(completions)]


def test_each_completion_counts_once_however_often_it_is_seen() -> None:
    history = ThroughputHistory()
    first = pace((0.0, 4), (0.2, 4), (0.6, 8))
    assert history.of("j", first, None).rates == [32, 0, 32]
    assert history.of("j", first, None).rates == [32, 0, 32]
    more = pace((0.0, 4), (0.2, 4), (0.6, 8), (0.6, 8), (1.1, 2))
    assert history.of("j", more, None).rates == [32, 0, 64, 0, 8]
    assert history.of("other", [], None).rates == []


def test_two_in_the_same_millisecond_are_two() -> None:
    history = ThroughputHistory()
    assert history.of("j", pace((0, 1), (0, 1)), None).rates == [8]
    assert history.of("j", pace((0, 1), (0, 1), (0, 1)), None).rates == [12]


def test_a_job_that_goes_on_and_stands_still_shows_it() -> None:
    found = ThroughputHistory().of("j", pace((0, 4), (0.3, 4)), START + 1100)
    assert found.rates == [16, 16, 0, 0]


def test_the_column_that_is_filling_is_left_out() -> None:
    found = ThroughputHistory().of("j", pace((0, 4), (0.3, 4)), START + 400)
    assert found.rates == [16]


def test_columns_widen_and_keep_every_image() -> None:
    history = ThroughputHistory()
    for second in range(1000):
        found = history.of("j", pace((second, 3)), None)
    assert len(found.rates) <= MOST_COLUMNS
    assert found.width_s == 16
    assert sum(found.rates) * found.width_s == 3000


def test_what_redis_forgot_in_between_is_not_drawn_as_a_standstill() -> None:
    history = ThroughputHistory()
    history.of("j", pace((0, 4), (1, 4)), None)
    later = pace(*((100 + n / 100, 1) for n in range(REMEMBERED)))
    found = history.of("j", later, None)
    assert found.since_ms >= START + 99_000
    assert sum(found.rates) * found.width_s == REMEMBERED


def test_the_chart_stays_within_its_frame() -> None:
    chart = chart_of(Throughput(START, 2.0, [0, 30.0, 120.0, 60.0, 0.0, 7.0]))
    assert chart is not None
    points = [tuple(map(float, point.split())) for point in chart.line[1:].split("L")]
    assert len(points) == 6
    assert all(chart.left <= x <= chart.right and 0 <= y <= chart.bottom for x, y in points)
    assert [level.text for level in chart.levels] == ["0", "20", "40", "60", "80"]
    assert [moment.text for moment in chart.moments] == ["0 s", "5 s", "10 s"]
    assert round(chart.mean, 1) == 36.2


def test_a_chart_that_begins_later_says_so() -> None:
    later = Throughput(START + 3_600_000, 30.0, [1.0, 2.0, 3.0, 4.0, 5.0])
    chart = chart_of(later, START)
    assert chart is not None
    assert [moment.text for moment in chart.moments] == ["1:00:00", "1:01:00", "1:02:00"]
    early = chart_of(later, START + 3_610_000)  # its first column begins before the job did
    assert early is not None
    assert early.moments[0].text == "0 s"


def test_another_job_of_that_name_has_a_chart_of_its_own() -> None:
    history, spec = ThroughputHistory(), a_spec("j")
    again = spec.model_copy(update={"created_at": spec.created_at + timedelta(hours=1)})
    assert history.of(spec, pace((0, 4)), None).rates == [16]
    assert history.of(again, pace((9, 1)), None).rates == [4]


def test_a_few_columns_make_no_line() -> None:
    assert chart_of(Throughput(START, 1.0, [5.0, 4.0, 5.0])) is None
    assert chart_of(Throughput(START, 1.0, [])) is None


def test_a_job_that_did_nothing_has_a_flat_line() -> None:
    chart = chart_of(Throughput(START, 1.0, [0.0, 0.0, 0.0, 0.0]))
    assert chart is not None
    assert chart.highest == 0
