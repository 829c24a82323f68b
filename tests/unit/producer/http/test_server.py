"""Running the app in the main thread, until a signal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from millrace.core.services import Services
from millrace.producer.http.app import create_app
from millrace.producer.http.server import serve_app
from millrace.producer.http.settings import HttpSettings


@pytest.fixture
def handlers() -> Iterator[None]:
    """What signals do is as it was, afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_as_soon_as_it_says_that_it_serves_is_heard(
    number: signal.Signals, services: Services
) -> None:
    settings = HttpSettings.load(http_port=0, no_auth=True, any_location=True)
    app = create_app(services, settings)
    wound_down = threading.Event()
    app.state.backend.when_winding_down(wound_down.set)
    again = threading.Timer(30, os.kill, (os.getpid(), number))
    again.start()
    try:
        serve_app(app, settings, lambda url: signal.raise_signal(number))
        assert again.is_alive(), "it took a second one"
    finally:
        again.cancel()
    assert wound_down.is_set()
