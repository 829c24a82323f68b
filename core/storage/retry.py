"""Trying again what storage left unanswered: bounded in number and in time, with jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from millrace.core.errors import StorageUnavailable
from millrace.core.settings import StorageSettings

T = TypeVar("T")

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 10.0
BACKOFF = 3


def retried(
    action: Callable[[], T],
    settings: StorageSettings,
    again: Callable[[StorageUnavailable], bool],
) -> T:
    """What `action` returns, tried again while it raises a StorageUnavailable that `again` takes.

    Raises the last error after `storage_max_retries`, or once `storage_retry_timeout_s` is over.
    """
    give_up_at = time.monotonic() + settings.storage_retry_timeout_s
    wait_s = FIRST_WAIT_S
    retries = 0
    while True:
        try:
            return action()
        except StorageUnavailable as error:
            too_late = time.monotonic() + wait_s > give_up_at
            if retries == settings.storage_max_retries or too_late or not again(error):
                raise
        retries += 1
        time.sleep(wait_s)
        # Decorrelated jitter, as obstore waits between its own tries.
        wait_s = min(LONGEST_WAIT_S, random.uniform(FIRST_WAIT_S, wait_s * BACKOFF))
