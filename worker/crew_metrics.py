"""`/metrics` of a whole `millrace worker`: one address, however many processes it has.

The supervisor asks its processes at each scrape and tells their samples apart by the label
`process`, which is their number and outlives restarts. One address, for `--processes auto` finds
the number only at start-up, and no list of ports has to follow it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from millrace.core import metrics as m
from millrace.core.exposition import Tagged, registry_of, serve
from millrace.core.log import get_logger
from millrace.core.metrics import Sample
from millrace.worker.scrape import ask
from millrace.worker.supervisor import Supervisor

log = get_logger(__name__)


@contextmanager
def supervised(
    processes: int, environment: Mapping[str, str], address: str, port: int | None
) -> Iterator[Supervisor]:
    """A supervisor, and with a `port` its `/metrics` beside it. Raises MissingExtra, UsageError."""
    if port is None:
        yield Supervisor(processes, environment)
        return
    with tempfile.TemporaryDirectory(prefix="millrace-") as directory:
        sockets = [Path(directory, f"{number}.sock") for number in range(processes)]
        supervisor = Supervisor(processes, environment, sockets)
        registry = registry_of(lambda: samples_of(supervisor, sockets))
        port, end = serve(registry, address, port)
        log.info("serving metrics", address=address, port=port)
        try:
            yield supervisor
        finally:
            end()


def samples_of(supervisor: Supervisor, sockets: list[Path]) -> Iterator[Tagged]:
    """What there is to say of each process; they are asked at once, for some may not answer."""
    with ThreadPoolExecutor(len(sockets)) as askers:
        answers = [*askers.map(ask, sockets)]
    for number, told in enumerate(answers):
        own = [
            Sample(m.UP, int(told is not None)),
            Sample(m.RESTARTS, supervisor.failures_of(number)),
        ]
        yield {"process": str(number)}, [*own, *(told or [])]
