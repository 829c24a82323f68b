"""The form for a new job: what it asks, what a preview finds, what becomes of it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from millrace.core.errors import RedisUnavailable
from millrace.core.services import Services
from millrace.producer.http import previews
from tests.support import wait_until, write_pngs


@pytest.fixture
def filled(tmp_path: Path) -> dict[str, str]:
    """The fields of a form over five pictures and a text."""
    write_pngs(tmp_path / "in", 5)
    (tmp_path / "in" / "<b>notes.txt").write_text("no picture")
    return {
        "source": (tmp_path / "in").as_uri(),
        "output": (tmp_path / "out").as_uri(),
        "model": "tiny",
        "request": "20261120-174500-00c0ffee",
    }


def test_a_job_is_made_and_listed(
    client: httpx.Client, services: Services, filled: dict[str, str]
) -> None:
    more = {
        "include": "*.png\r\n*/My Photos/*\r\n",
        "priority": "high",
        "chunk_size": "2",
        "top_k": "1",
    }
    answer = client.post("/new", data=filled | more, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == "/jobs/tiny-20261120-174500-00c0ffee"
    wait_until(
        lambda: services.jobs.record("tiny-20261120-174500-00c0ffee").listing_complete,
        10,
        "it is listed",
    )
    record = services.jobs.record("tiny-20261120-174500-00c0ffee")
    assert record.counts.total == 5
    assert record.spec.input.include == ("*.png", "*/My Photos/*")
    assert (record.spec.priority, record.spec.chunk_size, record.spec.top_k) == ("high", 2, 1)


def test_a_form_that_is_sent_twice_is_one_job(
    client: httpx.Client, services: Services, filled: dict[str, str]
) -> None:
    places = {
        client.post("/new", data=filled, follow_redirects=False).headers["location"]
        for _ in range(3)
    }
    assert len(places) == 1
    assert len(services.jobs.recent_jobs(10)) == 1


def test_each_form_has_a_stamp_of_its_own(client: httpx.Client) -> None:
    stamps = [re.search(r'name="request" value="([^"]+)"', client.get("/new").text) for _ in "ab"]
    assert all(stamps)
    assert stamps[0] is not None
    assert stamps[1] is not None
    assert stamps[0][1] != stamps[1][1]


def test_a_preview_enqueues_nothing(
    client: httpx.Client, services: Services, filled: dict[str, str], tmp_path: Path
) -> None:
    page = client.post("/new/preview", data=filled)
    assert page.status_code == 200
    assert "<h1>New job</h1>" in page.text
    fragment = client.post("/new/preview", data=filled, headers={"hx-request": "true"}).text
    assert "<h1>" not in fragment
    for html in (page.text, fragment):
        assert "<b>6</b>" in html
        assert "&lt;b&gt;notes.txt" in html
        assert ".png" in html
        assert "Nothing is in its way." in html
    assert services.jobs.recent_jobs(10) == []
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_previews_are_counted_with_the_dry_runs_of_the_api(
    client: httpx.Client, filled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "AT_ONCE", 0)
    for headers in ({}, {"hx-request": "true"}):
        answer = client.post("/new/preview", data=filled, headers=headers)
        assert "dry runs are under way already" in answer.text


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("source", "", "Images: "),
        ("source", "photos/", "is not a storage URL"),
        ("source", "s3://key:secret@bucket/x", "credentials"),
        ("source", "gopher://x/y", "unknown scheme"),
        ("model", "no model!", "model"),
        ("chunk_size", "many", "Images per chunk: "),
        ("chunk_size", "0", "Images per chunk: "),
        ("priority", "urgent", "Priority: "),
        ("error_threshold", "some", "threshold"),
        ("deadline", "soon", "deadline"),
        ("job_id", "../etc", "Name: "),
        ("include", "[z-", "["),
        ("exclude", "x" * 9000, "But not like: "),
        ("source", "file:///" + "x" * 9000, "Images: "),
        ("labels", "team", "Labels: &#39;team&#39; is no label: expected NAME=VALUE"),
        ("notify", "ftp://example.org", "notify"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_forgotten(
    field: str, value: str, says: str, client: httpx.Client, filled: dict[str, str]
) -> None:
    for path, status in (("/new", 422), ("/new/preview", 200)):
        answer = client.post(path, data=filled | {field: value})
        assert answer.status_code == status
        alert = re.search(r'role="alert">(.*?)</p>', answer.text, re.S)
        assert alert is not None
        assert says in alert[1]
        assert "secret" not in alert[1]
        assert f'value="{filled["output"]}"' in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", ""),
        ("chunk_size", "0"),
        ("include", "x" * 2000),
        ("deadline", "soon"),
        ("error_threshold", "some"),
    ],
)
def test_a_field_that_is_wrong_is_marked_under_the_name_it_has(
    field: str, value: str, client: httpx.Client, filled: dict[str, str]
) -> None:
    page = client.post("/new", data=filled | {field: value}).text
    marked = re.findall(r'<(?:input|textarea) id="(\w+)"[^>]* aria-invalid="true" autofocus>', page)
    assert marked == [field]
    label = re.search(f'<label for="{field}">([^<]+)</label>', page)
    assert label is not None
    assert f'role="alert">{label[1]}: ' in page
    assert "aria-invalid" not in client.get("/new").text


def test_nothing_there_is_said_before_there_is_a_job(
    client: httpx.Client, services: Services, filled: dict[str, str], tmp_path: Path
) -> None:
    answer = client.post("/new", data=filled | {"source": (tmp_path / "none").as_uri()})
    assert answer.status_code == 404
    assert 'role="alert"' in answer.text
    assert services.jobs.recent_jobs(10) == []
    (tmp_path / "empty").mkdir()
    preview = client.post("/new/preview", data=filled | {"source": (tmp_path / "empty").as_uri()})
    assert "There are no images like that." in preview.text


def test_labels_and_whom_to_tell(
    client: httpx.Client, services: Services, filled: dict[str, str]
) -> None:
    more = {"labels": "team=catalogue\r\nround=2", "notify": "https://example.org/done"}
    assert client.post("/new", data=filled | more, follow_redirects=False).status_code == 303
    spec = services.jobs.record("tiny-20261120-174500-00c0ffee").spec
    assert spec.labels == {"team": "catalogue", "round": "2"}
    assert spec.notify == "https://example.org/done"
    again = client.post("/new/preview", data=filled | more).text
    assert "team=catalogue\r\nround=2</textarea>" in again
    assert "<details open>" in again


def test_redis_that_is_away_is_not_the_form_s_fault(
    client: httpx.Client, filled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise RedisUnavailable("Redis is away")

    monkeypatch.setattr("millrace.producer.http.lister.accept", away)
    answer = client.post("/new", data=filled)
    assert answer.status_code == 503
    assert f'value="{filled["output"]}"' in answer.text
