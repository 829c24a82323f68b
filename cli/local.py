"""A whole job in one command: embedded Redis, worker processes, producer, tear-down."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from millrace.cli.ctrl_c import CtrlC
from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.cli.progress import listing_progress, prediction_progress
from millrace.cli.what_runs import WhatRuns
from millrace.core.errors import ExitCode, MillraceError, ModelError, UsageError
from millrace.core.job import JobSpec, JobState, Reason
from millrace.core.model_ref import ModelRef
from millrace.core.notify.delivery import DeliveryState
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.status import JobStatus
from millrace.producer.enqueue import give_up
from millrace.producer.job import Job
from millrace.producer.submit import make_spec, submit_spec
from millrace.worker.supervisor import Supervisor

TELL_WITHIN_S = 60.0

FIRST_FAILURES = 3
"""How often each worker process may end before the first chunk was begun."""


@dataclass(frozen=True, slots=True)
class LocalJob:
    """What to run; the fields of `submit`."""

    source: str
    model: str
    output: str
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    manifest: str | None = None
    chunk_size: int = 128
    top_k: int | None = None
    layout: str = "chunks"
    job_id: str | None = None
    error_threshold: str | None = None
    deadline: str | None = None
    notify: str | None = None


def run_locally(
    wanted: LocalJob,
    *,
    processes: int,
    models: str | None,
    environment: Mapping[str, str],
    quiet: bool,
) -> JobStatus:
    """Run a job to its end and take everything down again, also on Ctrl-C.

    `environment` configures the worker processes. Raises what `submit` raises, and
    ModelError if no worker could load the model; the job has then `failed`.
    """
    with CtrlC() as ctrl_c, EmbeddedRedis() as redis:
        settings = Settings.load(redis_url=redis.url, models=models)
        if wanted.notify is not None and not settings.notify_keys:
            raise UsageError("--notify signs what it tells: set MILLRACE_NOTIFY_SECRET")
        services = Services(settings)
        fields = asdict(wanted)
        spec = make_spec(
            services, fields.pop("source"), model=ModelRef.parse(fields.pop("model")), **fields
        )
        told = {**environment, **_pinned(spec), "MILLRACE_REDIS_URL": redis.url}
        job = Job(services, spec.job_id)
        try:
            with crew_of(processes, told) as workers:
                with listing_progress(quiet=quiet) as listed:
                    submit_spec(services, spec, listed)
                said = WhatRuns(services.fleet, quiet=quiet)
                with prediction_progress(quiet=quiet) as predicted:
                    _watch(services, job, workers, predicted, said, ctrl_c)
        except BaseException as error:
            # Whoever pressed Ctrl-C waits for one try and no more.
            within_s = 0 if isinstance(error, KeyboardInterrupt) else TELL_WITHIN_S
            with suppress(MillraceError):
                _told(services, job, ctrl_c, within_s)
            raise
        return _told(services, job, ctrl_c, TELL_WITHIN_S)


def _pinned(spec: JobSpec) -> dict[str, str]:
    """The very version that the job is for: a process that is started again after another was
    published would serve that."""
    ref = ModelRef(spec.model.name, spec.model.version)
    return {"MILLRACE_MODEL": str(ref)} if ref.version else {}


class Crew:
    """The worker processes, looked after by a thread while the main one watches the job."""

    def __init__(self, processes: int, environment: Mapping[str, str]) -> None:
        self._supervisor = Supervisor(processes, environment)
        self._patience = FIRST_FAILURES * processes
        self.code: int | None = None
        self.gone = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="crew", daemon=True)

    @property
    def keeps_failing(self) -> bool:
        """So many of them ended by themselves that, if none ever worked, none will."""
        return self._supervisor.failures >= self._patience

    def start(self) -> None:
        self._supervisor.start()
        self._thread.start()

    def stop(self) -> None:
        """Let them finish what is in hand, and wait; a second Ctrl-C stops them at once."""
        self._supervisor.stop()
        if self._thread.ident is None:  # a Ctrl-C came amid the start
            self._thread.start()
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self._supervisor.stop()
            self._thread.join()
            raise

    def _look_after(self) -> None:
        while (code := self._supervisor.poll()) is None:
            self.gone.wait(0.1)
        self.code = code
        self.gone.set()


def _told(services: Services, job: Job, ctrl_c: CtrlC, within_s: float) -> JobStatus:
    """The status once its end is told; Redis, which would remember it, ends with this command."""
    until = time.monotonic() + within_s
    job.status()  # ends it, if it waits for nothing else
    while True:
        services.notifier.tick()
        status = job.status()
        told = status.notification
        if told is None or told.state is not DeliveryState.WAITING:
            return status
        if time.monotonic() >= until:
            why = told.error or "it does not answer"
            print(f"millrace: {told.to} was not told: {why}", file=sys.stderr)
            return status
        ctrl_c.check()
        time.sleep(0.05)


@contextmanager
def crew_of(processes: int, environment: Mapping[str, str]) -> Iterator[Crew]:
    """Worker processes for as long as the context lasts."""
    crew = Crew(processes, environment)
    try:
        crew.start()
        yield crew
    finally:
        crew.stop()


def _watch(
    services: Services,
    job: Job,
    crew: Crew,
    progress: Callable[[JobStatus], None],
    said: WhatRuns,
    ctrl_c: CtrlC,
) -> None:
    """Wait for the job, unless the workers give up first."""
    try:
        while True:
            ctrl_c.check()
            status = job.status()
            progress(status)
            said.look(last=status.terminal)
            if status.terminal:
                return
            if crew.gone.wait(0.3) or (status.started_at is None and crew.keeps_failing):
                give_up(services, job.id, JobState.FAILED, Reason.MODEL_LOAD_FAILED)
                error = ModelError("the workers could not start; their own line says why")
                error.exit_code = ExitCode(crew.code or ExitCode.MODEL)
                raise error
    except KeyboardInterrupt:
        give_up(services, job.id, JobState.CANCELLED, Reason.INTERRUPTED)
        raise
