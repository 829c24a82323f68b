"""Ctrl-C, and SIGTERM like it, that cannot get lost."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CtrlC:
    """Makes SIGINT and SIGTERM a KeyboardInterrupt, and remembers it, so that what was started
    is taken down again. Use as a context manager in the main thread.

    Python raises KeyboardInterrupt wherever the main thread happens to be, and if that is a
    destructor or a weak reference's callback (TensorFlow has many) it drops it, with a
    traceback on stderr. What runs long calls `check` now and then; the traceback is not shown.
    If it is the making of a class, amid an import, Python 3.11 makes a RuntimeError of it.
    """

    def __init__(self) -> None:
        self._pressed = False

    def __enter__(self) -> CtrlC:
        self._unraisable = sys.unraisablehook
        sys.unraisablehook = self._dropped
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable
        if self._pressed and error and isinstance(error.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was pressed and went unheard."""
        if self._pressed:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt

    def _dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        if not (self._pressed and isinstance(unraisable.exc_value, KeyboardInterrupt)):
            self._unraisable(unraisable)
