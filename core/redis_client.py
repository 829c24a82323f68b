"""The connection to Redis, and redis-py's errors translated at this one seam."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from millrace.core.errors import (
    AccessDenied,
    CorruptRecord,
    MillraceError,
    RedisUnavailable,
    UsageError,
)
from millrace.core.settings import Settings

_DENIED_IN_SCRIPT = re.compile("user executing the script can't|ACL failure in script")
"""What Redis 6.2, and 7 and later, call a command or key that a script's caller may not use."""

_NOT_NOW = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|READONLY|TRYAGAIN)\b.*"
)
"""A state of the server that ends: its disk is full, its replicas are away. Inside a script or a
pipeline it stands amid the error's text; from there to its line's end it says what is wrong."""


class RedisClient:
    """A pool of connections to one Redis. Safe to use from several threads.

    Everything that talks to Redis does so inside `errors()`, which raises RedisUnavailable,
    AccessDenied or CorruptRecord in place of redis-py's exceptions.
    """

    def __init__(self, settings: Settings, *, timeout_s: float | None = None) -> None:
        """`timeout_s` wins over the settings'."""
        timeout_s = timeout_s or settings.redis_timeout_s
        self.display = settings.redis_display
        self.raw: Any = redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=15,
            # redis-py retries connecting within every retry of a command: tries multiply.
            retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 1),
            client_name="millrace",
        )
        self._scripts: dict[str, Any] = {}

    def script(self, name: str) -> Callable[..., Any]:
        """The Lua script `core/lua/<name>.lua`: call with keys=[…], args=[…], client=…."""
        if name not in self._scripts:
            self._scripts[name] = self.raw.register_script(_source(name))
        script: Callable[..., Any] = self._scripts[name]
        return script

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate what redis-py raises inside the block."""
        try:
            yield
        except RedisError as error:
            raise translate(error, self.display) from error

    def ping(self) -> None:
        """Raise RedisUnavailable or AccessDenied if Redis cannot be used."""
        with self.errors():
            self.raw.ping()

    def now_ms(self) -> int:
        """What Redis takes for now, in milliseconds. Raises what `errors` raises."""
        with self.errors():
            seconds, micros = self.raw.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def close(self) -> None:
        self.raw.close()


def translate(error: RedisError, display: str) -> MillraceError:
    """The millrace error a redis-py error means."""
    if isinstance(error, AuthenticationError):
        return AccessDenied(
            f"Redis at {display} refused the user and password, or wants some",
            hint="MILLRACE_REDIS_URL=redis://[USER]:PASSWORD@HOST:PORT/DB",
        )
    says = (str(error).splitlines() or [""])[0]
    if isinstance(error, AuthorizationError | NoPermissionError) or _DENIED_IN_SCRIPT.search(
        str(error)
    ):
        return AccessDenied(
            f"Redis at {display} refused: {says}",
            hint="deploy/redis/users.sh grants what producers and workers need",
        )
    if isinstance(error, BusyLoadingError):
        return RedisUnavailable(f"Redis at {display} is still loading its data")
    if isinstance(error, ConnectionError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return RedisUnavailable(
            f"Redis at {display} shows a certificate that is not trusted: {says}",
            hint="rediss://HOST:PORT/DB?ssl_ca_certs=FILE names the authority to trust",
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return RedisUnavailable(
            f"cannot reach Redis at {display}",
            hint="is it running? set MILLRACE_REDIS_URL or --redis-url",
        )
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error):
        return RedisUnavailable(
            f"Redis at {display} is full", hint="raise maxmemory, or delete finished jobs"
        )
    if "DB index is out of range" in str(error):
        return UsageError(f"Redis at {display} has no such database")
    not_now = _NOT_NOW.search(str(error))
    if not_now or isinstance(error, ReadOnlyError | ClusterDownError | TryAgainError):
        return RedisUnavailable(
            f"Redis at {display} takes no writes now: {not_now.group() if not_now else says}",
            hint="its log says why; often its disk is full"
            if not_now and not_now[1] == "MISCONF"
            else None,
        )
    if isinstance(error, ResponseError):
        return CorruptRecord(f"Redis at {display}: {says}")
    return RedisUnavailable(f"Redis at {display}: {says}")


@cache
def _source(name: str) -> str:
    folder = files("millrace.core").joinpath("lua")
    return "\n".join(folder.joinpath(f"{part}.lua").read_text() for part in ("prelude", name))
