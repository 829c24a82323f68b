"""What the routes work with, put together once: `request.app.state.backend`."""

from __future__ import annotations

from collections.abc import Callable

from anyio import CapacityLimiter

from millrace.core.errors import UsageError
from millrace.core.notify.notifying import Notifying
from millrace.core.periodic import Periodic
from millrace.core.services import Services
from millrace.core.storage import Location
from millrace.core.storage.allowed import VARIABLE
from millrace.producer.http.board import StatusBoard
from millrace.producer.http.lister import Lister
from millrace.producer.http.predictions import Predictions
from millrace.producer.http.previews import Previews
from millrace.producer.http.ready import ReadyChecks
from millrace.producer.http.settings import HttpSettings
from millrace.producer.http.shelf import Shelf
from millrace.producer.http.streams import Streams
from millrace.producer.http.verifier import Verifier
from millrace.producer.http.watch import Watcher

TAKE_UP_S = 15.0
CLEAR_S = 120.0
READERS = 16
WRITERS = 16
"""Threads of those who wait for storage to read it, and to make jobs. Who waits for Redis alone has
others, which storage that stands still does not take away."""


class Backend:
    """Started and stopped with the server. Raises UsageError for settings that make no sense."""

    def __init__(self, services: Services, settings: HttpSettings) -> None:
        if not services.settings.allowed_locations and not settings.any_location:
            raise UsageError(
                f"{VARIABLE} does not say where jobs may read and write",
                hint="name the buckets or prefixes, or add --any-location",
            )
        self.services = services
        self.settings = settings
        self.board = StatusBoard(services)
        self.watcher = Watcher(services, self.board)
        self.lister = Lister(services)
        self.notifying = Notifying(
            services.notifier, services.finalizer, services.settings.reconcile_s
        )
        self.streams = Streams()
        self.previews = Previews(services)
        self.readers = CapacityLimiter(READERS)
        self.writers = CapacityLimiter(WRITERS)
        self.verifier = Verifier(services)
        self.shelf = Shelf(services)
        self.predictions = Predictions(services, settings.uploads)
        self.ready = ReadyChecks(services, _places(services, settings))
        self._periodic: list[Periodic] = []
        self._winding_down: list[Callable[[], None]] = [self.watcher.end, self.lister.leave_off]
        self.every("take up listings", TAKE_UP_S, self.lister.take_up)
        if settings.uploads:
            self.every("clear pictures", CLEAR_S, self.predictions.clear_forgotten)

    def every(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        """Call something now and then, in a thread, while the server runs."""
        self._periodic.append(Periodic(name, seconds, action))

    def start(self) -> None:
        for one in self._periodic:
            one.start()
        self.notifying.start()

    def wind_down(self) -> None:
        """The server is about to stop: end what would never end by itself, begin nothing long."""
        for action in self._winding_down:
            action()

    def when_winding_down(self, action: Callable[[], None]) -> None:
        """Call something then, too, which must not wait for anything."""
        self._winding_down.append(action)

    def stop(self) -> None:
        """First what begins new work, then the work."""
        for one in self._periodic:
            one.stop()
        self.notifying.stop()
        self.lister.stop()
        for part in (self.predictions, self.verifier, self.board, self.ready):
            part.close()


def _places(services: Services, settings: HttpSettings) -> list[Location]:
    """Where storage is asked whether it answers."""
    named = (services.settings.models, settings.uploads)
    allowed = services.stores.allowed.places
    return [*(Location.parse(url) for url in named if url), *allowed]
