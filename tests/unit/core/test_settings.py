"""Settings: the environment read once, and nonsense in it named."""

from __future__ import annotations

from typing import Any

import kombu
import pytest
import redis
from pydantic import ValidationError

from millrace.core.errors import UsageError
from millrace.core.settings import Settings, StorageSettings

pytestmark = pytest.mark.usefixtures("no_environment")

SECRET = "hunter2"


def test_nothing_has_to_be_set() -> None:
    settings = Settings.load()
    assert settings.redis_display == "redis://127.0.0.1:6379/0"
    assert settings.models is None
    assert not settings.storage_overwrite


def test_a_killed_worker_s_chunks_run_elsewhere_within_a_minute() -> None:
    settings = Settings.load()
    assert settings.lease_s + settings.reconcile_s < 60


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("models", "s3://models", "s3://models"),
        ("lease_s", "2.5", 2.5),
        ("reconcile_s", "1", 1.0),
        ("max_attempts", "3", 3),
        ("window", "16", 16),
        ("max_object_bytes", "1024", 1024),
        ("log_format", "json", "json"),
        ("log_level", "debug", "debug"),
        ("storage_request_timeout_s", "7", 7.0),
        ("storage_connect_timeout_s", "0.5", 0.5),
        ("storage_max_retries", "0", 0),
        ("storage_retry_timeout_s", "9", 9.0),
        ("storage_overwrite", "true", True),
        ("storage_overwrite", "0", False),
        ("storage_overwrite", "no", False),
    ],
)
def test_a_variable_is_read_as_its_type(
    name: str, text: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MILLRACE_{name.upper()}", text)
    assert getattr(Settings.load(), name) == value


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_WINDOW", "")
    monkeypatch.setenv("MILLRACE_MODELS", "")
    assert (Settings.load().window, Settings.load().models) == (8, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LEASE_S", "soon"),
        ("LEASE_S", "0"),
        ("LEASE_S", "nan"),
        ("LEASE_S", "inf"),
        ("RECONCILE_S", "0"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "2.5"),
        ("WINDOW", "-1"),
        ("MAX_OBJECT_BYTES", "1e"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("STORAGE_OVERWRITE", "flase"),
        ("STORAGE_MAX_RETRIES", "-1"),
        ("STORAGE_REQUEST_TIMEOUT_S", "0"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis://[::1"),
        ("REDIS_URL", "redis://host:abc/0"),
        ("REDIS_URL", "redis://host/abc"),
        ("REDIS_URL", "redis://host/0/1"),
        ("REDIS_URL", "redis://host/-1"),
        ("REDIS_URL", "redis://host?db=3"),
        ("REDIS_URL", "redis://host/?db=3"),
        ("REDIS_URL", "redis://host/0?foo=bar"),
        ("REDIS_URL", "redis://host/0?foo"),
        ("REDIS_URL", "redis://host/3?socket_timeout=2"),
        ("REDIS_URL", "rediss://host/0?ssl_ca_certs=/ca.pem&db=3"),
        ("REDIS_URL", "rediss://host/0?ssl_cert_reqs=none"),
        ("REDIS_URL", "redis://host/0?ssl_ca_certs=/ca.pem"),
    ],
)
def test_nonsense_names_its_variable(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MILLRACE_{name}", text)
    with pytest.raises(UsageError, match=f"^MILLRACE_{name}: "):
        Settings.load()


def test_an_option_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_WINDOW", "16")
    assert Settings.load(window=32).window == 32
    assert Settings.load(window=None).window == 16


def test_an_option_that_makes_no_sense_names_its_variable() -> None:
    with pytest.raises(UsageError, match=r"^MILLRACE_WINDOW: "):
        Settings.load(window="wide")


def test_a_variable_of_somebody_else_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_SURPRISE", "1")
    monkeypatch.setenv("WINDOW", "99")
    assert Settings.load().window == 8


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings.load().window = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "display"),
    [
        (f"redis://:{SECRET}@host:6380/2", "redis://host:6380/2"),
        (f"redis://user:{SECRET}@host/0", "redis://host/0"),
        (f"rediss://:{SECRET}@host:1/0?ssl_ca_certs=/ca.pem", "rediss://host:1/0"),
        (f"redis://:p%40{SECRET}@127.0.0.1:6379", "redis://127.0.0.1:6379"),
        (f"redis://:{SECRET}@[::1]:6379/0", "redis://[::1]:6379/0"),
    ],
)
def test_the_password_is_shown_nowhere(url: str, display: str) -> None:
    settings = Settings.load(redis_url=url)
    assert settings.redis_display == display
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in shown
    assert settings.redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@host",
        f"redis://:{SECRET}@host/abc",
        f"redis://:a?{SECRET}@host/0",
        f"rediss://host:1/0?password={SECRET}",
    ],
)
def test_a_refused_redis_url_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.load(redis_url=url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "db"),
    [
        ("redis://host/0", 0),
        ("redis://host/3", 3),
        ("redis://host/", 0),
        ("redis://host", 0),
        ("redis://host:6379", 0),
        ("rediss://host/0?ssl_ca_certs=/ca.pem", 0),
        ("rediss://host/2?ssl_ca_certs=/ca.pem&ssl_ca_certs=/ca.pem", 2),
    ],
)
def test_redis_py_and_kombu_find_the_same_database(url: str, db: int) -> None:
    accepted = Settings.load(redis_url=url).redis_url.get_secret_value()
    assert accepted == url
    (mine, theirs) = (
        redis.ConnectionPool.from_url(url).connection_kwargs,
        kombu.Connection(url),
    )
    assert int(mine.get("db", 0)) == int(theirs.virtual_host.strip("/") or 0) == db
    assert mine["host"] == theirs.hostname == "host"


def test_storage_settings_are_a_part_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_STORAGE_MAX_RETRIES", "1")
    assert StorageSettings.load().storage_max_retries == 1
    assert isinstance(Settings.load(), StorageSettings)
