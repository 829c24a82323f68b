"""Logs: a sentence plus stable fields, on standard error, for people or for machines.

What lines are about (`job`, `request_id`) is bound once, where the work on it begins, and stands in
every line from there on, also in those of libraries. Threads begin without it: what is handed
to one is `carried`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, TypeVar

import structlog

T = TypeVar("T")

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal, or turn its text about."""


def about(**fields: str | int) -> AbstractContextManager[None]:
    """Lines written within the block are about this: `with about(job="j"):`."""
    return structlog.contextvars.bound_contextvars(**fields)


def carried(function: Callable[..., T]) -> Callable[..., T]:
    """The function, for one call in another thread, whose lines are about what ours are now."""
    return partial(copy_context().run, function)


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["console", "json"] = "console",
) -> None:
    """Send millrace's and the libraries' logs to standard error in one form."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _without_colours,
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            _visible,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *rendered,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("botocore", "boto3", "urllib3", "PIL", "absl", "h5py", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for library in ("celery", "kombu"):
        logging.getLogger(library).setLevel(max(logging.WARNING, root.level))


def get_logger(name: str) -> Any:
    """A structlog logger: `log.info("finished a chunk", job=…, chunk=…)`.

    It writes through the standard library's logging, so that a program which uses millrace
    as a library and configures nothing sees warnings on standard error, and nothing else.
    """
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _without_colours(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """uvicorn says some things twice, the second time for terminals."""
    event.pop("color_message", None)
    return event


def _visible(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Spell out what somebody may have put into a path or a key to act on whoever reads the log."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], value)
    return event
