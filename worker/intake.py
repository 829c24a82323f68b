"""What a worker accepts from the queue: chunk messages, and nothing else Celery could do."""

from __future__ import annotations

import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning, InvalidTaskError
from celery.worker.consumer.consumer import Consumer
from celery.worker.strategy import default

from millrace.core.errors import BadMessage
from millrace.core.log import get_logger
from millrace.core.message import ChunkMessage

log = get_logger(__name__)

_NOT_OURS = ("compression", "eta", "expires", "retries", "timelimit", "group", "shadow")


def strategy(task: Any, app: Any, consumer: Any) -> Any:
    """Celery's strategy behind a check of the whole message.

    Anything unexpected raises InvalidTaskError, which Celery logs and rejects; unchecked, a
    body of another shape would end the process, and embedded callbacks would be published.
    """
    accept = default(task, app, consumer)

    def handle(message: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        check(message, app.conf.message_key)
        return accept(message, body, *args, **kwargs)

    return handle


def check(message: Any, key: bytes | None = None) -> None:
    """Raise InvalidTaskError unless this is a plain chunk message, signed if there is a key."""
    if any(message.headers.get(name) not in (None, 0, [None, None]) for name in _NOT_OURS):
        raise InvalidTaskError("a chunk message is neither compressed nor scheduled")
    try:
        arguments, fields, embedded = message.payload
        if arguments or any(embedded.values()):
            raise BadMessage("only keyword arguments are taken")
        ChunkMessage.read(fields, key)
    except Exception as error:
        # Reading runs decoders on whatever was sent; they raise nearly anything.
        raise InvalidTaskError(f"not a chunk message: {error}") from error


class ChunkConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer without the features that talk to other workers, and terse.

    Remote control is off in the configuration; gossip, mingle and event heartbeats are
    command-line switches in Celery, so they are turned off here for whoever starts it.
    What is not a chunk message is dropped with one line.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*args, **kwargs)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        with warnings.catch_warnings():
            # Ten lines about late acknowledgement, which is not used, at every reset.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        _drop(message, "not a task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        _drop(message, f"no task of ours: {exc}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        _drop(message, str(exc))

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        _drop(message, f"not decodable: {exc}")


def _drop(message: Any, why: str) -> None:
    log.warning("dropped a message", why=why[:200])
    message.ack()
