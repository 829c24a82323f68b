"""Logs: a sentence plus stable fields, on standard error, for people or for machines.

What lines are about (`job`, `request_id`) is bound once, where the work on it begins, and stands in
every line from there on, also in those of libraries. Threads begin without it: what is handed
to one is `carried`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, TypeVar

import structlog

T = TypeVar("T")


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
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    tail: list[Any] = [structlog.processors.format_exc_info] if form == "json" else []
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *tail,
                renderer,
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
