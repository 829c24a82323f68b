"""How many images a job finished when: kept in few columns, which widen as it goes on.

Redis remembers a job's last 200 chunks. While somebody looks, what it tells is added up here, so
that the chart of a long job goes back further than that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from threading import Lock

JOBS_KEPT = 256
MOST_COLUMNS = 90
REMEMBERED = 200
"""Completions that Redis keeps of a job: `core/lua/finish.lua`."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Images per second in columns of `width_s` seconds; the first begins at `since_ms` (Redis
    TIME)."""

    since_ms: int
    width_s: float
    rates: list[float]


@dataclass(slots=True)
class _History:
    """Columns of `width_ms`, aligned to it, so that two always make one of twice the width."""

    width_ms: int = 250
    first: int = 0
    images: list[int] = field(default_factory=list)
    last_ms: int = -1
    at_last: int = 0
    """Completions counted that ended in the very millisecond `last_ms`."""

    def see(self, pace: Sequence[tuple[int, int]]) -> None:
        """Add the completions (milliseconds, images), newest first, that are new."""
        if not pace:
            return
        if len(pace) >= REMEMBERED and pace[-1][0] > self.last_ms:
            # Some in between are forgotten: what was known before cannot be joined to this.
            self.images, self.last_ms, self.at_last = [], -1, 0
        standing = self.at_last
        for ms, images in reversed(pace):
            if ms < self.last_ms:
                continue
            if ms == self.last_ms and standing:
                standing -= 1
                continue
            self._add(ms, images)
            self.at_last = self.at_last + 1 if ms == self.last_ms else 1
            self.last_ms = ms

    def _add(self, ms: int, images: int) -> None:
        if not self.images:
            self.first = ms // self.width_ms
        while ms // self.width_ms - self.first >= MOST_COLUMNS:
            self._widen()
        at = ms // self.width_ms - self.first
        self.images += [0] * (at + 1 - len(self.images))
        self.images[at] += images

    def _widen(self) -> None:
        lead = self.first % 2
        padded = [0] * lead + self.images
        padded += [0] * (len(padded) % 2)
        self.images = [a + b for a, b in zip(padded[::2], padded[1::2], strict=True)]
        self.first //= 2
        self.width_ms *= 2


class ThroughputHistory:
    """The histories of the jobs looked at last. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._jobs: OrderedDict[Hashable, _History] = OrderedDict()

    def of(self, job: Hashable, pace: Sequence[tuple[int, int]], now_ms: int | None) -> Throughput:
        """With what `pace` tells (newest first) added. `job` tells it from others, also from one
        that had its id before. `now_ms` is Redis TIME while the job goes on: a chart ends there,
        not with its last completion; None once it has ended."""
        with self._lock:
            history = self._jobs.setdefault(job, _History())
            self._jobs.move_to_end(job)
            if len(self._jobs) > JOBS_KEPT:
                self._jobs.popitem(last=False)
            history.see(pace)
            images, width_ms, first = [*history.images], history.width_ms, history.first
        if images and now_ms is not None:
            # Columns of nothing say that it stands still; of those more than fit, some. The one
            # that is filling yet would look like a fall.
            idle = now_ms // width_ms - first - len(images)
            images = images[: len(images) + min(0, idle)]
            images += [0] * min(max(0, idle), 2 * MOST_COLUMNS)
        return Throughput(
            since_ms=first * width_ms,
            width_s=width_ms / 1000,
            rates=[count * 1000 / width_ms for count in images],
        )
