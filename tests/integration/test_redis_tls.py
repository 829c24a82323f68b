"""Redis behind TLS: what `rediss://` trusts, and that it trusts nothing else."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from kombu.exceptions import OperationalError

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.celery_app import make_app
from millrace.core.settings import Settings
from tests.faults.tcp_proxy import tcp_proxy
from tests.job_checks import check_job
from tests.support import millrace, millrace_json, running_worker, wait_until, write_pngs


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
def enqueue(tmp_path: Path) -> tuple[str, ...]:
    write_pngs(tmp_path / "in", 5)
    return ("enqueue", str(tmp_path / "in"), "--model", "tiny", "--out", str(tmp_path / "out"))


def served(authority: trustme.CA, redis: EmbeddedRedis, name: str) -> Iterator[str]:
    """The URL of `redis` behind TLS with a certificate for `name`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    password = urlsplit(redis.url).password
    with tcp_proxy("127.0.0.1", redis.port, context) as proxy:
        yield f"rediss://:{password}@127.0.0.1:{proxy.port}/0"


@pytest.fixture
def tls_url(authority: trustme.CA, redis_url: str, redis_server: EmbeddedRedis) -> Iterator[str]:
    yield from served(authority, redis_server, "127.0.0.1")


@pytest.fixture
def impostor_url(
    authority: trustme.CA, redis_url: str, redis_server: EmbeddedRedis
) -> Iterator[str]:
    yield from served(authority, redis_server, "redis.example.org")


def test_a_job_runs_over_tls(
    tls_url: str, tmp_path: Path, repository: Path, enqueue: tuple[str, ...]
) -> None:
    url = f"{tls_url}?ssl_ca_certs={tmp_path / 'ca.pem'}"
    env = {"MILLRACE_REDIS_URL": url, "MILLRACE_MODELS": str(repository)}
    with running_worker("--model", "tiny", env=env, log=tmp_path / "log"):
        job = millrace_json(*enqueue, env=env)["job_id"]
        assert millrace("status", job, "--watch", env=env).returncode == 0
    check_job(f"{tmp_path}/out/{job}", millrace_json("status", job, env=env))


def test_a_server_of_an_unknown_authority_is_refused(
    tls_url: str, tmp_path: Path, repository: Path, enqueue: tuple[str, ...]
) -> None:
    env = {"MILLRACE_REDIS_URL": tls_url, "MILLRACE_MODELS": str(repository)}
    refused = millrace(*enqueue, env=env)
    assert refused.returncode == 5
    assert "certificate that is not trusted" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_server_with_another_s_certificate_is_refused(
    impostor_url: str, tmp_path: Path, repository: Path, enqueue: tuple[str, ...]
) -> None:
    url = f"{impostor_url}?ssl_ca_certs={tmp_path / 'ca.pem'}"
    env = {"MILLRACE_REDIS_URL": url, "MILLRACE_MODELS": str(repository)}
    refused = millrace(*enqueue, env=env)
    assert refused.returncode == 5
    assert "certificate that is not trusted" in refused.stderr
    with running_worker("--model", "tiny", env=env, log=tmp_path / "log", ready=None) as worker:
        wait_until(lambda: "certificate that is not trusted" in worker.log, 60)
        assert worker.process.poll() is None
    # What consumes and sends messages connects by itself.
    app = make_app(Settings.load(redis_url=url))
    with app.connection_for_read() as queue, pytest.raises(OperationalError, match="CERTIFICATE"):
        queue.ensure_connection(max_retries=1)
