"""The users of deploy/redis, on a real Redis: each role can do its work, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from millrace.cli.child import Child
from millrace.cli.embedded_redis import find_redis_server
from millrace.cli.embedded_server import EmbeddedServer
from millrace.core.errors import ExitCode, RedisUnavailable
from millrace.core.job import Priority
from millrace.core.jobdir import JobDirectory
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import DUTIES
from millrace.producer import control
from millrace.producer.client import Client
from millrace.producer.recover import go_on, repair, restore
from millrace.producer.retry import retry
from millrace.producer.submit import submit
from millrace.producer.verify import verify
from tests.job_checks import check_job
from tests.support import (
    ROOT,
    millrace,
    running_server,
    running_worker,
    wait_until,
    write_pngs,
)

DEPLOY = ROOT / "deploy" / "redis"
PASSWORDS = {
    "REDIS_ADMIN_PASSWORD": "admin's own",
    "REDIS_PRODUCER_PASSWORD": "producer&/\\$1",
    "REDIS_WORKER_PASSWORD": "worker-password",
}


class GuardedRedis(EmbeddedServer):
    """A redis-server on deploy/redis/redis.conf, with the users that users.sh prints."""

    name = "redis-server"
    unavailable = RedisUnavailable
    starts_within_s = 120.0

    def _start(self, directory: Path) -> Child:
        users = subprocess.run(
            ["sh", str(DEPLOY / "users.sh")],
            env={**os.environ, **PASSWORDS},
            capture_output=True,
            check=True,
        )
        (directory / "users.acl").write_bytes(users.stdout)
        config = (DEPLOY / "redis.conf").read_text()
        assert "/etc/redis/users.acl" in config
        config = config.replace("/etc/redis/users.acl", f"{directory}/users.acl")
        config += f'port {self.port}\nbind 127.0.0.1\ndir "{directory}"\n'
        return Child([find_redis_server(), "-"], stdin=config.encode(), log=directory / "log")

    def _answers(self) -> bool:
        try:
            return bool(self.as_user("admin").ping())
        except redis.ConnectionError:
            return False

    def as_user(self, name: str | None) -> redis.Redis:
        """A plain client; of nobody if there is no name."""
        password = PASSWORDS[f"REDIS_{_short(name)}_PASSWORD"] if name else None
        return redis.Redis(
            host="127.0.0.1", port=self.port, username=name, password=password, retry=None
        )

    def url(self, name: str, password: str | None = None) -> str:
        password = password or PASSWORDS[f"REDIS_{_short(name)}_PASSWORD"]
        return f"redis://{name}:{quote(password, safe='')}@127.0.0.1:{self.port}/0"


def _short(name: str) -> str:
    return name.removeprefix("millrace-").upper()


@pytest.fixture(scope="module")
def server() -> Iterator[GuardedRedis]:
    with GuardedRedis() as started:
        yield started


@pytest.fixture
def admin(server: GuardedRedis) -> Iterator[redis.Redis]:
    client = server.as_user("admin")
    client.flushall()
    client.acl_log_reset()
    yield client
    client.acl_load()  # whatever a test changed
    client.close()


@pytest.fixture
def producer_env(server: GuardedRedis, repository: Path) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": server.url("millrace-producer"),
        "MILLRACE_MODELS": str(repository),
    }


@pytest.fixture
def worker_env(server: GuardedRedis, repository: Path) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": server.url("millrace-worker"),
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_LEASE_S": "2",
        "MILLRACE_RECONCILE_S": "1",
    }


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_pngs(tmp_path / "in", 8)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "in"


def refused_commands(admin: redis.Redis) -> set[str]:
    """What millrace was refused, but for the client's introductions, which it can do without."""
    log: Any = admin.acl_log()
    return {f"{entry['username']} {entry['object']}" for entry in log} - {
        "millrace-producer client",
        "millrace-worker client",
    }


def test_both_roles_can_do_all_of_their_work(
    admin: redis.Redis,
    producer_env: dict[str, str],
    worker_env: dict[str, str],
    images: Path,
    tmp_path: Path,
) -> None:
    settings = Settings.load(
        redis_url=producer_env["MILLRACE_REDIS_URL"], models=producer_env["MILLRACE_MODELS"]
    )
    services = Services(settings)

    def make(name: str) -> Any:
        return submit(
            str(images),
            model="tiny",
            output=str(tmp_path / "out"),
            chunk_size=2,
            job_id=name,
            settings=settings,
        )

    make("cancelled").cancel()
    assert services.jobs.record("cancelled").state == "cancelled"
    control.delete(services, "cancelled", outputs=True)
    job = make("whole")
    job.pause()
    control.set_priority(services, "whole", Priority.HIGH)
    # A message that nobody sends again but the reconciler.
    admin.delete("millrace.tiny:1")
    go_on(services, "whole")
    admin.delete("millrace.tiny:1")
    with running_worker("--model", "tiny", env=worker_env, log=tmp_path / "log") as worker:
        status = job.wait(30)
        assert (status.counts.succeeded, status.counts.failed) == (8, 1)
        check_job(f"{tmp_path}/out/whole", status.model_dump(mode="json"))
        assert [seen.info.model for seen in services.fleet.workers()] == ["tiny:1"]
        assert retry(services, "whole", job_id="again").wait(30).counts.failed == 1
        directory = JobDirectory(services.stores, services.jobs.spec("whole").directory)
        found = verify(services, directory)
        assert found.ok, found.findings
        control.delete(services, "whole")
        restore(services, directory)
        assert job.wait(30).counts.succeeded == 8
        directory.delete_chunk(services.jobs.spec("whole").plan, 1)
        repair(services, directory, verify(services, directory))
        assert job.wait(30).counts.succeeded == 8
        doctor = millrace("doctor", env=producer_env)
        assert "noeviction" in doctor.stdout
        services.redis.close()
        assert "refused" not in worker.log
        assert refused_commands(admin) == set()
        # A right that is taken away: what is in hand ends, and then the worker.
        admin.acl_setuser("millrace-worker", commands=["-brpop"], enabled=True)
        assert worker.wait(20) == ExitCode.ACCESS_DENIED
        assert "Redis gives this user no messages" in worker.log
        assert "Traceback" not in worker.log


def test_a_server_can_do_all_of_its_work_as_a_producer(
    admin: redis.Redis,
    producer_env: dict[str, str],
    worker_env: dict[str, str],
    images: Path,
    tmp_path: Path,
) -> None:
    token = "an-operator-s-token-1234"
    places = {
        "MILLRACE_ALLOWED_LOCATIONS": " ".join(path.as_uri() for path in (images, tmp_path)),
        "MILLRACE_UPLOADS": (tmp_path / "uploads").as_uri(),
    }
    env = producer_env | places | {"MILLRACE_OPERATOR_TOKEN": token}
    with (
        running_worker("--model", "tiny", env=worker_env | places, log=tmp_path / "log"),
        running_server(env=env, log=tmp_path / "server.log") as server,
        Client(server.url, token) as client,
    ):
        job = client.submit(
            images.as_uri(), model="tiny", output=(tmp_path / "out").as_uri(), chunk_size=2
        )
        job.pause()
        job.resume()
        assert job.wait(30).counts.succeeded == 8
        assert len([*job.results()]) == 9
        assert len([*job.errors()]) == 1
        assert job.retry().wait(30).counts.failed == 1
        picture = next(path for path in sorted(images.iterdir()) if path.suffix == ".png")
        assert client.predict(picture, model="tiny")
        assert len([*client.jobs()]) == 2
        with client._http.stream("GET", f"/v1/jobs/{job.id}/events") as events:
            assert "event: end" in [*events.iter_lines()]
        wait_until(lambda: not admin.exists(DUTIES), what="nothing is left to do")
    assert refused_commands(admin) == set()


FORBIDDEN = [
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET *",
    "CONFIG SET dir /tmp",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "REPLICAOF NO ONE",
    "MODULE LIST",
    "MONITOR",
    "CLIENT LIST",
    "CLIENT KILL ID 1",
    "ACL LIST",
    "ACL SETUSER millrace-worker +@all",
    "SLOWLOG GET",
    "MIGRATE 127.0.0.1 1 millrace:jobs 0 10",
    "SORT millrace.q",
    "SWAPDB 0 1",
    "MOVE millrace.q 1",
    "RENAME millrace.q millrace.r",
    "OBJECT ENCODING millrace.q",
    "EVAL return(1) 0",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "PUBLISH channel message",
    "SUBSCRIBE channel",
    "XADD millrace.q * a b",
    "GET session:of-another-program",
    "SET celery x",
    "LPUSH celery x",
    "LPUSH millracex x",
    "HSET _kombu.binding.celery a b",
    "SADD millrace:something x",
]
PRODUCERS_ONLY = [
    "ZRANGE millrace:jobs 0 -1",
    "ZADD millrace:duties 0 list:j",
    "SADD millrace:active:q j",
    "UNLINK millrace.q",
]
WORKERS_ONLY = [
    "BRPOP millrace.q 1",
    "RPOP millrace.q",
    "LMOVE millrace.q millrace.r LEFT LEFT",
    "LREM millrace.q 0 x",
    "SET millrace:reconciler:q x",
    "EXPIRE millrace:worker:w 5",
]


@pytest.mark.parametrize(
    ("user", "commands"),
    [
        ("millrace-producer", FORBIDDEN + WORKERS_ONLY),
        ("millrace-worker", FORBIDDEN + PRODUCERS_ONLY),
    ],
)
def test_a_role_can_do_nothing_else(
    server: GuardedRedis, admin: redis.Redis, user: str, commands: list[str]
) -> None:
    admin.set("session:of-another-program", "secret")
    with server.as_user(user) as client:
        allowed = []
        for command in commands:
            try:
                client.execute_command(*command.split(" "))
            except redis.exceptions.NoPermissionError:
                continue
            allowed.append(command)
    assert allowed == []


@pytest.mark.parametrize("user", ["millrace-producer", "millrace-worker"])
@pytest.mark.parametrize(
    "script",
    [
        "return redis.call('FLUSHALL')",
        "return redis.call('GET', 'session:of-another-program')",
        "return redis.call('KEYS', '*')",
    ],
)
def test_a_script_can_do_no_more_than_its_caller(
    server: GuardedRedis, admin: redis.Redis, user: str, script: str
) -> None:
    admin.set("session:of-another-program", "secret")
    with server.as_user(user) as client:
        sha = client.script_load(script)
        with pytest.raises(redis.exceptions.ResponseError, match=r"can't|ACL"):
            client.evalsha(sha, 0)
    assert admin.get("session:of-another-program") == b"secret"


def test_who_has_no_password_can_do_nothing(server: GuardedRedis, admin: redis.Redis) -> None:
    for command in ("PING", "INFO", "GET millrace:jobs", "LPUSH millrace.q x", "ACL WHOAMI"):
        with server.as_user(None) as client, pytest.raises(redis.exceptions.AuthenticationError):
            client.execute_command(*command.split(" "))


def test_the_users_file_holds_no_password() -> None:
    users = subprocess.run(
        ["sh", str(DEPLOY / "users.sh")],
        env={**os.environ, **PASSWORDS},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not [password for password in PASSWORDS.values() if password in users]
    missing = subprocess.run(
        ["sh", str(DEPLOY / "users.sh")],
        env={name: value for name, value in PASSWORDS.items() if "WORKER" not in name} | os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode != 0
    assert "REDIS_WORKER_PASSWORD" in missing.stderr


@pytest.mark.parametrize("command", [("jobs",), ("worker", "--model", "tiny")])
def test_a_wrong_password_is_one_line_and_its_exit_code(
    server: GuardedRedis, producer_env: dict[str, str], command: tuple[str, ...]
) -> None:
    env = producer_env | {"MILLRACE_REDIS_URL": server.url("millrace-worker", "not the password")}
    done = millrace(*command, env=env)
    assert done.returncode == ExitCode.ACCESS_DENIED
    assert "refused the user and password" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert "not the password" not in done.stderr


def test_a_worker_with_a_producer_s_rights_says_so_and_ends(
    admin: redis.Redis, producer_env: dict[str, str]
) -> None:
    done = millrace("worker", "--model", "tiny", env=producer_env)
    assert done.returncode == ExitCode.ACCESS_DENIED
    assert "Traceback" not in done.stderr
    assert "no permission" in done.stderr


def test_a_producer_with_a_worker_s_rights_says_so(
    admin: redis.Redis, worker_env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    done = millrace(
        *("enqueue", str(images), "--model", "tiny", "--out", str(tmp_path / "out"), "--json"),
        env=worker_env,
    )
    assert done.returncode == ExitCode.ACCESS_DENIED
    assert '"code": "access_denied"' in done.stderr
