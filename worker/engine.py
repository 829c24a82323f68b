"""One worker process's engine: the model and everything that keeps it fed."""

from __future__ import annotations

import time

from celery import Celery

from millrace.core.bundle import Bundle
from millrace.core.claims import Claims, ModelIdentity
from millrace.core.errors import MillraceError, Unavailable
from millrace.core.log import get_logger
from millrace.core.message import ChunkMessage
from millrace.core.model_ref import ModelRef
from millrace.core.notify.notifying import Notifying
from millrace.core.periodic import Periodic
from millrace.core.reconcile import Reconciler
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import queue_name
from millrace.worker.agreement import Crew
from millrace.worker.heartbeat import Heartbeat, worker_name
from millrace.worker.in_hand import InHand
from millrace.worker.inference import Inference
from millrace.worker.meters import Meters
from millrace.worker.options import WorkerOptions
from millrace.worker.pool import all_under_way
from millrace.worker.runner import ChunkRunner, Model
from millrace.worker.scrape import expose
from millrace.worker.watchdog import Beat, Watchdog, Watched

log = get_logger(__name__)

COUNT_QUEUES_S = 5.0


class Engine:
    """Loaded and warmed before it takes work; stopped only when nothing is in hand."""

    def __init__(
        self, settings: Settings, options: WorkerOptions, bundle: Bundle, app: Celery, crew: Crew
    ) -> None:
        """Put the parts together; nothing is loaded or connected yet."""
        self.name = worker_name()
        self.bundle = bundle
        self.queues = queues_of(bundle)
        self.beat = Beat()
        """Touched by the consumer's event loop."""
        self._options, self._crew = options, crew
        self._services = Services(settings, app)
        self._in_hand = InHand()
        self.meters = Meters(bundle.card.name, bundle.card.version or "")
        self.meters.leases = lambda: len(self._in_hand.leases())
        self.meters.queues = lambda: self._waiting
        self._waiting: dict[str, int] = {}
        self._counting = Periodic("queue depths", COUNT_QUEUES_S, self._count_waiting)
        self._claims = Claims(
            self._services.redis,
            worker=self.name,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
        )
        reconciler = Reconciler(
            self._services.jobs,
            self._services.queue,
            self._services.feeder,
            self._services.finalizer,
            worker=self.name,
            every_s=settings.reconcile_s,
            lease_s=settings.lease_s,
        )
        self._reconciling = Periodic(
            "reconciler",
            settings.reconcile_s,
            lambda: [reconciler.tick(queue) for queue in self.queues],
        )
        self._notifying = Notifying(
            self._services.notifier, self._services.finalizer, settings.reconcile_s
        )
        self._heartbeat = Heartbeat(
            self.name,
            str(ModelRef(bundle.card.name, bundle.card.version)),
            self.queues,
            options.chunk_slots,
            settings.lease_s,
            self._claims,
            self._services.fleet,
            self._in_hand,
        )

    def load(self) -> None:
        """Load the model, warm it up, and start the threads. Raises ModelError,
        MissingExtra, AccessDenied."""
        self._announce_loading()
        if expose(self.meters, self._options):
            self._counting.start()
        try:
            self._load()
        except BaseException:
            self._heartbeat.leave()
            raise

    def _load(self) -> None:
        options, card = self._options, self.bundle.card
        started = time.monotonic()
        inference = Inference(
            self.bundle, options, self._crew, self._heartbeat.soon, self.meters.batch
        )
        self._inference = inference
        self.meters.loaded(inference.running, time.monotonic() - started)
        identity = ModelIdentity(card.version or "", self.bundle.digest)
        self._runner = ChunkRunner(
            self._services,
            self._claims,
            inference.pipeline,
            Model(identity, self.queues, inference.head),
            self._in_hand,
            # As many chunks as were asked for, however small they are.
            all_under_way if options.slots is None else lambda _: all_under_way(1.0),
            self.meters,
        )
        self._watchdog = Watchdog(
            [
                Watched("the consumer", self._consumer_age, options.watchdog_s),
                Watched("a prediction", inference.batcher.predicting_for, options.predict_limit_s),
            ],
            self._services.redis.ping,
        )
        self.beat.touch()
        self._watchdog.start()
        self._heartbeat.start(lambda: inference.running)
        self._reconciling.start()
        self._notifying.start()
        log.info(
            "ready",
            worker=self.name,
            model=str(ModelRef(card.name, card.version)),
            engine=str(inference.predictor.engine),
            precision=str(options.precision),
            batch_size=inference.batch_size,
            threads=options.threads,
            slots=options.chunk_slots,
        )

    def _consumer_age(self) -> float:
        """How long the consumer stood still; once it is told to stop, it need not move."""
        return 0.0 if self._in_hand.closed else self.beat.age()

    def handle(self, message: ChunkMessage) -> None:
        """Run one message to its end."""
        self._runner.handle(message)

    def begin_stop(self) -> int:
        """Take no more chunks; returns how many are in hand."""
        return self._in_hand.close()

    def stop(self) -> None:
        """Shut down in the order that loses nothing: let the chunks in hand end, then what
        predicts them; the heartbeat goes last, for until then it keeps the leases alive."""
        self._in_hand.close()
        self._in_hand.wait_empty()
        self._inference.close()
        self._watchdog.stop()
        self._reconciling.stop()
        self._notifying.stop()
        self._counting.stop()
        self._heartbeat.stop()
        self._services.redis.close()

    def hand_back(self) -> int:
        """Give every chunk in hand back at once and queue it again; returns how many."""
        leases = self._in_hand.leases()
        for lease in leases:
            self._runner.hand_back(lease)
        self._heartbeat.leave()
        return len(leases)

    def _count_waiting(self) -> None:
        """Messages that wait in each queue; nothing once Redis does not tell. Not at the scrape,
        which a Redis that hangs would hold up."""
        try:
            depths = {queue: self._services.queue.depth(queue) for queue in self.queues}
        except MillraceError:
            depths = {}
        self._waiting = depths

    def _announce_loading(self) -> None:
        """A Redis that is away may come back; one that refuses this worker will not help it."""
        try:
            self._heartbeat.announce("loading")
        except Unavailable as error:
            log.warning("cannot announce the worker yet", error=error.message)


def queues_of(bundle: Bundle) -> tuple[str, ...]:
    """What a worker of this model consumes: unpinned jobs, and those pinned to its version."""
    card = bundle.card
    names = [queue_name(card.name, None)]
    if card.version is not None:
        names.append(queue_name(card.name, card.version))
    return tuple(names)
