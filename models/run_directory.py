"""A training run's directory: one run, which one process at a time works on.

::

    run.json       how it was asked for; written once
    state.json     the finished epochs and their checkpoint; replaced after each epoch
    result.json    the final accuracy; its being there says that the run is finished
    checkpoints/   weights and optimizer after an epoch, in Keras's .weights.h5
    logs/          event files for TensorBoard
    bundle/        the model, unless it was published elsewhere

`state.json` is the truth: it is replaced, in one step, when its checkpoint is on the disk. So
a run that is killed goes on after its last finished epoch.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from millrace.core.disk import writing
from millrace.core.errors import BadData, Conflict, ObjectNotFound
from millrace.models.training_record import Epoch, Result, RunRecord, State

RUN, STATE, RESULT, LOCK = "run.json", "state.json", "result.json", ".lock"

KEPT = 3
"""Checkpoints; the last is what counts, the others are for people."""

R = TypeVar("R", bound=BaseModel)


class RunDirectory:
    """Reads and writes what lies there. Make one with `open_run` to write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self) -> RunRecord:
        """Raises ObjectNotFound if there is no run, BadData if it is not one of ours."""
        found = self._read(RUN, RunRecord)
        if found is None:
            raise ObjectNotFound(f"{self.path} holds no training run ({RUN})")
        return found

    def state(self) -> State:
        return self._read(STATE, State) or State()

    def result(self) -> Result | None:
        """None for a run that is not finished."""
        return self._read(RESULT, Result)

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    def put_bundle(self, new: Path) -> None:
        """Make a directory that lies in this one the run's bundle.

        The one that stood there is back if that fails; after a kill, before the next is put.
        """
        old = self.path / ".old-bundle"
        with writing(self.bundle):
            if old.exists() and not self.bundle.exists():
                old.rename(self.bundle)
            shutil.rmtree(old, ignore_errors=True)
            try:
                if self.bundle.exists():
                    self.bundle.rename(old)
                new.rename(self.bundle)
            except BaseException:
                if old.exists() and not self.bundle.exists():
                    old.rename(self.bundle)
                raise
            shutil.rmtree(old, ignore_errors=True)

    def checkpoint(self) -> Path | None:
        """The weights after the last finished epoch. Raises BadData if they have gone."""
        name = self.state().checkpoint
        if name is None:
            return None
        file = self.path / "checkpoints" / name
        if not file.is_file():
            raise BadData(f"{file} is missing: the run cannot go on", hint="begin another run")
        return file

    def begin(self, record: RunRecord) -> None:
        self._replace(RUN, record)

    def finish(self, result: Result) -> None:
        self._replace(RESULT, result)

    def commit(self, epoch: Epoch, save: Callable[[Path], None]) -> State:
        """Put an epoch on record; `save` writes the weights to the file it is given.

        Raises AccessDenied and StorageUnavailable, and the epoch does not count then.
        """
        folder = self.path / "checkpoints"
        name = f"epoch-{epoch.number:04d}.weights.h5"
        # Keras wants the ending; what is not finished begins with a dot.
        unfinished = folder / f".unfinished-{name}"
        with writing(folder):
            folder.mkdir(exist_ok=True)
            save(unfinished)
            _sync(unfinished)
            unfinished.replace(folder / name)
        state = State(epochs=(*self.state().epochs, epoch), checkpoint=name)
        self._replace(STATE, state)
        # In order of their numbers: as text, epoch-10000 comes before epoch-9999.
        older = sorted(folder.glob("epoch-*"), key=lambda file: (len(file.name), file.name))[:-KEPT]
        for file in [*older, *folder.glob(".unfinished-*")]:
            if file.name != name:
                file.unlink()
        return state

    def running(self) -> bool:
        """Whether a process works on it now."""
        try:
            lock = os.open(self.path / LOCK, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _read(self, name: str, kind: type[R]) -> R | None:
        file = self.path / name
        try:
            return kind.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BadData(f"{file} cannot be read: {error.strerror or error}") from None
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise BadData(f"{file} is not a training run's: {where} {problem['msg']}") from None

    def _replace(self, name: str, value: BaseModel) -> None:
        unfinished = self.path / f".unfinished-{name}"
        with writing(self.path):
            unfinished.write_text(value.model_dump_json(indent=2) + "\n", encoding="utf-8")
            _sync(unfinished)
            unfinished.replace(self.path / name)


@contextmanager
def open_run(path: Path) -> Iterator[RunDirectory]:
    """The directory, made if need be, for this process alone.

    Raises Conflict if another process works on it or it holds something else, AccessDenied and
    StorageUnavailable.
    """
    check_place(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _locked(lock):
            raise Conflict(f"another process is training in {path}")
        yield RunDirectory(path)
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    """Whether the lock has become ours. Who only looks whether a run is at work holds it, too,
    but for a moment; who trains holds it longer."""
    for pause in (*[0.02] * 10, 0):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
        else:
            return True
    return False


def check_place(path: Path) -> None:
    """Raises Conflict where a run cannot be, for something else is there. Makes nothing."""
    with writing(path):
        try:
            names = sorted(entry.name for entry in path.iterdir())
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise Conflict(f"{path} is a file", hint="name a new directory") from None
    foreign = [name for name in names if not _ours(name)]
    if foreign and RUN not in names:
        raise Conflict(f"{path} holds something else: {foreign[0]}", hint="name a new directory")


def _ours(name: str) -> bool:
    return name == LOCK or name.startswith(".unfinished-")


def _sync(file: Path) -> None:
    """What a crash of the machine does not take back."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
