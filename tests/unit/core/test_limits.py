"""Limits as a user writes them: error thresholds and deadlines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.limits import ErrorThreshold, parse_deadline

START = datetime(2026, 11, 20, 17, 45, tzinfo=UTC)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@given(st.integers(0, 10**12))
def test_a_number_is_of_images(images: int) -> None:
    assert ErrorThreshold.parse(str(images)) == ErrorThreshold(images=images)


@given(st.integers(0, 100))
def test_a_percentage_is_a_share(percent: int) -> None:
    assert ErrorThreshold.parse(f"{percent}%").share == pytest.approx(percent / 100)


@given(st.integers(0, 10_000))
def test_a_fraction_is_a_share(parts: int) -> None:
    assert ErrorThreshold.parse(f"{parts / 10_000:.4f}").share == pytest.approx(parts / 10_000)


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("", ErrorThreshold()),
        ("0", ErrorThreshold(images=0)),
        ("1", ErrorThreshold(images=1)),
        (" 100 ", ErrorThreshold(images=100)),
        ("1.0", ErrorThreshold(share=1.0)),
        ("100%", ErrorThreshold(share=1.0)),
        ("0.5%", ErrorThreshold(share=0.005)),
        (".05", ErrorThreshold(share=0.05)),
    ],
)
def test_thresholds_as_people_write_them(text: str, threshold: ErrorThreshold) -> None:
    assert ErrorThreshold.parse(text) == threshold


@pytest.mark.parametrize(
    "text",
    ["-1", "-5%", "101%", "1.5", "many", "5 images", "%", "5%%", "5.", "1e3", "nan", "inf", " "],
)
def test_nonsense_is_no_threshold(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no threshold|is more than all"):
        ErrorThreshold.parse(text)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SECONDS)))
def test_a_lasting_counts_from_the_start(number: int, unit: str) -> None:
    lasting = timedelta(seconds=number * SECONDS[unit])
    assert parse_deadline(f"{number}{unit}", START) == START + lasting


def test_a_lasting_may_be_broken() -> None:
    assert parse_deadline(" 1.5h ", START) == START + timedelta(minutes=90)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours))),
)
def test_a_time_is_read_as_utc(when: datetime, zone: timezone) -> None:
    there = when.replace(tzinfo=zone)
    deadline = parse_deadline(there.isoformat(), START)
    assert deadline == there
    assert deadline.tzinfo is UTC


def test_z_is_utc() -> None:
    expected = datetime(2026, 11, 21, 6, tzinfo=UTC)
    assert parse_deadline("2026-11-21T06:00:00Z", START) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "2", "-1h", "2h30m", "2 h", "1w", "nan s"),
        *("2026-11-21T06:00:00", "2026-11-21", "2026-13-01T00:00:00Z", "99999999999d"),
    ],
)
def test_nonsense_is_no_deadline(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no deadline|says no time zone"):
        parse_deadline(text, START)
