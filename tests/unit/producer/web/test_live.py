"""What keeps a page up to date: pieces, each when it changes, until there is no more to come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.producer.web import streams
from millrace.producer.web.streams import event
from tests.unit.producer.support import listed_job, work


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
