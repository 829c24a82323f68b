"""The private redis-server: real, locked, and gone afterwards."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import redis

from millrace.cli.embedded_redis import EmbeddedRedis, find_redis_server
from millrace.cli.embedded_server import free_port
from millrace.core.redis_client import RedisClient
from millrace.core.settings import Settings


def answers(url: str) -> bool:
    with redis.Redis.from_url(url, retry=None) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def test_it_answers_its_own_url_alone() -> None:
    with EmbeddedRedis() as server:
        assert answers(server.url)
        assert not answers(f"redis://127.0.0.1:{server.port}/0")
        assert not answers(f"redis://:guess@127.0.0.1:{server.port}/0")


def test_it_keeps_nothing(settings: Settings) -> None:
    client = RedisClient(settings).raw
    directory = Path(client.config_get("dir")["dir"])
    assert client.config_get("save")["save"] == ""
    assert [path.name for path in directory.iterdir()] == ["log"]


def test_nothing_is_left_of_it_even_if_its_user_fails() -> None:
    places: list[Path] = []

    def use_and_fail(server: EmbeddedRedis) -> None:
        client = RedisClient(Settings.load(redis_url=server.url)).raw
        places.append(Path(client.config_get("dir")["dir"]))
        raise RuntimeError

    with pytest.raises(RuntimeError), EmbeddedRedis() as server:
        use_and_fail(server)
    assert not answers(server.url)
    assert not places[0].exists()


def test_two_of_them_do_not_meet() -> None:
    with EmbeddedRedis() as one, EmbeddedRedis() as other:
        assert one.port != other.port
        assert one.url.split("@")[0] != other.url.split("@")[0]


def test_the_binary_is_one_that_can_be_run() -> None:
    assert os.access(find_redis_server(), os.X_OK)


def test_a_free_port_is_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))
