"""A job is answered by the model it began with, and by no other."""

from __future__ import annotations

from millrace.core.claims import ModelIdentity
from millrace.core.errors import MillraceError
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.log import get_logger
from millrace.core.services import Services

log = get_logger(__name__)


class BegunWithAnotherError(MillraceError):
    """The job's directory says that it was begun with another model than ours."""

    code = "begun_with_another"

    def __init__(self, model: ModelIdentity) -> None:
        super().__init__(f"the job was begun with {_words(model)}")
        self.model = model


class OwnJobs:
    """What a worker does about jobs that are not its model's. Safe to use from several threads."""

    def __init__(self, services: Services, model: ModelIdentity, queues: tuple[str, ...]) -> None:
        self._services, self._model, self._queues = services, model, queues
        self._told = set[str]()

    def confirm(self, directory: JobDirectory, spec: JobSpec) -> None:
        """Write down that the job began with our model, if its spec does not say with which:
        Redis, which pins it at the first claim, may be lost.

        Raises BegunWithAnotherError if something else stands there, CorruptRecord and the
        store's errors.
        """
        if spec.model.digest is not None:
            return
        standing = directory.pin_model(self._model)
        if standing != self._model:
            raise BegunWithAnotherError(standing)

    def hand_over(self, spec: JobSpec, chunk: int) -> None:
        """Leave a chunk to the workers of the version its job began with, on their own queue.

        Those of another build of our own version have none: the reconciler sends it again.
        """
        try:
            record = self._services.jobs.record(spec.job_id)
            if record.queue not in self._queues:
                self._services.queue.send(record.queue, spec.job_id, [chunk])
        except MillraceError as error:
            log.warning("left to the reconciler", job=spec.job_id, error=error.message)
            return
        self._tell(spec.job_id, ModelIdentity(record.version or "", record.digest or ""))

    def repin(self, job: str, model: ModelIdentity) -> None:
        """Tell Redis, which had lost it, which model the job began with."""
        try:
            self._services.jobs.pin(job, model)
        except MillraceError as error:
            log.warning("left to the next claim", job=job, error=error.message)
        self._tell(job, model)

    def _tell(self, job: str, model: ModelIdentity) -> None:
        """Once for each job: it has many chunks."""
        if job not in self._told:
            self._told.add(job)
            log.warning(
                "left a job to the model it began with",
                job=job,
                began_with=_words(model),
                ours=_words(self._model),
            )


def _words(model: ModelIdentity) -> str:
    return f"version {model.version or '(none)'}, {model.digest}"
