"""Values as people read them; nothing hides in hostile text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from millrace.core.job import JobState
from millrace.producer.web import shown


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("photos/a.jpg", "photos/a.jpg"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('"><img src=x onerror=1>', "&#34;&gt;&lt;img src=x onerror=1&gt;"),
        ("a\u202egpj.exe", 'a<span class="odd">U+202E</span>gpj.exe'),
        ("a\nb\x00", 'a<span class="odd">U+000A</span>b<span class="odd">U+0000</span>'),
        ("zero\u200bwidth", 'zero<span class="odd">U+200B</span>width'),
        ("straße/日本.png", "straße/日本.png"),
        ("a b\u00a0c", "a b\u00a0c"),
        ("\ud800", '<span class="odd">U+D800</span>'),
    ],
)
def test_text_shows_what_it_holds(text: str, html: str) -> None:
    assert str(shown.visible(text)) == html


def test_commands_in_a_hint_are_told_as_such() -> None:
    told = shown.hint("`millrace jobs` lists <them>, `<b>`, `")
    assert str(told) == (
        "<code>millrace jobs</code> lists &lt;them&gt;, <code>&lt;b&gt;</code>, <code></code>"
    )


def test_in_an_attribute_too() -> None:
    assert shown.plain("photo\u202egpj.exe\n") == "photo[U+202E]gpj.exe[U+000A]"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0%"), (0.0001, "0.1%"), (0.05, "5.0%"), (0.5, "50%"), (0.9996, "99.9%"), (1, "100%")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, said: str) -> None:
    assert shown.percent(share) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (7260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert shown.duration(seconds) == said


def test_how_long_ago() -> None:
    now = datetime.now(UTC)
    assert shown.ago(now + timedelta(seconds=5)) == "0 s ago"
    assert shown.ago(now - timedelta(minutes=5)) == "5 min ago"
    assert shown.ago(now - timedelta(days=3)) == "3 d ago"


def test_scores_that_are_no_probabilities() -> None:
    assert shown.score(0.9871) == "98.7%"
    assert shown.score(12.3456) == "12.3"
    assert shown.score(-4) == "-4"


def test_every_state_has_its_colour() -> None:
    assert set(shown.TONES) == set(JobState)


def test_what_has_no_drawing_is_a_little_json() -> None:
    assert shown.compact([{"x": 1}]) == '[{"x":1}]'
    assert len(shown.compact(["x" * 5000])) == 300
