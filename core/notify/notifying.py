"""The threads that tell the ends of jobs: at most one for each receiver, so that one which hangs
holds up nobody else's. Where there are more receivers than threads, they take turns."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from contextlib import suppress

from millrace.core.errors import MillraceError
from millrace.core.finalize import Finalizer
from millrace.core.log import get_logger
from millrace.core.notify.ends import End
from millrace.core.notify.notifier import Notifier
from millrace.core.periodic import Periodic

log = get_logger(__name__)

MOST_RECEIVERS = 16
"""So many are told at a time."""
TURN_S = 5.0
"""So long one is told while others wait."""
LOOKS_REST = 9
"""So many times as long as a look took no other begins: where thousands of ends wait, looking takes
a tenth of the time at most, however often jobs end here."""
STOPS_WITHIN_S = 5.0


class Notifying:
    """Looks for what is due now and then, and at once when this process ends a job."""

    def __init__(self, notifier: Notifier, finalizer: Finalizer, every_s: float) -> None:
        self._notifier = notifier
        self._looking = Periodic("notifier", every_s, self._look)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[End]] = OrderedDict()
        """Receivers that have no thread, the next first, and what they are to be told."""
        self._telling: dict[str, threading.Thread] = {}
        finalizer.on_end = self._looking.soon

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> None:
        """Wait a little for the tries under way; what takes longer is another process's."""
        self._stopping.set()
        self._looking.stop()
        until = time.monotonic() + STOPS_WITHIN_S
        for thread in [*self._telling.values()]:
            thread.join(max(0.0, until - time.monotonic()))
        with suppress(MillraceError):  # then their leases run out
            self._notifier.give_back()

    def _look(self) -> None:
        began = time.monotonic()
        self._hand_out(self._notifier.due())
        self._stopping.wait(LOOKS_REST * (time.monotonic() - began))

    def _hand_out(self, found: dict[str, deque[End]]) -> None:
        with self._lock:
            for receiver, ends in found.items():
                if receiver not in self._telling:
                    self._waiting[receiver] = ends  # who waits already keeps its place
            while self._waiting and len(self._telling) < MOST_RECEIVERS:
                turn = self._waiting.popitem(last=False)
                thread = threading.Thread(target=self._run, args=turn, name="notify", daemon=True)
                thread.start()
                self._telling[turn[0]] = thread

    def _run(self, receiver: str, ends: deque[End]) -> None:
        """Tell one receiver after another, until none waits."""
        tried = 0
        while True:
            tried += self._turn(ends)
            with self._lock:
                thread = self._telling.pop(receiver)
                if ends:
                    self._waiting[receiver] = ends
                if not self._waiting or self._stopping.is_set():
                    break
                receiver, ends = self._waiting.popitem(last=False)
                self._telling[receiver] = thread
        if tried:  # there may be more than a look hands out
            self._looking.soon()

    def _turn(self, ends: deque[End]) -> int:
        """Tell these, no longer than `TURN_S` if others wait; returns how many were tried."""
        until, tried = time.monotonic() + TURN_S, 0
        try:
            while ends and not self._stopping.is_set():
                tried += self._notifier.tell(ends.popleft())
                if self._waiting and time.monotonic() > until:
                    break
        except Exception as error:
            ends.clear()  # the next look finds them
            if isinstance(error, MillraceError):
                log.warning("notifier failed", error=error.message)
            else:
                log.error("notifier failed", exc_info=error)
        return tried
