"""The environment of the real command, with leases short enough to watch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.crew import Crew, Inputs, Member, through
from tests.faults.gate import Gate
from tests.faults.redis_server import MortalRedis
from tests.faults.tcp_proxy import tcp_proxy
from tests.support import random_pixels, running_worker, write_png

FEW, MANY = 48, 200
SHORT = {
    # As many chunks in hand, though they are small.
    "MILLRACE_SLOTS": "3",
    "MILLRACE_LEASE_S": "2",
    "MILLRACE_RECONCILE_S": "1",
    "MILLRACE_REDIS_TIMEOUT_S": "1",
}


@pytest.fixture
def env(redis_url: str, repository: Path) -> dict[str, str]:
    return {"MILLRACE_REDIS_URL": redis_url, "MILLRACE_MODELS": str(repository), **SHORT}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    pixels = {f"{n:04d}.png": random_pixels(n, (8, 8)) for n in range(MANY)}
    for number, (name, image) in enumerate(pixels.items()):
        write_png(folder / "many" / name, image)
        if number < FEW:
            write_png(folder / "few" / name, image)
    return Inputs(folder / "few", folder / "many", repository / "tiny" / "1", pixels)


@pytest.fixture(scope="module")
def crew_of_module(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, inputs: Inputs
) -> Iterator[Crew]:
    """Started once, for a worker takes seconds to start; whoever breaks it mends it."""
    folder = tmp_path_factory.mktemp("crew")
    with MortalRedis(append_only=True) as redis, ExitStack() as stack:
        env = {"MILLRACE_REDIS_URL": redis.url, "MILLRACE_MODELS": str(repository), **SHORT}
        members = []
        for name, ready in (("near", None), ("far", 2)):
            proxy = stack.enter_context(tcp_proxy("127.0.0.1", redis.port))
            gate = Gate(folder / name)
            theirs = env | gate.environment | {"MILLRACE_REDIS_URL": through(proxy, redis.url)}
            start = running_worker(
                "--model", "tiny", env=theirs, log=folder / name / "log", ready=ready
            )
            members.append(Member(gate, proxy, stack.enter_context(start)))
        yield Crew(redis, env, inputs, folder / "out", *members)


@pytest.fixture
def crew(crew_of_module: Crew) -> Iterator[Crew]:
    crew_of_module.check_up()
    yield crew_of_module
    crew_of_module.heal()
