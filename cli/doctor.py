"""`millrace doctor`: what is wrong with this set-up, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millrace.core.services import Services


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `ok`, `warning` or `failed`, and what to do if it is not ok."""

    what: str
    state: str
    detail: str
    fix: str = ""


@command
def doctor(
    source: Annotated[
        str | None, typer.Option(envvar="MILLRACE_SRC", help="Also list this input.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(envvar="MILLRACE_OUT", help="Also write to this output.")
    ] = None,
    models: o.Models = None,
    redis_url: o.RedisUrl = None,
    as_json: o.AsJson = False,
) -> None:
    """Check Redis, storage, the model repository and the installation."""
    from millrace.core.errors import ExitCode
    from millrace.core.services import Services
    from millrace.core.settings import Settings

    services = Services(Settings.load(redis_url=redis_url, models=models))
    checks = [
        *_redis(services),
        *_repository(services),
        *(_input(services, source) if source else ()),
        *(_output(services, out) if out else ()),
        *_installation(),
    ]
    print_json([asdict(check) for check in checks]) if as_json else _show(checks)
    if any(check.state == "failed" for check in checks):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _redis(services: Services) -> Iterator[Check]:
    from millrace.core.errors import MillraceError

    redis = services.redis
    try:
        redis.ping()
        with redis.errors():
            info = redis.raw.info()
    except MillraceError as error:
        yield Check("Redis", "failed", error.message, error.hint or "")
        return
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < (6, 2):
        yield Check("Redis", "failed", f"version {version}", "millrace needs Redis 6.2 or later")
    else:
        yield Check("Redis", "ok", f"{redis.display}, version {version}")
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        yield Check("Redis memory", "ok", "noeviction")
    else:
        yield Check(
            "Redis memory",
            "warning",
            f"maxmemory-policy is {policy}: records could be evicted",
            "set maxmemory-policy noeviction",
        )
    if info.get("aof_enabled"):
        yield Check("Redis persistence", "ok", "append-only file")
    else:
        yield Check(
            "Redis persistence",
            "warning",
            "a restart forgets the queue and the job records",
            "set appendonly yes",
        )
    live = sum(not seen.lost for seen in services.fleet.workers())
    yield Check("workers", "ok" if live else "warning", f"{live} live", "" if live else "start one")


def _repository(services: Services) -> Iterator[Check]:
    from millrace.core.errors import MillraceError

    if not services.settings.models:
        yield Check("model repository", "warning", "none configured", "set MILLRACE_MODELS")
        return
    try:
        names = services.repository().names()
    except MillraceError as error:
        yield Check("model repository", "failed", error.message, error.hint or "")
        return
    if names:
        yield Check("model repository", "ok", ", ".join(names))
    else:
        yield Check("model repository", "warning", "holds no model", "export one into it")


def _input(services: Services, source: str) -> Iterator[Check]:
    from millrace.core.errors import MillraceError
    from millrace.core.storage import Location

    try:
        location = Location.parse(source)
        store = services.stores.open(location)
        first = next(iter(store.list(location.prefix)), None)
        if first is None:
            yield Check("input", "warning", f"{location} is empty", "check the prefix")
            return
        if first.size <= services.settings.max_object_bytes:
            store.get(first.key)
        yield Check("input", "ok", f"{location} can be listed and read")
    except MillraceError as error:
        yield Check("input", "failed", error.message, error.hint or "")


def _output(services: Services, out: str) -> Iterator[Check]:
    from millrace.core.errors import MillraceError
    from millrace.core.storage import Location
    from millrace.producer.preview import create_only_problem, write_problem

    try:
        location = Location.parse(out)
        problem = write_problem(services, location)
    except MillraceError as error:
        yield Check("output", "failed", error.message, error.hint or "")
        return
    if problem:
        yield Check("output", "failed", problem, "check the credentials and the path")
        return
    yield Check("output", "ok", f"{location} can be written")
    if services.settings.storage_overwrite:
        yield Check(
            "conditional writes",
            "warning",
            "switched off: of two writers of an object in the same moment the later one wins",
            "unset MILLRACE_STORAGE_OVERWRITE if the store knows If-None-Match",
        )
    elif problem := create_only_problem(services, location):
        yield Check(
            "conditional writes",
            "failed",
            problem,
            "set MILLRACE_STORAGE_OVERWRITE=1 to overwrite instead, or use another store",
        )
    else:
        yield Check("conditional writes", "ok", "the first writer of an object wins")


def _installation() -> Iterator[Check]:
    from millrace.cli.embedded_redis import find_redis_server
    from millrace.core.errors import MissingExtra

    if find_spec("tensorflow"):
        yield Check("TensorFlow", "ok", "installed")
    else:
        yield Check("TensorFlow", "warning", "not installed", "pip install 'millrace[worker]'")
    try:
        yield Check("redis-server", "ok", find_redis_server())
    except MissingExtra as error:
        yield Check("redis-server", "warning", "not installed", error.hint or "")


def _show(checks: list[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from millrace.cli.show import print_table

    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    table = Table.grid(padding=(0, 2))
    for check in checks:
        detail = escape(check.detail) + (f"\n→ {escape(check.fix)}" if check.fix else "")
        table.add_row(f"[{colours[check.state]}]{check.state}[/]", check.what, detail)
    print_table(table)
