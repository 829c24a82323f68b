"""The connection to Redis: scripts, and every error of redis-py translated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import exceptions as rx

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.cli.embedded_server import free_port
from millrace.core.errors import (
    AccessDenied,
    CorruptRecord,
    ItemError,
    MillraceError,
    RedisUnavailable,
    Stage,
    UsageError,
)
from millrace.core.redis_client import RedisClient, translate
from millrace.core.settings import Settings
from tests.faults.redis_server import MortalRedis
from tests.support import ROOT, wait_until

SCRIPTS = sorted(path.stem for path in Path(ROOT, "core", "lua").glob("*.lua"))


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    made = RedisClient(settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def misused() -> Iterator[MortalRedis]:
    """A server of this module's own, to be filled up and frozen."""
    with MortalRedis() as server:
        yield server


@pytest.fixture
def misused_client(misused: MortalRedis) -> Iterator[RedisClient]:
    made = RedisClient(Settings.load(redis_url=misused.url))
    made.ping()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (rx.AuthenticationError("WRONGPASS"), AccessDenied),
        (rx.AuthorizationError("no"), AccessDenied),
        (rx.NoPermissionError("NOPERM"), AccessDenied),
        (rx.ResponseError("@user_script: 1: The user executing the script can't …"), AccessDenied),
        (rx.ResponseError("ERR ACL failure in script: No permissions to …"), AccessDenied),
        (rx.ConnectionError("refused"), RedisUnavailable),
        (rx.MaxConnectionsError("too many"), RedisUnavailable),
        (rx.BusyLoadingError("LOADING"), RedisUnavailable),
        (rx.TimeoutError("slow"), RedisUnavailable),
        (rx.OutOfMemoryError("OOM"), RedisUnavailable),
        (
            rx.ResponseError("OOM command not allowed when used memory > 'maxmemory'"),
            RedisUnavailable,
        ),
        (rx.ReadOnlyError("READONLY"), RedisUnavailable),
        (rx.ResponseError("BUSY Redis is busy running a script"), RedisUnavailable),
        (rx.ResponseError("NOREPLICAS Not enough good replicas to write."), RedisUnavailable),
        (rx.MasterDownError("Link with MASTER is down and …"), RedisUnavailable),
        (rx.ClusterDownError("The cluster is down"), RedisUnavailable),
        (rx.TryAgainError("Multiple keys request during rehashing of slot"), RedisUnavailable),
        (
            rx.ResponseError("Error running script (call to f_1): … 1: -READONLY You can't write"),
            RedisUnavailable,
        ),
        (rx.ResponseError("ERR … -LOADING Redis is loading the dataset"), RedisUnavailable),
        (rx.ResponseError("WRONGTYPE Operation against a key"), CorruptRecord),
        (rx.ResponseError("ERR unknown command"), CorruptRecord),
        (rx.RedisError("something else"), RedisUnavailable),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else value.__name__,
)
def test_every_error_of_redis_means_one_of_ours(
    error: rx.RedisError, meaning: type[MillraceError]
) -> None:
    found = translate(error, "redis://here")
    assert type(found) is meaning
    assert "redis://here" in found.message


def test_an_error_of_many_lines_is_told_in_one() -> None:
    found = translate(rx.ResponseError("Command # 1 (EVAL local a\nlocal b\n…"), "redis://here")
    assert found.message == "Redis at redis://here: Command # 1 (EVAL local a"


def test_a_server_that_is_loading_is_there() -> None:
    assert "still loading" in translate(rx.BusyLoadingError("LOADING"), "redis://here").message


def test_a_database_that_is_not_there_is_a_usage_error(redis_url: str) -> None:
    client = RedisClient(Settings.load(redis_url=redis_url.removesuffix("/0") + "/99"))
    with pytest.raises(UsageError, match="no such database"):
        client.ping()


def test_the_cause_is_kept(client: RedisClient) -> None:
    with pytest.raises(CorruptRecord) as caught, client.errors():
        raise rx.ResponseError("WRONGTYPE")
    assert isinstance(caught.value.__cause__, rx.ResponseError)


def test_an_error_that_is_not_of_redis_passes(client: RedisClient) -> None:
    with pytest.raises(ItemError), client.errors():
        raise ItemError(Stage.FETCH, "x", "y")


def test_a_server_that_answers_can_be_used(client: RedisClient) -> None:
    client.ping()


def test_nobody_listening_is_unavailable_with_a_hint() -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    client = RedisClient(Settings.load(redis_url=url), timeout_s=1)
    with pytest.raises(RedisUnavailable, match="cannot reach Redis") as caught:
        client.ping()
    assert "MILLRACE_REDIS_URL" in (caught.value.hint or "")
    assert "hunter2" not in str(caught.value)


def test_a_wrong_password_is_refused(redis_server: EmbeddedRedis) -> None:
    url = f"redis://:wrong@127.0.0.1:{redis_server.port}/0"
    with pytest.raises(AccessDenied, match="refused"):
        RedisClient(Settings.load(redis_url=url)).ping()


def test_a_command_one_may_not_give_is_refused(misused_client: RedisClient) -> None:
    raw = misused_client.raw
    raw.acl_setuser("reader", enabled=True, passwords=["+pw"], categories=["+@connection"])
    url = f"redis://reader:pw@{misused_client.display.removeprefix('redis://')}"
    client = RedisClient(Settings.load(redis_url=url))
    client.ping()
    with pytest.raises(AccessDenied), client.errors():
        client.raw.hgetall("anything")


def test_a_full_server_is_unavailable(misused_client: RedisClient) -> None:
    misused_client.raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisUnavailable, match="is full") as caught, misused_client.errors():
            misused_client.raw.set("key", "value")
        assert "maxmemory" in (caught.value.hint or "")
    finally:
        misused_client.raw.config_set("maxmemory", 0)


def test_a_server_whose_disk_is_full_takes_no_writes(
    misused: MortalRedis, misused_client: RedisClient
) -> None:
    raw, by_script = misused_client.raw, misused_client.script("priority")
    raw.hset("record", "state", "running")

    def by_pipeline() -> None:
        with raw.pipeline(transaction=True) as pipe:
            pipe.set("key", "value")
            pipe.execute()

    misused.fill_the_disk()
    try:
        for write in (
            lambda: raw.set("key", "value"),
            by_pipeline,
            lambda: by_script(keys=["record"], args=[2]),
        ):
            with pytest.raises(RedisUnavailable) as caught, misused_client.errors():
                write()
            assert "takes no writes now: MISCONF Redis is configured to save" in str(caught.value)
            assert "\n" not in caught.value.message
            assert "disk is full" in (caught.value.hint or "")
    finally:
        misused.empty_the_disk()
        raw.delete("record")


def test_a_replica_takes_no_writes(misused_client: RedisClient) -> None:
    misused_client.raw.replicaof("127.0.0.1", free_port())
    try:
        with pytest.raises(RedisUnavailable, match="takes no writes"), misused_client.errors():
            misused_client.raw.set("key", "value")
    finally:
        misused_client.raw.replicaof("NO", "ONE")


def test_a_server_busy_with_a_script_is_unavailable(
    misused: MortalRedis, misused_client: RedisClient
) -> None:
    misused_client.raw.config_set("lua-time-limit", 1)
    other = RedisClient(Settings.load(redis_url=misused.url))

    def loop() -> None:
        with pytest.raises(rx.ResponseError):
            other.raw.eval("while true do end", 0)

    def refused() -> bool:
        try:
            with misused_client.errors():
                misused_client.raw.set("key", "value")
        except RedisUnavailable as error:
            return "takes no writes" in str(error)
        return False

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        wait_until(refused, 5, "the server is busy")
    finally:
        misused_client.raw.script_kill()
        thread.join()


def test_a_key_of_another_type_is_a_corrupt_record(client: RedisClient) -> None:
    client.raw.set("key", "a string")
    with pytest.raises(CorruptRecord), client.errors():
        client.raw.hgetall("key")


def test_a_script_tells_the_time_of_redis(client: RedisClient) -> None:
    client.raw.zadd("leases", {"past": 1, "future": 2**53})
    assert client.script("expired")(keys=["leases"], args=[10]) == [b"past"]


def test_a_script_survives_a_server_that_forgot_it(client: RedisClient) -> None:
    script = client.script("expired")
    assert script(keys=["leases"], args=[1]) == []
    client.raw.script_flush()
    assert script(keys=["leases"], args=[1]) == []


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "prelude"])
def test_every_script_loads(client: RedisClient, name: str) -> None:
    script = client.script(name)
    assert client.raw.script_load(script.script) == script.sha  # type: ignore[attr-defined]
