"""Fixtures: a real redis-server, a real S3 endpoint, a real SavedModel bundle."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import hypothesis
import pytest

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.redis_client import RedisClient
from millrace.core.services import Services
from millrace.core.settings import Settings
from tests.support import REAL, export_tiny

# A server that starts beside others at work has a whole session's tests waiting for it.
EmbeddedRedis.starts_within_s = EmbeddedS3.starts_within_s = 120.0

# Examples are the same in every run: one that fails stops the change that broke it, and not
# another, later. `HYPOTHESIS_PROFILE=search` looks for new ones.
hypothesis.settings.register_profile("same", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `MILLRACE_…` of the developer's own."""
    for name in os.environ:
        if name.startswith("MILLRACE_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """A Redis that holds nothing."""
    client = RedisClient(Settings.load(redis_url=redis_server.url))
    client.raw.flushall()
    client.close()
    return redis_server.url


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings.load(redis_url=redis_url)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    made = Services(settings)
    yield made
    made.redis.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[EmbeddedS3]:
    with EmbeddedS3() as server:
        yield server


@pytest.fixture
def s3(s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> EmbeddedS3:
    """The endpoint, with this process's environment pointing at it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return s3_server


@pytest.fixture
def bucket(s3: EmbeddedS3) -> str:
    """A bucket of the test's own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Taken, so that nobody else listens there, and nobody does."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with `tiny:1`."""
    path = tmp_path_factory.mktemp("repository")
    export_tiny(path)
    return path


@pytest.fixture(scope="session")
def real() -> Path:
    """Photographs and trained models of others, which lie outside the project."""
    if not REAL.is_dir():
        pytest.skip("needs ../shared/real, which is not here")
    return REAL
