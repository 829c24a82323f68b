"""Numbers as shapes: what a template draws as SVG. Coordinates are in the drawing's own units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from millrace.producer.web.throughput import Throughput

WIDTH, HEIGHT = 720, 230
FEWEST = 4
LEFT, RIGHT, TOP, BOTTOM = 54, 8, 10, 26


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the chart, or a mark below it, and what it says."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A line with the area below it."""

    width: int
    height: int
    left: int
    right: int
    bottom: int
    line: str
    area: str
    levels: list[Tick]
    moments: list[Tick]
    highest: float
    mean: float


def chart_of(throughput: Throughput, started_ms: int | None = None) -> Chart | None:
    """None while there are fewer than `FEWEST` columns, which make no line.

    Moments count from when the job `started`: a chart of a long job need not begin there.

    A completion is a whole chunk, so narrow columns jump: each is drawn as the mean of its
    neighbourhood, as wide as a tenth of the chart, and a second at least.
    """
    reach = max(1, len(throughput.rates) // 20, round(0.5 / throughput.width_s))
    rates = _smoothed(throughput.rates, reach)
    if len(rates) < FEWEST:
        return None
    step = _step(max(rates))
    top = max(step, math.ceil(max(rates) / step) * step)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    base = HEIGHT - BOTTOM

    def y(rate: float) -> float:
        return round(base - rate / top * inner_height, 1)

    across = inner_width / (len(rates) - 1)
    points = [f"{LEFT + n * across:.1f} {y(rate)}" for n, rate in enumerate(rates)]
    line = "M" + "L".join(points)
    levels = [Tick(y(n * step), _short(n * step)) for n in range(round(top / step) + 1)]
    seconds = (len(rates) - 1) * throughput.width_s
    since = 0.0 if started_ms is None else max(0, throughput.since_ms - started_ms) / 1000
    moments = [
        Tick(round(LEFT + share * inner_width, 1), _span(since + share * seconds))
        for share in (0, 0.5, 1)
    ]
    if len({moment.text for moment in moments}) < 3:
        moments = moments[::2]
    whole = sum(throughput.rates)
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=base,
        line=line,
        area=f"{line}L{WIDTH - RIGHT} {base}L{LEFT} {base}Z",
        levels=levels,
        moments=moments,
        highest=max(rates),
        mean=whole / len(throughput.rates),
    )


def _smoothed(rates: list[float], reach: int) -> list[float]:
    """Means of `reach` columns to either side, each side cut off where the chart ends."""
    found = []
    for n in range(len(rates)):
        near = rates[max(0, n - reach) : n + reach + 1]
        found.append(sum(near) / len(near))
    return found


def _step(highest: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are three to six levels."""
    if highest <= 0:
        return 1.0
    rough = highest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= rough)


def _short(rate: float) -> str:
    if rate >= 10_000:
        return f"{rate / 1000:,.0f}k"
    return f"{rate:,.0f}" if rate >= 10 or rate == int(rate) else f"{rate:.2g}"


def _span(seconds: float) -> str:
    """`0 s`, `1.4 s`, `45 s`, `3:20`, `2:05:00`"""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
