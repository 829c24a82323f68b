"""The faults of the soak. Each begins, lasts as long as it says, and heals."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress

from millrace.core.errors import MillraceError
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import QueueKeys, queue_name
from millrace.producer import control
from tests.chaos.soak_rig import Rig

Fault = Callable[[Rig, random.Random], None]

QUEUE = queue_name("tiny", "1")
"""Jobs are pinned to the version of the model that the repository has."""


def _lasting(chance: random.Random, longest_s: float) -> None:
    time.sleep(chance.uniform(0.2, longest_s))


# --- workers and storage ---


def process_killed(rig: Rig, chance: random.Random) -> None:
    chance.choice(rig.workers).kill_process()


def machine_lost(rig: Rig, chance: random.Random) -> None:
    worker = chance.choice(rig.workers)
    worker.kill_whole()
    _lasting(chance, 3)
    worker.revive()


def process_frozen(rig: Rig, chance: random.Random) -> None:
    with chance.choice(rig.workers).frozen():
        _lasting(chance, 8)


def partitioned(rig: Rig, chance: random.Random) -> None:
    proxy = chance.choice(rig.workers).proxy
    proxy.partition()
    _lasting(chance, 8)
    proxy.heal()


def connections_reset(rig: Rig, chance: random.Random) -> None:
    chance.choice(rig.workers).proxy.reset()


def network_slow(rig: Rig, chance: random.Random) -> None:
    proxy = chance.choice(rig.workers).proxy
    proxy.slow_down(delay_s=0.05)
    _lasting(chance, 4)
    proxy.heal()


def storage_in_trouble(rig: Rig, chance: random.Random) -> None:
    rig.weather.kind = chance.choice(rig.weather.KINDS)
    _lasting(chance, 6)
    rig.weather.kind = ""


# --- Redis and what is in it ---


def redis_killed(rig: Rig, chance: random.Random) -> None:
    rig.redis.die()
    _lasting(chance, 4)
    rig.redis.come_back()


def redis_restarted(rig: Rig, chance: random.Random) -> None:
    rig.redis.shut_down()
    _lasting(chance, 1)
    rig.redis.come_back()


def redis_frozen(rig: Rig, chance: random.Random) -> None:
    rig.redis.freeze()
    _lasting(chance, 5)
    rig.redis.thaw()


def redis_full(rig: Rig, chance: random.Random) -> None:
    rig.redis.fill_up()
    _lasting(chance, 3)
    rig.redis.make_room()


def redis_wiped(rig: Rig, chance: random.Random) -> None:
    rig.redis.raw.flushall()


def messages_lost(rig: Rig, chance: random.Random) -> None:
    rig.redis.raw.delete(QUEUE)


def messages_doubled(rig: Rig, chance: random.Random) -> None:
    for entry in rig.redis.raw.lrange(QUEUE, 0, -1):
        rig.redis.raw.lpush(QUEUE, entry)


def reconciler_gone(rig: Rig, chance: random.Random) -> None:
    """It took the lock and died."""
    rig.redis.raw.set(QueueKeys(QUEUE).reconciler, "nobody", px=5000)


def job_paused(rig: Rig, chance: random.Random) -> None:
    services = Services(Settings.load(redis_url=rig.redis.url))
    with suppress(MillraceError):  # it has just ended
        for job in services.jobs.active_jobs(QUEUE)[:1]:
            control.pause(services, job)
            _lasting(chance, 3)
            control.resume(services, job)


def job_cancelled(rig: Rig, chance: random.Random) -> None:
    services = Services(Settings.load(redis_url=rig.redis.url))
    with suppress(MillraceError):  # it has just ended
        for job in services.jobs.active_jobs(QUEUE)[:1]:
            control.cancel(services, job)


HANDS: tuple[tuple[Fault, ...], ...] = (
    (
        process_killed,
        machine_lost,
        process_frozen,
        partitioned,
        connections_reset,
        network_slow,
        storage_in_trouble,
        storage_in_trouble,
    ),
    (
        redis_killed,
        redis_restarted,
        redis_frozen,
        redis_full,
        redis_wiped,
        messages_lost,
        messages_doubled,
        reconciler_gone,
        job_paused,
        job_paused,
        job_cancelled,
    ),
)
"""Each tuple is worked through by a thread of its own, so faults of different ones overlap."""
