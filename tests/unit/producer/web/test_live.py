"""What keeps a page up to date: pieces, each when it changes, until there is no more to come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer.http import watch
from millrace.producer.web import job_pages, jobs_pages, streams
from millrace.producer.web.dashboard import FRESH_S
from millrace.producer.web.job_view import JobView
from millrace.producer.web.pages import Who
from millrace.producer.web.shared import Shared
from millrace.producer.web.streams import event
from tests.support import wait_until
from tests.unit.core.test_fleet import ONE
from tests.unit.producer.support import listed_job, work
from tests.unit.producer.web.test_pages import EVIL


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "EVERY_S", 0.05)


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    return listed_job(services, tmp_path / "out", images=4)


def test_an_event_is_lines_of_data_whatever_breaks_them() -> None:
    assert event("rows", "a\nb\r\nc") == b"event: rows\ndata: a\ndata: b\ndata: c\n\n"
    assert event("over", "") == b"event: over\ndata:\n\n"
    assert event("x", "a\u2028event: evil").count(b"\nevent:") == 0


def events(client: httpx.Client, path: str) -> list[tuple[str, str]]:
    """All (name, data) of a stream that ends."""
    answer = client.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [*_parsed(answer.text)]


def _parsed(text: str) -> Iterator[tuple[str, str]]:
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("event: "):
            yield lines[0][7:], "\n".join(line[6:] for line in lines[1:])


def test_a_job_that_has_ended_tells_all_of_it_once(
    client: httpx.Client, services: Services, job: JobSpec
) -> None:
    work(services, job, 0, 1, failing={2: "decode/corrupt"})
    found = events(client, "/jobs/j/live")
    names = [name for name, _ in found]
    assert names[-1] == "over"
    told = dict(found)
    assert set(told) == {
        "controls", "progress", "chart", "errors", "classes", "workers", "say", "more", "over",
    }  # fmt: skip
    assert "75" not in told["say"]
    assert told["say"] == "The job has ended: completed with errors, 1 of 4 failed."
    assert "decode/corrupt" in told["errors"]
    assert 'value="4"' in told["progress"]
    assert "Retry failed" in told["controls"]
    assert [data for name, data in found if name == "classes"][-1].count("cat") >= 1


def test_there_is_no_stream_about_no_job(client: httpx.Client) -> None:
    assert client.get("/jobs/none/live").status_code == 404


@contextmanager
def listening(client: httpx.Client, path: str) -> Iterator[Iterator[tuple[str, str]]]:
    """The (name, data) of a stream, one by one."""
    with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        yield _read(answer.iter_lines())


def _read(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    block = list[str]()
    for line in lines:
        if line:
            block.append(line)
        else:
            yield from _parsed("\n".join(block))
            block = []


def test_a_piece_is_sent_again_only_once_it_has_changed(
    client: httpx.Client, services: Services, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "FRESH_S", 0)
    looks = list[str]()
    seen = job_pages._seen

    def noted(view: JobView, who: Who) -> job_pages.Seen:
        looks.append(view.job.job_id)
        return seen(view, who)

    monkeypatch.setattr(job_pages, "_seen", noted)
    with listening(client, "/jobs/j/live") as told:
        first = next(told)
        wait_until(lambda: len(looks) > 5, 10, "it looked a few times more")
        work(services, job, 0, 1)
        found = [first, *told]
    for name in job_pages.PIECES:
        data = [data for what, data in found if what == name]
        assert all(one != other for one, other in pairwise(data)), name
    assert [name for name, _ in found].count("workers") == 1
    assert found[-1][0] == "over"


def test_what_was_kept_of_a_job_before_it_was_paused_is_shown_to_nobody_after(
    client: httpx.Client, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "FRESH_S", 600)
    with listening(client, "/jobs/j/live") as told:
        assert "do-pause" in next(told)[1]
        client.post("/jobs/j/pause")
        with listening(client, "/jobs/j/live") as other:
            assert "do-resume" in next(other)[1]


def test_a_list_that_is_empty_fills_by_itself(
    client: httpx.Client, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_pages, "CALM_S", 0)
    assert 'sse-connect="/live?"' in client.get("/").text
    with listening(client, "/live") as told:
        assert "Nothing runs yet." in next(told)[1]
        listed_job(services, tmp_path / "out")
        name, data = next(told)
    assert name == "jobs"
    assert '<tr id="row-j">' in data


def test_hostile_names_are_text_in_a_stream_too(
    client: httpx.Client, services: Services, tmp_path: Path
) -> None:
    spec = listed_job(services, tmp_path / "out", images=2, input={"uri": f"file:///in/{EVIL}/"})
    work(services, spec, 0, failing={0: "decode/corrupt", 1: "decode/corrupt"})
    keys = JobKeys("j")
    services.redis.raw.hset(keys.errors, f"decode/{EVIL}", 1)
    services.fleet.announce(replace(ONE, worker=f"{EVIL}/1"))
    with listening(client, "/live") as told:
        listed = next(told)[1]
    told_of_job = "".join(data for _, data in events(client, "/jobs/j/live"))
    assert "&lt;script&gt;" in told_of_job
    for text in (listed, told_of_job):
        assert "<script" not in text
        assert "<img src=x" not in text


def test_streams_of_pages_are_counted_with_those_of_the_api(
    client: httpx.Client, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_LISTENERS", 1)
    with listening(client, "/live") as told:
        next(told)
        assert client.get("/jobs/j/live").status_code == 503
        assert client.get("/v1/jobs/j/events").json()["code"] == "busy"

    def open_again() -> bool:
        with client.stream("GET", "/jobs/j/live") as answer:
            return answer.status_code == 200

    wait_until(open_again, 10, "the place is free again")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The state that each look at a list filters by, and how old what it finds may be."""
    noted = list[tuple[str, float]]()
    get = Shared.get

    async def note(self: Any, key: Any, make: Any, fresh_s: float) -> Any:
        noted.append((key[0].state, fresh_s))
        return await get(self, key, make, fresh_s)

    monkeypatch.setattr(Shared, "get", note)
    return noted


def test_a_list_of_which_few_are_shown_is_looked_for_seldom(
    client: httpx.Client, job: JobSpec, asked: list[tuple[str, float]]
) -> None:
    for path in ("/live", "/live?state=running"):
        with listening(client, path) as told:
            next(told)
    assert ("", FRESH_S) in asked
    assert {fresh_s for state, fresh_s in asked if state} == {jobs_pages.CALM_S}


def _last_is(asked: list[tuple[str, float]], expected: tuple[str, float]) -> bool:
    return asked[-1] == expected


def test_the_more_lists_are_looked_at_the_older_each_may_be(
    client: httpx.Client,
    job: JobSpec,
    asked: list[tuple[str, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_pages, "LISTS_FRESH", 1)
    calm = jobs_pages.CALM_S
    with listening(client, "/live?state=running") as told:
        next(told)
        for others, fresh_s in (("paused", 2 * calm), ("running", calm)):
            with listening(client, f"/live?state={others}") as other:
                next(other)
                expected = ("running", fresh_s)
                wait_until(partial(_last_is, asked, expected), 10, f"{fresh_s} s")
            wait_until(lambda: asked[-1] == ("running", calm), 10, "the other one is gone")


def test_an_ended_job_whose_results_are_gone_is_over_all_the_same(
    client: httpx.Client, services: Services, job: JobSpec
) -> None:
    work(services, job, 0, 1)
    (Path(job.directory.root) / "job.json").unlink()
    found = events(client, "/jobs/j/live")
    assert found[-1][0] == "over"
    assert "cannot be read now" in [data for name, data in found if name == "classes"][-1]
