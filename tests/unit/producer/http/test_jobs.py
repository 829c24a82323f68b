"""Submitting, listing and looking at jobs over HTTP."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from millrace.core.job import JobSpec, JobState
from millrace.core.jobdir import JobDirectory
from millrace.core.status import JobStatus
from millrace.core.storage import Location
from millrace.producer.http import checks, previews
from millrace.producer.http.verifier import Check
from millrace.producer.preview import Preview
from tests.support import wait_until
from tests.unit.producer.http.conftest import Api
from tests.unit.producer.support import work


def listed(api: Api, job: str) -> dict[str, Any]:
    """The status once the input is listed."""

    def whole() -> dict[str, Any] | None:
        status: dict[str, Any] = api.viewer.get(f"/v1/jobs/{job}").json()
        return status if status["input"]["listing_complete"] else None

    status: dict[str, Any] = wait_until(whole, what=f"{job} is listed")
    return status


def test_a_job_is_answered_at_once_and_listed_then(api: Api, asked: dict[str, Any]) -> None:
    answer = api.operator.post("/v1/jobs", json=asked)
    assert answer.status_code == 202
    job = answer.json()["job_id"]
    assert answer.headers["location"] == f"/v1/jobs/{job}"
    assert listed(api, job)["counts"]["total"] == 10
    assert api.services.jobs.record(job).chunks == 5


def test_it_is_the_job_that_was_asked_for(api: Api, asked: dict[str, Any]) -> None:
    more = {
        "job_id": "mine",
        "include": ["*.jpg"],
        "exclude": ["9.*"],
        "priority": "low",
        "top_k": 3,
        "layout": "per-image",
        "error_threshold": "5%",
        "deadline": "2h",
        "labels": {"team": "catalogue", "run/no": "7"},
    }
    api.operator.post("/v1/jobs", json=asked | more).raise_for_status()
    spec = api.services.jobs.spec("mine")
    assert spec == JobDirectory(api.services.stores, spec.directory).read_spec()
    told = spec.model_dump(mode="json")
    assert {name: told[name] for name in more if name in told} == {
        name: value for name, value in more.items() if name in told
    }
    assert (told["input"]["include"], told["input"]["exclude"]) == (["*.jpg"], ["9.*"])
    assert listed(api, "mine")["counts"]["total"] == 9


def test_a_status_is_the_documented_model(api: Api, asked: dict[str, Any]) -> None:
    job = api.operator.post("/v1/jobs", json=asked).json()["job_id"]
    JobStatus.model_validate(listed(api, job))


def test_a_manifest_names_the_images(api: Api, asked: dict[str, Any], tmp_path: Path) -> None:
    manifest = tmp_path / "keys.txt"
    manifest.write_text("3.jpg\n5.jpg\n")
    answer = api.operator.post("/v1/jobs", json=asked | {"manifest": manifest.as_uri()})
    assert listed(api, answer.json()["job_id"])["counts"]["total"] == 2


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"source": "{tmp}/none"}, 404, "object_not_found"),
        ({"manifest": "{tmp}/none.txt"}, 404, "object_not_found"),
        ({"include": ["[a"]}, 422, "usage"),
        ({"output": "{tmp}/in"}, 422, "usage"),
        ({"model": "no model"}, 422, "usage"),
        ({"chunk_size": 0}, 422, "invalid_request"),
        ({"priority": "urgent"}, 422, "invalid_request"),
        ({"deadline": "soon"}, 422, "usage"),
        ({"error_threshold": "half"}, 422, "usage"),
        ({"labels": {"": "x"}}, 422, "invalid_request"),
        ({"labels": {"a": "x\ny"}}, 422, "invalid_request"),
        ({"labels": {"millrace/one-picture": "yes"}}, 422, "invalid_request"),
        ({"labels": {str(n): "" for n in range(33)}}, 422, "invalid_request"),
    ],
    ids=str,
)
def test_what_is_wrong_shows_before_a_job_is_made(
    api: Api, asked: dict[str, Any], tmp_path: Path, wrong: dict[str, Any], status: int, code: str
) -> None:
    put = {
        name: value.replace("{tmp}", tmp_path.as_uri()) if isinstance(value, str) else value
        for name, value in wrong.items()
    }
    answer = api.operator.post("/v1/jobs", json=asked | put)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert api.viewer.get("/v1/jobs").json() == {"jobs": [], "next_cursor": None}


def test_a_viewer_only_looks(api: Api, asked: dict[str, Any]) -> None:
    assert api.viewer.post("/v1/jobs", json=asked).json()["code"] == "forbidden"
    assert api.anybody.post("/v1/jobs", json=asked).status_code == 401
    assert api.anybody.get("/v1/jobs").headers["www-authenticate"].startswith("Bearer")


# --- the same request again ---


def test_the_same_key_is_the_same_job(api: Api, asked: dict[str, Any]) -> None:
    headers = {"idempotency-key": "key-1"}
    first = api.operator.post("/v1/jobs", json=asked, headers=headers)
    again = api.operator.post("/v1/jobs", json=asked, headers=headers)
    other = api.operator.post("/v1/jobs", json=asked, headers={"idempotency-key": "key-2"})
    assert first.status_code == again.status_code == 202
    assert first.json()["job_id"] == again.json()["job_id"] != other.json()["job_id"]


@pytest.mark.parametrize("changed", [{"chunk_size": 5}, {"model": "other"}, {"labels": {"a": "b"}}])
def test_the_same_key_for_something_else_is_a_conflict(
    api: Api, asked: dict[str, Any], changed: dict[str, Any]
) -> None:
    headers = {"idempotency-key": "key"}
    api.operator.post("/v1/jobs", json=asked, headers=headers).raise_for_status()
    answer = api.operator.post("/v1/jobs", json=asked | changed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "job_conflict")
    assert "another Idempotency-Key" in answer.json()["hint"]


def test_of_many_at_once_one_makes_the_job(api: Api, asked: dict[str, Any]) -> None:
    def post(_: int) -> tuple[int, str]:
        answer = api.operator.post("/v1/jobs", json=asked, headers={"idempotency-key": "key"})
        return answer.status_code, answer.json().get("job_id", answer.text)

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(post, range(32)))
    ((status, job),) = answers
    assert status == 202
    assert listed(api, job)["counts"]["total"] == 10
    assert len(api.viewer.get("/v1/jobs").json()["jobs"]) == 1


def test_a_job_id_is_a_key_already(api: Api, asked: dict[str, Any]) -> None:
    mine = asked | {"job_id": "mine"}
    for _ in range(2):
        assert api.operator.post("/v1/jobs", json=mine).json()["job_id"] == "mine"
    answer = api.operator.post("/v1/jobs", json=mine, headers={"idempotency-key": "key"})
    assert answer.status_code == 422
    answer = api.operator.post("/v1/jobs", json=mine | {"chunk_size": 3})
    assert answer.status_code == 409
    assert "another job_id" in answer.json()["hint"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
def test_an_odd_key_is_refused(api: Api, asked: dict[str, Any], key: str) -> None:
    headers = [(b"idempotency-key", key.encode())]
    assert api.operator.post("/v1/jobs", json=asked, headers=headers).status_code == 422


# --- lists ---


@pytest.fixture
def many(api: Api, asked: dict[str, Any]) -> Api:
    """Seven jobs, `j0` the oldest; odd ones are labelled, the last three of another model."""
    for number in range(7):
        more = {
            "job_id": f"j{number}",
            "labels": {"odd": str(number % 2), "n": str(number)},
            "model": "other" if number > 3 else "tiny",
        }
        api.operator.post("/v1/jobs", json=asked | more).raise_for_status()
    return api


def ids(api: Api, **query: Any) -> list[str]:
    """Of all pages."""
    found, cursor = list[str](), None
    while True:
        page = api.viewer.get("/v1/jobs", params=query | ({"cursor": cursor} if cursor else {}))
        body = page.raise_for_status().json()
        found += [job["job_id"] for job in body["jobs"]]
        assert len(body["jobs"]) <= query.get("limit", 50)
        cursor = body["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_pages_hold_each_job_once_the_newest_first(many: Api, limit: int) -> None:
    assert ids(many, limit=limit) == [f"j{number}" for number in range(6, -1, -1)]


def test_a_page_goes_on_where_it_was_whatever_came_since(many: Api, asked: dict[str, Any]) -> None:
    page = many.viewer.get("/v1/jobs", params={"limit": 3}).json()
    many.operator.post("/v1/jobs", json=asked | {"job_id": "newest"}).raise_for_status()
    rest = many.viewer.get("/v1/jobs", params={"cursor": page["next_cursor"]}).json()
    assert [job["job_id"] for job in rest["jobs"]] == ["j3", "j2", "j1", "j0"]


def test_jobs_are_found_by_what_they_are(many: Api) -> None:
    many.operator.post("/v1/jobs/j2/pause").raise_for_status()
    assert ids(many, model="other") == ["j6", "j5", "j4"]
    assert ids(many, label="odd=1", limit=1) == ["j5", "j3", "j1"]
    assert ids(many, label=["odd=1", "n=3"]) == ["j3"]
    assert ids(many, state="paused") == ["j2"]
    assert ids(many, state="paused", model="other") == []
    assert ids(many, model="tiny:1") == []


def test_one_odd_record_hides_no_other(many: Api) -> None:
    many.services.redis.raw.set("millrace:{j3}:record", "not ours")
    many.services.redis.raw.hset("millrace:{j1}:record", "state", "confused")
    assert ids(many, limit=2) == ["j6", "j5", "j4", "j2", "j0"]


# --- control ---


def test_a_job_is_paused_and_resumed_and_cancelled(api: Api, asked: dict[str, Any]) -> None:
    job = api.operator.post("/v1/jobs", json=asked).json()["job_id"]
    listed(api, job)
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", None)):
        told = api.operator.post(f"/v1/jobs/{job}/{verb}").raise_for_status().json()
        assert told["job_id"] == job
        if state:
            assert told["state"] == state
            assert api.viewer.get(f"/v1/jobs/{job}").json()["state"] == state
    ended = wait_until(
        lambda: (s := api.viewer.get(f"/v1/jobs/{job}").json())["terminal"] and s,
        what="the job has ended",
    )
    assert (ended["state"], ended["counts"]["cancelled"]) == ("cancelled", 10)


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_control_is_for_operators_and_jobs_that_are_there(api: Api, verb: str) -> None:
    assert api.operator.post(f"/v1/jobs/none/{verb}").json()["code"] == "job_not_found"
    assert api.viewer.post(f"/v1/jobs/none/{verb}").status_code == 403
    assert api.anybody.post(f"/v1/jobs/none/{verb}").status_code == 401


def test_what_has_ended_is_a_conflict(api: Api, asked: dict[str, Any]) -> None:
    job = api.operator.post("/v1/jobs", json=asked).json()["job_id"]
    listed(api, job)
    spec = api.services.jobs.spec(job)
    assert api.operator.post(f"/v1/jobs/{job}/retry").json()["code"] == "job_conflict"
    work(api.services, spec, *range(5))
    for verb in ("cancel", "pause", "resume"):
        answer = api.operator.post(f"/v1/jobs/{job}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_conflict")


def test_what_failed_runs_again_as_a_job_of_its_own(api: Api, asked: dict[str, Any]) -> None:
    job = api.operator.post("/v1/jobs", json=asked | {"labels": {"a": "b"}}).json()["job_id"]
    listed(api, job)
    spec = api.services.jobs.spec(job)
    work(api.services, spec, *range(5), failing={0: "decode/corrupt", 5: "fetch/not_found"})
    headers = {"idempotency-key": "again"}
    one = {"codes": ["fetch/not_found"]}
    answer = api.operator.post(f"/v1/jobs/{job}/retry", json=one, headers=headers)
    assert answer.status_code == 202
    child = answer.json()["job_id"]
    status = listed(api, child)
    assert (status["parent_job_id"], status["counts"]["total"]) == (job, 1)
    assert status["labels"] == {"a": "b"}
    again = api.operator.post(f"/v1/jobs/{job}/retry", json=one, headers=headers)
    assert again.json()["job_id"] == child
    every = api.operator.post(f"/v1/jobs/{job}/retry")
    assert listed(api, every.json()["job_id"])["counts"]["total"] == 2


def test_a_job_that_waits_for_its_end_gets_there_while_it_is_looked_at(
    api: Api, asked: dict[str, Any]
) -> None:
    job = api.operator.post("/v1/jobs", json=asked).json()["job_id"]
    listed(api, job)
    api.services.jobs.stop(job, JobState.CANCELLED, "requested")
    wait_until(
        lambda: api.viewer.get(f"/v1/jobs/{job}").json()["state"] == "cancelled",
        what="somebody who looked has ended it",
    )
    directory = Location.parse(str(asked["output"])).child(job)
    assert JobDirectory(api.services.stores, directory).read_summary() is not None


# --- checks ---


def test_a_dry_run_tells_what_a_job_would_do_and_makes_none(
    api: Api, asked: dict[str, Any], tmp_path: Path
) -> None:
    told = api.operator.post("/v1/preview", json=asked).raise_for_status().json()
    assert (told["images"], told["chunks"], told["types"]) == (10, 5, {".jpg": 10})
    assert told["complete"]
    assert told["output_problem"] is None
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert api.viewer.get("/v1/jobs").json()["jobs"] == []
    assert api.viewer.post("/v1/preview", json=asked).status_code == 403


def test_a_dry_run_of_a_large_input_counts_its_beginning(
    api: Api, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "MOST_OBJECTS", 4)
    told = api.operator.post("/v1/preview", json=asked).json()
    assert (told["images"], told["complete"]) == (4, False)
    none = api.operator.post("/v1/preview", json=asked | {"include": ["*.nosuch"]}).json()
    assert (none["images"], none["complete"]) == (0, False)


def test_only_so_many_dry_runs_are_under_way(
    api: Api, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begun, look = threading.Event(), list[float](), api.backend.previews._look

    def slow(spec: Callable[[], JobSpec], within_s: float) -> Preview:
        begun.append(within_s)
        gate.wait(30)
        return look(spec, within_s)

    def ask() -> int:
        return api.operator.post("/v1/preview", json=asked).status_code

    monkeypatch.setattr(api.backend.previews, "_look", slow)
    with ThreadPoolExecutor(previews.AT_ONCE) as pool:
        running = [pool.submit(ask) for _ in range(previews.AT_ONCE)]
        wait_until(lambda: len(begun) == previews.AT_ONCE, what="all places are taken")
        assert api.operator.post("/v1/preview", json=asked).json()["code"] == "busy"
        gate.set()
        assert {one.result() for one in running} == {200}
    assert ask() == 200


def test_a_job_is_verified(api: Api, asked: dict[str, Any], tmp_path: Path) -> None:
    job = api.operator.post("/v1/jobs", json=asked).json()["job_id"]
    listed(api, job)
    work(api.services, api.services.jobs.spec(job), *range(5))
    assert api.viewer.get(f"/v1/jobs/{job}/verify").json()["code"] == "object_not_found"
    told = api.operator.post(f"/v1/jobs/{job}/verify").json()
    assert told["done"]
    assert told["result"]["ok"]
    assert told["result"]["succeeded"] == told["images_checked"] == 10
    (tmp_path / "out" / job / "_SUCCESS").unlink()
    later = api.operator.post(f"/v1/jobs/{job}/verify", params={"wait": 0}).json()
    assert later["job_id"] == job
    found = api.viewer.get(f"/v1/jobs/{job}/verify", params={"wait": 30}).json()["result"]
    assert [finding["where"] for finding in found["findings"]] == ["_SUCCESS"]


def test_a_verification_that_fails_when_nobody_waits_is_no_traceback() -> None:
    told: list[dict[str, Any]] = []

    async def ask_and_leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        check = Check("j")
        assert (await checks._answer(check, 0)).status_code == 202
        check.future.set_exception(ValueError("it broke"))
        await asyncio.sleep(0)
        gc.collect()
        with pytest.raises(ValueError, match="it broke"):
            await checks._answer(check, 0.1)

    asyncio.run(ask_and_leave())
    gc.collect()
    assert told == []
