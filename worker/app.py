"""The Celery entry: `celery -A millrace.worker.app worker`, configured by `MILLRACE_…`.

`millrace worker` starts the same app through `millrace.worker.process`. This module builds
its app when it is imported, because that is what Celery's command looks for; everything
else is made by functions.
"""

from __future__ import annotations

import warnings
from typing import Any

from celery import Celery, bootsteps
from celery.platforms import SecurityWarning
from celery.signals import setup_logging

from millrace.core.celery_app import make_app
from millrace.core.errors import MillraceError
from millrace.core.log import configure, get_logger
from millrace.core.message import ChunkMessage
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import PREDICT_CHUNK
from millrace.worker.agreement import Crew
from millrace.worker.engine import Engine, queues_of
from millrace.worker.exits import fail
from millrace.worker.model_source import find_model
from millrace.worker.options import WorkerOptions

log = get_logger(__name__)

BEAT_S = 0.5


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Loads the model before the consumer starts; lets the chunks in hand end when it stops."""

    requires = ("celery.worker.components:Hub",)

    def start(self, worker: Any) -> None:
        try:
            worker.app.engine.load()
        except MillraceError as error:
            fail(error)

    def stop(self, worker: Any) -> None:
        worker.app.engine.stop()

    def terminate(self, worker: Any) -> None:
        worker.app.engine.hand_back()


class BeatStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Shows the watchdog that the consumer's event loop turns."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        beat = consumer.app.engine.beat
        self._timer = consumer.timer.call_repeatedly(BEAT_S, beat.touch)

    def stop(self, consumer: Any) -> None:
        self._timer.cancel()


def make_worker_app(settings: Settings, options: WorkerOptions, crew: Crew) -> Celery:
    """An app that knows one task and one model. Raises ModelNotFound, ModelError, …"""
    bundle = find_model(Services(settings), options)
    app = make_app(
        settings,
        transport="millrace.worker.transport:Transport",
        queues=queues_of(bundle),
        pool="millrace.worker.pool:ChunkPool",
        slots=options.chunk_slots,
    )
    app.conf.message_key = settings.message_key_bytes
    app.conf.worker_consumer = "millrace.worker.intake:ChunkConsumer"
    app.engine = Engine(settings, options, bundle, app, crew)
    app.steps["worker"].add(EngineStep)
    app.steps["consumer"].add(BeatStep)

    def predict_chunk(**fields: Any) -> None:
        app.engine.handle(ChunkMessage.read(fields))

    app.task(
        predict_chunk, name=PREDICT_CHUNK, Strategy="millrace.worker.intake:strategy", typing=False
    )
    app.finalize()
    for name in [name for name in app.tasks if name != PREDICT_CHUNK]:
        # Celery's own tasks would let whoever writes to Redis publish to other queues.
        app.tasks.unregister(name)
    return app


def _from_environment() -> Celery:
    try:
        settings = Settings.load()
        configure(settings.log_level, settings.log_format)
        setup_logging.connect(_keep_our_logging)
        # Of root, for the sake of pickle, which is not taken here.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        return make_worker_app(settings, WorkerOptions.load(), Crew.load())
    except MillraceError as error:
        fail(error)


def _keep_our_logging(**_: Any) -> None:
    """Celery sets up no logging of its own where this signal has a receiver."""


app = _from_environment()
