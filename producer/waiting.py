"""Waiting for a job to end, however its status is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from millrace.core.errors import RedisUnavailable, Unavailable, WaitTimeout
from millrace.core.log import get_logger
from millrace.core.status import JobStatus

log = get_logger(__name__)

PATIENCE_S = 600.0
LONGEST_PREDICTION_S = 600
"""No server waits longer for one picture, whatever it is told."""


def wait_for(
    job: str,
    ask: Callable[[], JobStatus],
    timeout: float | None,
    *,
    progress: Callable[[JobStatus], None] | None,
    poll_s: float,
    patience_s: float,
) -> JobStatus:
    """Poll until the job has ended, and return its last status. Once there was an answer, whoever
    answers may be away for `patience_s` at a time. Raises what `ask` raises; WaitTimeout."""
    deadline = None if timeout is None else time.monotonic() + timeout
    answered, away = None, False
    while True:
        try:
            status = ask()
        except Unavailable as error:
            now = time.monotonic()
            if answered is None or now - answered > patience_s or _over(deadline):
                raise
            if not away:
                who = "Redis" if isinstance(error, RedisUnavailable) else "the server"
                log.warning(f"waiting for {who}", error=error.message)
            away = True
        else:
            answered, away = time.monotonic(), False
            if progress is not None:
                progress(status)
            if status.terminal:
                return status
        if _over(deadline):
            raise WaitTimeout(f"job {job} has not ended within {timeout:g} s")
        left = poll_s if deadline is None else deadline - time.monotonic()
        time.sleep(max(0.0, min(poll_s, left)))


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
