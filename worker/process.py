"""One worker process: `python -m millrace.worker.process`, configured by `MILLRACE_…`.

Ctrl-C or SIGTERM finishes the chunks in hand; a second signal exits at once and gives them
back. The process also ends, warmly, when the supervisor that started it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery import Celery
from celery.apps.worker import Worker
from celery.worker import state as celery_state

from millrace.core.errors import ExitCode, MissingExtra
from millrace.core.log import get_logger
from millrace.worker.exits import fail
from millrace.worker.supervisor import PARENT_FD

log = get_logger(__name__)

HAND_BACK_S = 5.0
"""How long a second signal waits for the chunks to be given back."""


class WorkerProgram(Worker):  # type: ignore[misc]
    """Celery's worker with our signals and without its banner."""

    def install_platform_tweaks(self, worker: Any) -> None:
        _on_signals(StopSignals(self.app.engine))


class StopSignals:
    """First signal: finish what is in hand. Second: give it back and go."""

    asked = False

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if StopSignals.asked:
            self._leave()
        StopSignals.asked = True
        celery_state.should_stop = ExitCode.OK
        # Logging in a handler could meet the interrupted thread in the middle of a line.
        threading.Thread(target=self._finish, daemon=True).start()

    def _finish(self) -> None:
        in_hand = self._engine.begin_stop()
        log.info(
            "stopping: finishing the chunks in hand; a second signal stops at once", chunks=in_hand
        )

    def _leave(self) -> None:
        # In a thread, for the interrupted one may hold the very locks this needs.
        thread = threading.Thread(target=self._engine.hand_back, daemon=True)
        thread.start()
        thread.join(HAND_BACK_S)
        os.write(2, b"millrace worker: stopped at once; its chunks go back to the queue\n")
        os._exit(ExitCode.INTERRUPTED)


def main() -> int:
    """Run the worker until it is told to stop; returns the exit code."""
    # Nothing is begun yet; and what is raised amid an import may come out as another error.
    _on_signals(lambda *_: os._exit(ExitCode.OK))
    _end_with_parent()
    app = _app()
    # Until there is work: the model may take minutes to arrive.
    _on_signals(lambda *_: sys.exit(ExitCode.OK))
    worker = WorkerProgram(app=app, quiet=True)
    worker.start()
    code = int(worker.exitcode or 0)
    if StopSignals.asked and code == 0:
        log.info("stopped: every chunk in hand was finished")
    return code


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _app() -> Celery:
    try:
        from millrace.worker.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("millrace"):
            raise
        fail(MissingExtra(error.name, "worker"))
    return app


def _end_with_parent() -> None:
    """Stop when the supervisor's end of the pipe closes, however it died."""
    text = os.environ.get(PARENT_FD)
    if text is None:
        return

    def watch() -> None:
        os.read(int(text), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
