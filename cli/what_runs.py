"""What computes the job of `millrace run`: said once it is known, on standard error."""

from __future__ import annotations

import sys

from millrace.core.fleet import Fleet
from millrace.core.running import Running


class WhatRuns:
    """Looks at the workers until there is no more to say. `quiet` says nothing."""

    def __init__(self, fleet: Fleet, *, quiet: bool) -> None:
        self._fleet = fleet
        self._engine_said = self._agreement_said = quiet

    def look(self, *, last: bool = False) -> None:
        """Say what is new. When it is the last time, the images compared by now must do.

        Raises what Redis raises.
        """
        if self._engine_said and self._agreement_said:
            return
        workers = self._fleet.workers()
        running = [seen.info.running for seen in workers if seen.info.running is not None]
        if running and not self._engine_said:
            self._engine_said = True
            _say(_engine(running[0]))
        all_known = len(running) == len(workers) and all(
            one.compared == one.to_compare for one in running
        )
        if running and not self._agreement_said and (all_known or last):
            self._agreement_said = True
            if agreement := _agreement(running):
                _say(agreement)


def _engine(running: Running) -> str:
    return (
        f"the engine is {running.engine} ({running.why}), {running.precision}, "
        f"batches of {running.batch_size}"
    )


def _agreement(running: list[Running]) -> str | None:
    """Of all workers together; None if nothing was compared."""
    images = sum(one.compared for one in running)
    if not images:
        return None
    same = sum(one.compared * (one.top_1_agreement or 0.0) for one in running)
    return f"{same / images:.1%} of {images} images answered as float32 would (top 1)"


def _say(text: str) -> None:
    print(f"millrace: {text}", file=sys.stderr, flush=True)
