"""Ctrl-C, and SIGTERM like it, that cannot get lost."""

from __future__ import annotations

import signal
import sys

import pytest

from millrace.cli.ctrl_c import CtrlC

either = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def press(number: signal.Signals = signal.SIGINT) -> None:
    signal.raise_signal(number)


@either
def test_pressing_it_interrupts_at_once(number: signal.Signals) -> None:
    with CtrlC(), pytest.raises(KeyboardInterrupt):
        press(number)


@either
def test_what_was_swallowed_is_heard_at_the_next_check(number: signal.Signals) -> None:
    class Swallows:
        def __del__(self) -> None:
            try:
                press(number)
            except KeyboardInterrupt:
                return

    with CtrlC() as ctrl_c:
        ctrl_c.check()
        Swallows().__del__()
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.check()


@either
def test_the_handler_before_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with CtrlC():
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before
    with pytest.raises(KeyboardInterrupt), CtrlC():
        press(number)
    assert signal.getsignal(number) is before


def test_a_handler_that_ignores_is_put_back_too() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), CtrlC():
            press(signal.SIGTERM)
        press(signal.SIGTERM)  # is ignored again
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_that_comes_amid_the_making_of_a_class_is_one() -> None:
    class Pressing:
        def __set_name__(self, owner: type, name: str) -> None:
            press()

    with pytest.raises(KeyboardInterrupt), CtrlC():
        type("Made", (), {"field": Pressing()})
    with pytest.raises(RuntimeError), CtrlC():
        raise RuntimeError("of its own")


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
