"""The threads that tell the ends of jobs: one for each receiver, so that one which hangs holds up
nobody else's."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from millrace.core.errors import MillraceError
from millrace.core.finalize import Finalizer
from millrace.core.log import get_logger
from millrace.core.notify.notifier import MOST_RECEIVERS, Notifier
from millrace.core.periodic import Periodic

log = get_logger(__name__)

STOPS_WITHIN_S = 5.0


class Notifying:
    """Looks for what is due now and then, and at once when this process ends a job."""

    def __init__(self, notifier: Notifier, finalizer: Finalizer, every_s: float) -> None:
        self._notifier = notifier
        self._looking = Periodic("notifier", every_s, self._look)
        self._telling: dict[str, threading.Thread] = {}
        finalizer.on_end = self._looking.soon

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> None:
        """Wait a little for the tries under way; what takes longer is another process's."""
        self._notifier.stop()
        self._looking.stop()
        until = time.monotonic() + STOPS_WITHIN_S
        for thread in [*self._telling.values()]:
            thread.join(max(0.0, until - time.monotonic()))
        with suppress(MillraceError):  # then their leases run out
            self._notifier.give_back()

    def _look(self) -> None:
        for receiver, jobs in self._notifier.due().items():
            if receiver not in self._telling and len(self._telling) < MOST_RECEIVERS:
                thread = threading.Thread(
                    target=self._tell,
                    args=(receiver, jobs),
                    name="notify",
                    daemon=True,
                )
                self._telling[receiver] = thread
                thread.start()

    def _tell(self, receiver: str, jobs: Sequence[str]) -> None:
        tried = 0
        try:
            tried = self._notifier.tell(jobs)
        except MillraceError as error:
            log.warning("notifier failed", error=error.message)
        except Exception as error:
            log.error("notifier failed", exc_info=error)
        finally:
            del self._telling[receiver]
            if tried:  # there may be more, of this one or of those that had no thread
                self._looking.soon()
