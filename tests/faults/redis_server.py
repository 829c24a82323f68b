"""A redis-server that dies, freezes, fills up, and comes back with or without its data."""

from __future__ import annotations

import os
import signal

import redis

from millrace.cli.child import Child
from millrace.cli.embedded_redis import EmbeddedRedis


class MortalRedis(EmbeddedRedis):
    """Comes back at the same address: empty, or as it was with `append_only`."""

    def __init__(self, *, append_only: bool = False) -> None:
        super().__init__()
        # Each answer waits for the write, which outlives the process. (With the usual `everysec` it
        # does not where a disk is slow.)
        self.persistence = "appendonly yes\nappendfsync no" if append_only else "appendonly no"

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def raw(self) -> redis.Redis:
        """A connection for a test's own use."""
        return redis.Redis.from_url(self.url)

    def die(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self._child.stop()

    def shut_down(self) -> None:
        """As an operator stops it."""
        self._child.stop()

    def come_back(self) -> None:
        self._server = self._start(self._directory)
        assert self._server.wait_until(self._answers, self.starts_within_s) is None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def fill_up(self) -> None:
        """Nothing that takes memory is written any more."""
        self.raw.config_set("maxmemory", "1mb")

    def make_room(self) -> None:
        self.raw.config_set("maxmemory", 0)

    def fill_the_disk(self) -> None:
        """Nothing is written any more, for it could not be saved."""
        gone = self._directory / "gone"
        gone.mkdir()
        self.raw.config_set("save", "3600 1")
        self.raw.config_set("dir", str(gone))
        gone.rmdir()
        self.raw.bgsave()
        assert self._child.wait_until(self._has_failed_to_save, 90) is None

    def _has_failed_to_save(self) -> bool:
        return bool(self.raw.info("persistence")["rdb_last_bgsave_status"] == "err")

    def empty_the_disk(self) -> None:
        self.raw.config_set("save", "")
        self.raw.config_set("dir", str(self._directory))

    @property
    def _child(self) -> Child:
        assert self._server is not None
        return self._server
