"""Server-sent events: what becomes of a job, as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from millrace.core.job import JobSpec
from millrace.core.topology import JobKeys
from millrace.producer import control
from millrace.producer.http import watch
from millrace.producer.http.board import StatusBoard
from millrace.producer.http.watch import Watcher
from tests.support import wait_until
from tests.unit.producer.http.conftest import Api
from tests.unit.producer.support import listed_job, work


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.02)


@pytest.fixture
def spec(api: Api, tmp_path: Any) -> JobSpec:
    return listed_job(
        api.services, tmp_path / "out", images=6, input={"uri": (tmp_path / "in").as_uri()}
    )


@dataclass
class Told:
    """One event of a stream."""

    event: str = ""
    id: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    comment: bool = False


@contextmanager
def listening(api: Api, job: str = "j", last_id: str | None = None) -> Iterator[Iterator[Told]]:
    headers = {} if last_id is None else {"last-event-id": last_id}
    with api.viewer.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield read(answer)


def read(answer: httpx.Response) -> Iterator[Told]:
    told = Told()
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line.startswith(":"):
            yield Told(comment=True)
        elif line == "":
            if told.event:
                yield told
            told = Told()
        elif name == "data":
            told.data = orjson.loads(value)
        elif name in ("event", "id"):
            setattr(told, name, value)


def test_a_listener_hears_where_it_stands_what_changes_and_the_end(api: Api, spec: JobSpec) -> None:
    with listening(api) as events:
        first = next(events)
        assert (first.event, first.data["state"]) == ("status", "running")
        work(api.services, spec, 0)
        progress = next(event for event in events if event.data["counts"]["succeeded"] == 2)
        assert progress.data["counts"]["pending"] == 4
        control.pause(api.services, "j")
        paused = next(event for event in events if event.data["state"] == "paused")
        assert paused.event == "status"
        control.resume(api.services, "j")
        work(api.services, spec, 1, 2)
        rest = [*events]
    assert rest[-1].event == "end"
    assert rest[-2].data["state"] == "succeeded"
    assert rest[-2].data["terminal"]


def test_counts_alone_are_progress(api: Api, spec: JobSpec) -> None:
    work(api.services, spec, 0)
    with listening(api) as events:
        next(events)
        work(api.services, spec, 1)
        assert next(events).event == "progress"


def test_who_was_away_hears_what_came_since(api: Api, spec: JobSpec) -> None:
    with listening(api) as held:
        first = next(held)
        control.pause(api.services, "j")
        second = next(event for event in held if event.data["state"] == "paused")
        with listening(api, last_id=first.id) as events:
            # Somebody else still listened, so what came in between is known.
            again = next(event for event in events if event.data["state"] == "paused")
        assert again.id == second.id


def test_who_heard_the_last_is_told_nothing_twice(api: Api, spec: JobSpec) -> None:
    control.pause(api.services, "j")
    with listening(api) as events:
        last = next(events)
    with listening(api, last_id=last.id) as events:
        control.resume(api.services, "j")
        assert next(events).data["state"] == "running"


def test_an_id_that_nobody_knows_is_answered_with_where_it_stands(api: Api, spec: JobSpec) -> None:
    with listening(api, last_id="1-0") as events:
        assert next(events).event == "status"


def test_of_an_ended_job_there_is_one_status_and_the_end(api: Api, spec: JobSpec) -> None:
    work(api.services, spec, 0, 1, 2)
    with listening(api) as events:
        status, end = events
    assert (status.data["state"], end.event) == ("succeeded", "end")
    headers = {"last-event-id": status.id}
    assert api.viewer.get("/v1/jobs/j/events", headers=headers).status_code == 204


def test_what_fails_once_ends_no_stream(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = api.backend.watcher._changed_at, list[int]()

    def look_badly(jobs: Sequence[str]) -> list[int | None]:
        looks.append(1)
        if len(looks) == 1:
            raise KeyError("j")
        return look(jobs)

    monkeypatch.setattr(api.backend.watcher, "_changed_at", look_badly)
    with listening(api) as events:
        next(events)
        wait_until(lambda: looks, what="it has looked, and failed")
        control.pause(api.services, "j")
        assert next(events).data["state"] == "paused"


@pytest.mark.parametrize("forged", ["soon", "9" * 30, None])
def test_a_forged_record_ends_no_other_job_s_stream(
    api: Api, spec: JobSpec, tmp_path: Path, forged: str | None
) -> None:
    """Its time is none, is none there can be, or its hash is no hash."""
    listed_job(
        api.services, tmp_path / "out", job_id="other", input={"uri": (tmp_path / "in").as_uri()}
    )
    api.backend.board._fresh_s = 0
    redis, record = api.services.redis.raw, JobKeys("other").record
    with listening(api, "other") as others, listening(api) as events:
        next(others)
        next(events)
        if forged is None:
            redis.delete(record)
            redis.rpush(record, "no hash")
        else:
            redis.hset(record, "updated_ms", forged)
        control.pause(api.services, "j")
        assert next(events).data["state"] == "paused"


def test_a_silent_stream_is_kept_alive(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.05)
    control.pause(api.services, "j")
    with listening(api) as events:
        assert next(events).event == "status"
        assert next(events).comment
        assert next(events).comment


def test_health_changes_with_time_alone(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_AGAIN_S", 0.05)
    with listening(api) as events:
        assert next(events).data["health"] == "no_workers"
        later = 10**15
        api.services.redis.raw.zadd(f"millrace:fleet:{spec.queue}", {"3|worker": later})
        assert next(events).data["health"] == "ok"


def test_a_job_that_is_deleted_is_the_end_of_its_streams(api: Api, spec: JobSpec) -> None:
    with listening(api) as events:
        next(events)
        api.services.jobs.delete(spec)
        assert [event.event for event in events] == ["end"]


def test_a_job_that_is_not_there_has_no_stream(api: Api) -> None:
    assert api.viewer.get("/v1/jobs/none/events").json()["code"] == "job_not_found"


def test_all_streams_of_a_job_share_one_look(api: Api, spec: JobSpec) -> None:
    control.pause(api.services, "j")
    headers = api.viewer.headers
    clients = [httpx.Client(base_url=api.url, headers=headers, verify=False) for _ in range(20)]
    answers = [c.send(c.build_request("GET", "/v1/jobs/j/events"), stream=True) for c in clients]
    try:
        streams = [read(answer) for answer in answers]
        assert {next(stream).data["state"] for stream in streams} == {"paused"}
        assert api.backend.watcher.listeners == 20
        before = api.services.redis.raw.info("commandstats")["cmdstat_hgetall"]["calls"]
        looks = api.services.redis.raw.info("commandstats")["cmdstat_hget"]["calls"]
        wait_until(
            lambda: (
                api.services.redis.raw.info("commandstats")["cmdstat_hget"]["calls"] >= looks + 5
            ),
            what="some looks went by",
        )
        after = api.services.redis.raw.info("commandstats")["cmdstat_hgetall"]["calls"]
        assert after - before <= 1
        control.resume(api.services, "j")
        assert {next(stream).data["state"] for stream in streams} == {"running"}
    finally:
        for answer, client in zip(answers, clients, strict=True):
            answer.close()
            client.close()
    wait_until(lambda: api.backend.watcher.listeners == 0, what="nobody listens any more")


def test_there_are_only_so_many_streams(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_LISTENERS", 1)
    with listening(api) as events:
        next(events)
        assert api.viewer.get("/v1/jobs/j/events").json()["code"] == "busy"
    wait_until(lambda: api.backend.watcher.listeners == 0, what="nobody listens any more")
    with listening(api) as events:
        next(events)


def test_a_server_that_stops_ends_its_streams(api: Api, spec: JobSpec) -> None:
    with listening(api) as events:
        next(events)
        api.backend.wind_down()
        assert [*events] == []


def test_what_ends_while_a_listener_is_slow_is_told_before_the_end(api: Api, spec: JobSpec) -> None:
    """The last status comes in while the one before is being sent."""

    async def frames() -> list[bytes]:
        watcher = Watcher(api.services, StatusBoard(api.services, fresh_s=0))
        stream = watcher.stream("j")
        taken = [await anext(stream) for _ in range(3)]
        work(api.services, spec, 0, 1, 2)
        await watcher._look()
        return [*taken, *[frame async for frame in stream]]

    *_, last, end = asyncio.run(frames())
    assert b'"state":"succeeded"' in last
    assert end == watch.END


def test_a_job_that_goes_on_is_told_anew_to_who_comes_then(api: Api, spec: JobSpec) -> None:
    """Though somebody has still not taken the end it came to before."""

    async def first_status() -> bytes:
        watcher = Watcher(api.services, StatusBoard(api.services, fresh_s=0))
        slow = watcher.stream("j")
        for _ in range(3):
            await anext(slow)
        api.services.jobs.delete(spec)
        await watcher._look()
        listed_job(
            api.services,
            Path(spec.output.removeprefix("file://")) / "again",
            images=6,
            input=spec.input.model_dump(),
        )
        other = watcher.stream("j")
        frames = [await anext(other) for _ in range(3)]
        await slow.aclose()
        await other.aclose()
        return frames[-1]

    assert b'"state":"running"' in asyncio.run(first_status())
