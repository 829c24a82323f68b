"""The parts both sides build from the settings, put together once."""

from __future__ import annotations

from celery import Celery

from millrace.core.celery_app import make_app
from millrace.core.chunk_queue import ChunkQueue
from millrace.core.errors import UsageError
from millrace.core.feed import Feeder
from millrace.core.finalize import Finalizer
from millrace.core.fleet import Fleet
from millrace.core.jobstore import JobStore
from millrace.core.notify.notifier import Notifier
from millrace.core.redis_client import RedisClient
from millrace.core.repository import Repository
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores


class Services:
    """Connections are opened by their first use; nothing here touches the network."""

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self.settings = settings
        self.redis = RedisClient(settings)
        self.stores = Stores(settings)
        self.jobs = JobStore(self.redis)
        self.fleet = Fleet(self.redis)
        self.queue = ChunkQueue(app or make_app(settings), self.redis, settings.message_key_bytes)
        self.feeder = Feeder(self.jobs, self.queue, window=settings.window)
        self.finalizer = Finalizer(self.jobs, self.stores)
        self.notifier = Notifier(self.jobs, self.stores, settings)

    def repository(self) -> Repository:
        """The model repository. Raises UsageError if none is configured."""
        if not self.settings.models:
            raise UsageError(
                "no model repository is configured", hint="set --models or MILLRACE_MODELS"
            )
        return Repository(self.stores, Location.parse(self.settings.models))
