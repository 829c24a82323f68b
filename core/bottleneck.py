"""What limits a job, in words.

Where stages overlap, the time an image spends in each says little: a stage that waits looks as
slow as one that works. What tells is whether the model starved. While it predicts nearly all the
time, it is the limit. If it waits, then for the stage whose threads were the busiest meanwhile; and
for decoding, if that holds the cores that the model needs.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from millrace.core.record import TimingTotals

STARVED = 0.1
"""With a larger share of its time spent waiting, the model is not the limit."""

BoundBy = Literal["fetch", "decode", "predict", "write"]

ADVICE: dict[BoundBy, str] = {
    "fetch": "fetch-bound: raise MILLRACE_FETCH_THREADS or move closer to the storage",
    "decode": "decode-bound: add CPU or processes",
    "predict": "predict-bound: the model is the limit; add workers or a GPU,"
    " or try --engine/--precision",
    "write": "write-bound: raise MILLRACE_SLOTS or move closer to the storage",
}


class Bottleneck(BaseModel):
    """Shares are of the time during which the model predicted, or could have because chunks were
    in hand; `predicting` and the stages it was `waiting` for make up 1."""

    stage: BoundBy
    advice: str
    predicting: float = Field(ge=0, le=1)
    waiting: dict[Literal["fetch", "decode", "write"], float]


def bottleneck_of(timing: TimingTotals) -> Bottleneck | None:
    """None as long as nothing is known: a model that is fed has waited for its first image."""
    waits: dict[Literal["fetch", "decode", "write"], int] = {
        "fetch": timing.wait_fetch,
        "decode": timing.wait_decode,
        "write": timing.wait_write,
    }
    waited = sum(waits.values())
    if not waited:
        return None
    whole = timing.infer + waited
    starved = waited > STARVED * whole
    waited_for = max(waits, key=lambda name: waits[name])
    stage: BoundBy = waited_for if starved else "predict"
    return Bottleneck(
        stage=stage,
        advice=ADVICE[stage],
        predicting=round(timing.infer / whole, 4),
        waiting={name: round(us / whole, 4) for name, us in waits.items()},
    )
