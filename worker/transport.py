"""kombu's Redis transport, made to survive what can stand in a queue.

Messages are taken without kombu's acknowledgement bookkeeping: a claim's lease already says
who has a chunk, and the reconciler re-sends what was popped and lost. So there is no shared
`unacked` hash, no visibility timeout that runs a long chunk twice, and no acknowledgement
that could fail and leak prefetch credit.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

from celery.exceptions import WorkerShutdown
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from millrace.core.errors import ExitCode, RedisUnavailable
from millrace.core.log import get_logger
from millrace.core.redis_client import translate

log = get_logger(__name__)

AGAIN_S = 1.0
"""How often messages are asked for while Redis takes no writes, for to take one is to write."""


class NoBookkeeping(virtual.QoS):  # type: ignore[misc]
    """Remembers no message, so that nothing can leak: how many are taken at once is decided
    by the free chunk slots (`worker_disable_prefetch`), and all are taken for good."""

    def can_consume(self) -> bool:
        return True

    def append(self, message: Any, delivery_tag: str) -> None: ...

    def ack(self, delivery_tag: str) -> None: ...

    def reject(self, delivery_tag: str, requeue: bool = False) -> None: ...


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """Takes messages for good, and drops entries that are not messages."""

    QoS = NoBookkeeping
    do_restore = False

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except NoPermissionError as error:
            # It would be refused again; what is in hand ends first.
            log.error("Redis gives this user no messages; stopping", error=str(error))
            raise WorkerShutdown(ExitCode.ACCESS_DENIED) from None
        except ReadOnlyError:
            raise  # a replica now: another connection may find its master
        except ResponseError as error:
            if not isinstance(translate(error, ""), RedisUnavailable):
                raise
            log.warning("Redis gives no messages now", error=str(error))
            time.sleep(AGAIN_S)
            raise Empty from None
        except (Empty, OSError, RedisError):
            raise
        except Exception as error:
            # Whatever wrote it, one entry must not stop the worker that happens to pop it.
            log.warning("dropped a queue entry that is no message", error=repr(error)[:200])
            return True


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """Named in the worker app's `broker_transport`."""

    Channel = Channel
