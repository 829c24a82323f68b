"""What the routes work with, put together once: `request.app.state.backend`."""

from __future__ import annotations

from collections.abc import Callable

from millrace.core.errors import UsageError
from millrace.core.periodic import Periodic
from millrace.core.services import Services
from millrace.core.storage.allowed import VARIABLE
from millrace.producer.http.board import StatusBoard
from millrace.producer.http.lister import Lister
from millrace.producer.http.settings import HttpSettings

TAKE_UP_S = 15.0


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
        self.lister = Lister(services)
        self._periodic: list[Periodic] = []
        self.every("take up listings", TAKE_UP_S, self.lister.take_up)

    def every(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        """Call something now and then, in a thread, while the server runs."""
        self._periodic.append(Periodic(name, seconds, action))

    def start(self) -> None:
        for one in self._periodic:
            one.start()

    def end_streams(self) -> None:
        """End what would never end by itself."""

    def stop(self) -> None:
        """First what begins new work, then the work."""
        for one in self._periodic:
            one.stop()
        self.lister.stop()
        self.board.close()
