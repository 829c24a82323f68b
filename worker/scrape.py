"""How a process shows its samples: to the supervisor that started it, or to Prometheus itself.

A supervisor gives each process a socket: whoever connects is sent the samples as JSON, and the
connection is closed. A process without one (`celery -A millrace.worker.app worker`) serves
`/metrics` itself.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from millrace.core.exposition import registry_of, serve
from millrace.core.log import get_logger
from millrace.core.metrics import Sample, as_json, from_json
from millrace.worker.meters import Meters
from millrace.worker.options import WorkerOptions
from millrace.worker.supervisor import METRICS_SOCKET

log = get_logger(__name__)

ANSWERS_WITHIN_S = 2.0
"""A process that does not is taken for one that is down."""
PAUSE_S = 0.1
"""After a failure: what cannot be accepted, for want of file descriptors, may be in a moment."""


def expose(meters: Meters, options: WorkerOptions) -> bool:
    """Show the samples from now on, if anybody wants them; whether somebody does. Raises
    MissingExtra, UsageError."""
    path = os.environ.get(METRICS_SOCKET)
    if path:
        answer(Path(path), meters.samples)
    elif options.metrics_port is not None:
        registry = registry_of(lambda: [({"process": "0"}, meters.samples())])
        port, _ = serve(registry, options.metrics_address, options.metrics_port)
        log.info("serving metrics", address=options.metrics_address, port=port)
    return bool(path) or options.metrics_port is not None


def answer(path: Path, samples: Callable[[], list[Sample]]) -> None:
    """Tell whoever asks at `path`, in a thread, for as long as this process lives."""
    path.unlink(missing_ok=True)  # of the process that was here before
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(8)

    def run() -> None:
        while True:
            try:
                asker, _ = listener.accept()
                with asker:
                    asker.settimeout(ANSWERS_WITHIN_S)
                    asker.sendall(json.dumps(as_json(samples())).encode())
            except Exception as error:  # of this one scrape, whatever it is
                log.warning("a scrape was not answered", error=str(error) or repr(error))
                time.sleep(PAUSE_S)

    threading.Thread(target=run, name="scrape", daemon=True).start()


def ask(path: Path) -> list[Sample] | None:
    """The samples of the process that answers at `path`; None if none does."""
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(ANSWERS_WITHIN_S)
            asking.connect(str(path))
            said = b""
            while block := asking.recv(1 << 16):
                said += block
        return from_json(json.loads(said))
    except (OSError, ValueError, KeyError, TypeError):  # none, or of another version
        return None
