"""Values as people read them, for the templates. Object keys and labels are hostile text."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

import orjson
from markupsafe import Markup, escape

from millrace.core.job import JobState
from millrace.core.sizes import shown_bytes
from millrace.core.status import JobStatus

_ODD = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that show nothing, or that reorder or hide what stands beside them."""

TONES: dict[str, str] = {
    JobState.QUEUED: "calm",
    JobState.ENQUEUING: "live",
    JobState.RUNNING: "live",
    JobState.PAUSED: "warn",
    JobState.CANCELLING: "warn",
    JobState.FINALIZING: "live",
    JobState.SUCCEEDED: "good",
    JobState.COMPLETED_WITH_ERRORS: "warn",
    JobState.FAILED: "bad",
    JobState.CANCELLED: "calm",
    JobState.EXPIRED: "bad",
}
"""The colour of each state; its word always stands beside it."""


def visible(text: object) -> Markup:
    """Any text as HTML in which nothing hides: what shows nothing by itself is spelled out."""
    text = str(text)
    if text.isprintable():
        return escape(text)
    shown: list[Markup] = []
    for letter in text:
        if unicodedata.category(letter) in _ODD:
            shown.append(Markup('<span class="odd">U+{:04X}</span>').format(ord(letter)))
        else:
            shown.append(escape(letter))
    return Markup("").join(shown)


def plain(text: object) -> str:
    """The same for an attribute: `photo\\u202egpj.exe` reads `photo[U+202E]gpj.exe`."""
    return "".join(
        f"[U+{ord(letter):04X}]" if unicodedata.category(letter) in _ODD else letter
        for letter in str(text)
    )


def hint(text: str) -> Markup:
    """What to do about an error, its commands as such: `` `millrace jobs` lists them ``"""
    words = map(visible, text.split("`"))
    return Markup("").join(
        Markup("<code>{}</code>").format(word) if n % 2 else word for n, word in enumerate(words)
    )


def number(value: float) -> str:
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """Images per second: one digit after the point while that matters."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def percent(share: float) -> str:
    """`12%`, and near the ends `0.4%` or `99.9%`, which is never rounded up to all of it."""
    if 0 < share < 0.1 or 0.9 < share < 1:
        return f"{min(max(share * 100, 0.1), 99.9):.1f}%"
    return f"{share:.0%}"


def done(job: JobStatus) -> int:
    """Images that something became of: what was cancelled will never be done."""
    return job.counts.total - job.counts.pending - job.counts.cancelled


def share_done(job: JobStatus) -> float:
    return done(job) / job.counts.total if job.counts.total else 0.0


def score(value: float) -> str:
    """A probability as a share; what is none (a logit, say) as it is."""
    return f"{value:.1%}" if 0 <= value <= 1 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """`2 d 3 h`, `1 h 5 min`, `12 s`; empty for None."""
    if seconds is None:
        return ""
    left = max(0, round(seconds))
    for (unit, size), (smaller, part) in (
        (("d", 86_400), ("h", 3_600)),
        (("h", 3_600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {unit} {rest} {smaller}" if rest else f"{left // size} {unit}"
    return f"{left} s"


def took(seconds: float) -> str:
    """`85 ms`, `1.2 s`"""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def ago(when: datetime) -> str:
    """`12 s ago`"""
    seconds = max(0.0, (datetime.now(UTC) - when).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def words(value: object) -> str:
    """`completed_with_errors` → `completed with errors`"""
    return str(value).replace("_", " ")


def compact(value: Any) -> str:
    """What a page has no drawing for, as a little JSON."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= 300 else f"{text[:299]}…"


def are_classes(predictions: list[Any]) -> bool:
    """Whether each is a class with a score, which a page has a drawing for."""
    return all(
        isinstance(one, dict)
        and isinstance(one.get("label"), str)
        and isinstance(one.get("score"), int | float)
        for one in predictions
    )


FILTERS = {
    "visible": visible,
    "plain": plain,
    "hint": hint,
    "number": number,
    "rate": rate,
    "percent": percent,
    "done": done,
    "share_done": share_done,
    "score": score,
    "bytes": shown_bytes,
    "took": took,
    "duration": duration,
    "ago": ago,
    "words": words,
    "compact": compact,
}
TESTS = {"classes": are_classes}
