"""What a job may cost at most, as a user writes it: `--error-threshold 5%`, `--deadline 2h`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class ErrorThreshold:
    """More failed images than this end the job; None is no limit."""

    images: int | None = None
    share: float | None = None
    """Of all images, 0 to 1; judged once the listing is complete."""

    @classmethod
    def parse(cls, text: str) -> ErrorThreshold:
        """Read `100` (images), `5%`, `0.05`, or nothing for no limit. Raises ValueError."""
        if not text:
            return cls()
        number = text.strip().removesuffix("%")
        if re.fullmatch(r"\d+", number) and not text.strip().endswith("%"):
            return cls(images=int(number))
        if not re.fullmatch(r"\d*\.?\d+", number):
            raise ValueError(f"{text!r} is no threshold: expected 100, 5% or 0.05")
        share = float(number) / (100 if text.strip().endswith("%") else 1)
        if not 0 <= share <= 1:
            raise ValueError(f"{text!r} is more than all images")
        return cls(share=share)


def parse_deadline(text: str, start: datetime) -> datetime:
    """Read `90s`, `45m`, `2h`, `1d` from `start`, or an RFC 3339 time with its offset, as UTC.

    Raises ValueError.
    """
    lasting = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    try:
        if lasting:
            return start + timedelta(seconds=float(lasting[1]) * _UNITS[lasting[2]])
        when = datetime.fromisoformat(text.strip())
        if when.tzinfo is not None:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no deadline: expected 90s, 45m, 2h, 1d or 2026-11-21T06:00:00Z"
        ) from None
    raise ValueError(f"{text!r} says no time zone: end it in Z or an offset")
