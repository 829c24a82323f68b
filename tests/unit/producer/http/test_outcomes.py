"""Results and errors, streamed from any row on."""

from __future__ import annotations

import csv
import io
import socket
from typing import Any

import httpx
import orjson
import pytest

from millrace.core.job import JobSpec
from millrace.producer import outcome_csv
from millrace.producer.http import streams
from tests.support import wait_until
from tests.unit.producer.http.conftest import VIEWER, Api
from tests.unit.producer.support import listed_job, object_of, work

FAILING = {0: "decode/corrupt", 5: "fetch/not_found", 6: "decode/corrupt"}


@pytest.fixture
def spec(api: Api, tmp_path: Any) -> JobSpec:
    """Eleven images, two to a chunk, of which three failed."""
    made = listed_job(
        api.services, tmp_path / "out", images=11, input={"uri": (tmp_path / "in").as_uri()}
    )
    work(api.services, made, *range(6), failing=FAILING)
    return made


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [orjson.loads(line) for line in answer.raise_for_status().content.splitlines()]


def numbers(answer: httpx.Response) -> list[int]:
    return [int(outcome["key"].removesuffix(".jpg")) for outcome in lines(answer)]


def test_results_are_what_storage_holds(api: Api, spec: JobSpec) -> None:
    answer = api.viewer.get("/v1/jobs/j/results")
    stored = b"".join(object_of(spec, chunk).read_bytes() for chunk in range(6))
    assert answer.content == stored
    assert "millrace-next-cursor" not in answer.headers


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 11, 100])
def test_pages_hold_each_outcome_once_in_order(api: Api, spec: JobSpec, limit: int) -> None:
    found, cursor = list[int](), 0
    while True:
        answer = api.viewer.get("/v1/jobs/j/results", params={"limit": limit, "cursor": cursor})
        found += (some := numbers(answer))
        assert 0 < len(some) <= limit
        if "link" not in answer.headers:
            break
        assert f"cursor={answer.headers['millrace-next-cursor']}" in answer.headers["link"]
        cursor = int(answer.headers["millrace-next-cursor"])
    assert found == [*range(11)]


def test_the_link_leads_to_the_next_page(api: Api, spec: JobSpec) -> None:
    answer = api.viewer.get("/v1/jobs/j/results", params={"limit": 4})
    assert numbers(api.viewer.get(answer.links["next"]["url"])) == [4, 5, 6, 7]


@pytest.mark.parametrize("cursor", [0, 1, 2, 9, 10, 11, 12, 10**12])
def test_a_stream_begins_at_any_row(api: Api, spec: JobSpec, cursor: int) -> None:
    answer = api.viewer.get("/v1/jobs/j/results", params={"cursor": cursor})
    assert numbers(answer) == [*range(cursor, 11)]


def test_of_a_job_under_way_there_is_what_is_finished(api: Api, tmp_path: Any) -> None:
    made = listed_job(
        api.services, tmp_path / "out", images=11, input={"uri": (tmp_path / "in").as_uri()}
    )
    assert numbers(api.viewer.get("/v1/jobs/j/results")) == []
    work(api.services, made, 1, 3, 5, failing=FAILING)
    assert numbers(api.viewer.get("/v1/jobs/j/results")) == [2, 3, 6, 7, 10]
    page = api.viewer.get("/v1/jobs/j/results", params={"limit": 2})
    assert (numbers(page), page.headers["millrace-next-cursor"]) == ([2, 3], "6")
    assert numbers(api.viewer.get("/v1/jobs/j/errors")) == [6]


def test_errors_are_the_lines_that_failed(api: Api, spec: JobSpec) -> None:
    assert numbers(api.viewer.get("/v1/jobs/j/errors")) == [0, 5, 6]
    assert numbers(api.viewer.get("/v1/jobs/j/errors", params={"cursor": 5})) == [5, 6]
    page = api.viewer.get("/v1/jobs/j/errors", params={"limit": 2})
    assert (numbers(page), page.headers["millrace-next-cursor"]) == ([0, 5], "6")
    last = api.viewer.get(page.links["next"]["url"])
    assert numbers(last) == [6]
    assert "link" not in last.headers


@pytest.mark.parametrize("what", ["results", "errors"])
@pytest.mark.parametrize("way", ["query", "header"])
def test_csv_is_a_table(api: Api, spec: JobSpec, what: str, way: str) -> None:
    query = {"format": "csv"} if way == "query" else {}
    headers = {"accept": "text/csv, application/x-ndjson;q=0.5"} if way == "header" else {}
    answer = api.viewer.get(f"/v1/jobs/j/{what}", params=query, headers=headers)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = [*csv.DictReader(io.StringIO(answer.text, newline=""))]
    assert len(rows) == (11 if what == "results" else 3)
    assert rows[0]["error_code"] == "corrupt"


def test_a_form_that_there_is_not_is_not_acceptable(api: Api, spec: JobSpec) -> None:
    answer = api.viewer.get("/v1/jobs/j/results", headers={"accept": "application/xml"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize("query", [{"cursor": -1}, {"limit": 0}, {"format": "x"}, {"cursor": "x"}])
def test_a_range_that_makes_no_sense_is_refused(
    api: Api, spec: JobSpec, query: dict[str, Any]
) -> None:
    for what in ("results", "errors"):
        assert api.viewer.get(f"/v1/jobs/j/{what}", params=query).status_code == 422


def test_a_job_elsewhere_is_not_read_whatever_redis_says(api: Api, spec: JobSpec) -> None:
    forged = spec.model_copy(update={"output": "file:///etc"})
    api.services.redis.raw.hset("millrace:{j}:record", "spec", forged.model_dump_json())
    for what in ("results", "errors"):
        assert api.viewer.get(f"/v1/jobs/j/{what}").json()["code"] == "location_not_allowed"
    assert api.operator.post("/v1/jobs/j/verify").json()["code"] == "location_not_allowed"


def test_what_breaks_before_the_first_piece_is_a_problem(api: Api, spec: JobSpec) -> None:
    object_of(spec, 5).write_bytes(b"not an outcome\n")
    answer = api.viewer.get("/v1/jobs/j/results", params={"format": "csv"})
    assert (answer.status_code, answer.json()["code"]) == (500, "corrupt_record")


def test_what_breaks_in_the_middle_is_no_whole_answer(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome_csv, "BLOCK_CHARACTERS", 1)
    object_of(spec, 5).write_bytes(b"not an outcome\n")
    with pytest.raises(httpx.RemoteProtocolError):
        api.viewer.get("/v1/jobs/j/results", params={"format": "csv"})


@pytest.mark.parametrize("what", ["results", "errors"])
@pytest.mark.parametrize("query", [{}, {"limit": 5}, {"cursor": 1}])
def test_an_object_that_is_gone_is_no_image_less(
    api: Api, spec: JobSpec, what: str, query: dict[str, Any]
) -> None:
    object_of(spec, 0).unlink()
    answer = api.viewer.get(f"/v1/jobs/j/{what}", params=query)
    assert (answer.status_code, answer.json()["code"]) == (500, "corrupt_record")
    assert len(numbers(api.viewer.get("/v1/jobs/j/results", params={"cursor": 2}))) == 9


def test_who_takes_nothing_keeps_no_place(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "TAKEN_WITHIN_S", 0.1)
    for chunk in range(6):
        # More than the buffers between the two hold.
        object_of(spec, chunk).write_bytes(b"x" * 4_000_000 + b"\n")
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        asked = f"GET /v1/jobs/j/results HTTP/1.1\r\nhost: {host}\r\n"
        opened.sendall(f"{asked}authorization: Bearer {VIEWER}\r\n\r\n".encode())
        assert opened.recv(15) == b"HTTP/1.1 200 OK"
        wait_until(lambda: api.backend.streams._open == 0, what="it was broken off")


def test_only_so_many_stream_at_once(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.backend.streams._most = 0
    answer = api.viewer.get("/v1/jobs/j/results")
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) > 0
    api.backend.streams._most = streams.MOST_STREAMS
    for _ in range(3):
        assert len(numbers(api.viewer.get("/v1/jobs/j/results"))) == 11
    assert api.backend.streams._open == 0


def test_who_leaves_in_the_middle_takes_no_place(
    api: Api, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome_csv, "BLOCK_CHARACTERS", 1)
    for _ in range(3):
        with api.viewer.stream("GET", "/v1/jobs/j/results", params={"format": "csv"}) as answer:
            next(answer.iter_raw())
    wait_until(lambda: api.backend.streams._open == 0, what="no place is taken any more")
