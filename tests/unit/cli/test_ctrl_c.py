"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import signal
import sys

import pytest

from millrace.cli.ctrl_c import CtrlC


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_pressing_it_interrupts_at_once() -> None:
    with CtrlC(), pytest.raises(KeyboardInterrupt):
        press()


def test_what_was_swallowed_is_heard_at_the_next_check() -> None:
    class Swallows:
        def __del__(self) -> None:
            try:
                press()
            except KeyboardInterrupt:
                return

    with CtrlC() as ctrl_c:
        ctrl_c.check()
        Swallows().__del__()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.check()


def test_the_handler_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with CtrlC():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


class Interrupted:
    def __del__(self) -> None:
        press()


class Broken:
    def __del__(self) -> None:
        raise ValueError("broken")


def test_one_dropped_in_a_destructor_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: shown.append(args.exc_type))
    with CtrlC() as ctrl_c:
        Interrupted()
        assert shown == []
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.check()
        Broken()
    assert shown == [ValueError]
    Broken()
    assert shown == [ValueError, ValueError]
