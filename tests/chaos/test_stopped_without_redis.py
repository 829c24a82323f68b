"""Workers that are told to stop while Redis is away. A file of its own, for no worker is left."""

from __future__ import annotations

from tests.chaos.crew import SLOTS, Crew


def test_workers_that_are_told_to_stop_while_redis_is_away_do(crew: Crew) -> None:
    crew.close_gates()
    job = crew.enqueue()
    crew.all_slots_taken()
    crew.redis.die()
    crew.open_gates()
    for member in crew.members:
        member.worker.signal()
    for member in crew.members:
        assert member.worker.wait(90) == 0, member.worker.log
    assert len(crew.committed(job)) == 2 * SLOTS
