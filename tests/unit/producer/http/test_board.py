"""One read for all who poll, and the short way to what was read."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from millrace.core.errors import JobNotFound
from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.producer import control
from millrace.producer.http import board as module
from millrace.producer.http.board import StatusBoard
from tests.unit.producer.http.conftest import Api, Serve
from tests.unit.producer.support import listed_job


@pytest.fixture
def spec(services: Services, tmp_path: Any) -> JobSpec:
    return listed_job(services, tmp_path / "out", input={"uri": (tmp_path / "in").as_uri()})


class Counting(StatusBoard):
    """Counts its reads."""

    reads = 0

    def read(self, job: str) -> module.Posted:
        self.reads += 1
        return super().read(job)


def test_many_who_ask_at_once_share_one_read(services: Services, spec: JobSpec) -> None:
    board = Counting(services)

    async def ask() -> set[bytes]:
        posted = await asyncio.gather(*(board.posted("j") for _ in range(50)))
        return {one.body for one in posted}

    assert len(asyncio.run(ask())) == 1
    assert board.reads == 1


def test_what_was_read_a_moment_ago_is_not_read_again(services: Services, spec: JobSpec) -> None:
    board = Counting(services, fresh_s=60)

    async def ask() -> None:
        first = await board.posted("j")
        control.pause(services, "j")
        assert await board.posted("j") is first

    asyncio.run(ask())
    assert board.reads == 1


def test_what_is_too_old_is_read_again(services: Services, spec: JobSpec) -> None:
    board = Counting(services, fresh_s=0)

    async def ask() -> None:
        await board.posted("j")
        control.pause(services, "j")
        assert (await board.posted("j")).status.state == "paused"

    asyncio.run(ask())


def test_it_is_read_ahead_and_nobody_waits(
    services: Services, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 0)
    board = Counting(services, fresh_s=60)

    async def ask() -> None:
        first = await board.posted("j")
        control.pause(services, "j")
        assert [board.fresh("j") for _ in range(50)] == [first] * 50
        await board._reading["j"]
        assert board.reads == 2
        second = board.fresh("j")
        assert second is not None
        assert second.status.state == "paused"

    asyncio.run(ask())


def test_a_read_ahead_that_fails_is_nobody_s_failure(
    services: Services, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD", 0)
    board = StatusBoard(services, fresh_s=60)
    unheard: list[dict[str, Any]] = []

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: unheard.append(said))
        first = await board.posted("j")
        services.redis.raw.flushall()
        assert board.fresh("j") is first
        await asyncio.wait([board._reading["j"]])
        gc.collect()

    asyncio.run(ask())
    assert not unheard


def test_what_was_begun_to_be_read_before_it_is_forgotten_is_not_posted(
    services: Services, spec: JobSpec
) -> None:
    board = StatusBoard(services, fresh_s=60)

    async def ask() -> None:
        reading = asyncio.create_task(board.posted("j"))
        await asyncio.sleep(0)
        board.forget("j")
        await reading
        assert board.fresh("j") is None

    asyncio.run(ask())


def test_what_is_forgotten_at_any_moment_fails_nobody_and_stays_forgotten(
    services: Services, spec: JobSpec
) -> None:
    board = StatusBoard(services, fresh_s=60)
    forgetting: list[threading.Thread] = []

    class Reading(dict[str, Any]):
        """Somebody forgets the job between what is asked of this and what is done then."""

        def get(self, job: str, default: Any = None) -> Any:
            found = super().get(job, default)
            if found is not None:
                forgetting.append(threading.Thread(target=board.forget, args=(job,)))
                forgetting[-1].start()
                forgetting[-1].join(0.1)
            return found

    board._reading = Reading()
    asyncio.run(board.posted("j"))
    assert forgetting
    for thread in forgetting:
        thread.join()
    assert board.fresh("j") is None


def test_a_read_belongs_to_no_request(services: Services, spec: JobSpec) -> None:
    asked_by: ContextVar[str] = ContextVar("asked_by", default="nobody")
    found: list[str] = []

    class Telling(StatusBoard):
        def read(self, job: str) -> module.Posted:
            found.append(asked_by.get())
            return super().read(job)

    async def ask() -> None:
        asked_by.set("a request")
        await Telling(services).posted("j")

    asyncio.run(ask())
    assert found == ["nobody"]


def test_one_who_leaves_takes_the_answer_from_nobody(services: Services, spec: JobSpec) -> None:
    board = StatusBoard(services)

    async def ask() -> str:
        first = asyncio.create_task(board.posted("j"))
        second = asyncio.create_task(board.posted("j"))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).status.job_id

    assert asyncio.run(ask()) == "j"


def test_a_job_that_is_not_there_is_asked_for_each_time(services: Services) -> None:
    board = StatusBoard(services, fresh_s=60)

    async def ask() -> None:
        for _ in range(2):
            with pytest.raises(JobNotFound):
                await board.posted("none")

    asyncio.run(ask())


def test_only_so_many_are_kept(
    services: Services, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    for number in range(3):
        listed_job(services, tmp_path, job_id=f"j{number}", input={"uri": tmp_path.as_uri()})
    board = StatusBoard(services, fresh_s=60)

    async def ask() -> None:
        for number in range(3):
            await board.posted(f"j{number}")

    asyncio.run(ask())
    assert [board.fresh(f"j{number}") is None for number in range(3)] == [True, False, False]


@pytest.fixture
def served(api: Api, tmp_path: Any) -> Api:
    api.backend.board._fresh_s = 60
    listed_job(api.services, tmp_path / "out", input={"uri": (tmp_path / "in").as_uri()})
    return api


def test_the_short_way_answers_the_same(served: Api) -> None:
    slow, quick = (served.viewer.get("/v1/jobs/j") for _ in range(2))
    assert slow.content == quick.content
    told = ("content-type", "cache-control", "content-length", "x-content-type-options")
    assert [slow.headers[name] for name in told] == [quick.headers[name] for name in told]


def test_the_short_way_lets_nobody_in(served: Api) -> None:
    served.viewer.get("/v1/jobs/j")
    assert served.anybody.get("/v1/jobs/j").json()["code"] == "unauthenticated"
    assert served.anybody.get("/v1/jobs/j", headers={"authorization": "Bearer x"}).is_error


def test_who_has_no_token_has_nothing_read_ahead(
    served: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[str]()
    reading_of = served.backend.board._reading_of

    def noted(job: str) -> asyncio.Task[module.Posted]:
        begun.append(job)
        return reading_of(job)

    served.viewer.get("/v1/jobs/j")
    monkeypatch.setattr(module, "AHEAD", 0)
    monkeypatch.setattr(served.backend.board, "_reading_of", noted)
    assert served.anybody.get("/v1/jobs/j").status_code == 401
    assert not begun
    served.viewer.get("/v1/jobs/j").raise_for_status()
    assert begun == ["j"]


def test_the_short_way_meets_a_host_that_is_none(serve: Serve, tmp_path: Any) -> None:
    api = serve(no_auth=True, viewer_token=None, operator_token=None)
    api.backend.board._fresh_s = 60
    listed_job(api.services, tmp_path / "out", input={"uri": (tmp_path / "in").as_uri()})
    api.anybody.get("/v1/jobs/j").raise_for_status()
    assert api.anybody.get("/v1/jobs/j", headers={"host": "["}).json()["code"] == "forbidden"


def test_what_is_done_to_a_job_shows_at_once(served: Api) -> None:
    with ThreadPoolExecutor(8) as pool:
        for verb, state in (("pause", "paused"), ("resume", "running")) * 3:
            [*pool.map(lambda _: served.viewer.get("/v1/jobs/j"), range(16))]
            served.operator.post(f"/v1/jobs/j/{verb}").raise_for_status()
            assert served.viewer.get("/v1/jobs/j").json()["state"] == state
