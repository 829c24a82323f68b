"""The heartbeat: renews the leases of this process and says that it is alive."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable

from millrace.core.claims import Claims
from millrace.core.errors import MillraceError
from millrace.core.fleet import Fleet, WorkerInfo, WorkerState
from millrace.core.log import get_logger
from millrace.core.periodic import Periodic
from millrace.core.running import Running
from millrace.core.topology import QueueKeys
from millrace.worker.in_hand import InHand

log = get_logger(__name__)


def worker_name() -> str:
    """`pid@host/token`, unique even where containers share host names and pids."""
    return f"{os.getpid()}@{socket.gethostname()}/{secrets.token_hex(3)}"


class Heartbeat:
    """Beats a third of a lease apart, and sooner after a failure: a lease outlasts two thirds of
    itself without Redis.

    Nothing else runs in its thread: whatever took longer than a lease would lose them all.
    """

    def __init__(
        self,
        name: str,
        model: str,
        queues: tuple[str, ...],
        slots: int,
        lease_s: float,
        claims: Claims,
        fleet: Fleet,
        in_hand: InHand,
    ) -> None:
        self._name, self._model, self._queues, self._slots = name, model, queues, slots
        self._claims, self._fleet, self._in_hand = claims, fleet, in_hand
        self._running: Callable[[], Running | None] = lambda: None
        self._started_ms = int(time.time() * 1000)
        self._seen = (time.monotonic(), 0)
        self._rate = 0.0
        self._member = f"{slots}|{name}"
        self._thread = Periodic("heartbeat", lease_s / 3, self._beat)

    def announce(self, state: WorkerState) -> None:
        """Describe this worker to whoever looks. Raises RedisUnavailable."""
        self._fleet.announce(
            WorkerInfo(
                worker=self._name,
                model=self._model,
                queues=" ".join(self._queues),
                state=state,
                slots=self._slots,
                images=self._in_hand.images,
                images_per_s=round(self._rate, 2),
                started_ms=self._started_ms,
                running=self._running(),
            )
        )

    def start(self, running: Callable[[], Running]) -> None:
        """Beat from now on, and tell how the model, which is loaded, is `running`."""
        self._running = running
        self._thread.start()

    def soon(self) -> None:
        """Beat without waiting for the next time: there is something new to say."""
        self._thread.soon()

    def stop(self) -> None:
        """End the thread and leave the fleet."""
        self._thread.stop()
        self.leave()

    def leave(self) -> None:
        """Say goodbye: nobody counts on this worker any more."""
        try:
            self._fleet.leave(
                self._name, self._member, [QueueKeys(queue).fleet for queue in self._queues]
            )
        except MillraceError as error:
            log.warning("could not say goodbye", error=error.message)

    def _beat(self) -> None:
        leases = self._in_hand.leases()
        for queue in self._queues:
            held = [lease for lease in leases if lease.queue == queue]
            self._claims.renew(queue, self._member, held)
        self._measure()
        self.announce("stopping" if self._in_hand.closed else "busy" if leases else "idle")

    def _measure(self) -> None:
        """Images per second since the last beat, smoothed over a few."""
        now, images = time.monotonic(), self._in_hand.images
        before, had = self._seen
        if now > before:
            latest = (images - had) / (now - before)
            self._rate = latest if not self._rate else 0.5 * self._rate + 0.5 * latest
            self._seen = (now, images)
