"""Errors as problem details, and back."""

from __future__ import annotations

import orjson
import pytest

from millrace.core import errors
from millrace.core.errors import ItemError, MillraceError, Stage
from millrace.producer.http.problems import MEDIA_TYPE, STATUS, problem_of, status_for
from millrace.producer.remote_errors import error_of
from tests.unit.producer.http.conftest import Api


def classes(kind: type[MillraceError] = MillraceError) -> list[type[MillraceError]]:
    below = [deeper for one in kind.__subclasses__() for deeper in classes(one)]
    return [one for one in (kind, *below) if one.__module__ == errors.__name__]


def an_error(kind: type[MillraceError]) -> MillraceError:
    if kind is ItemError:
        return ItemError(Stage.DECODE, "corrupt", "it broke")
    if kind is errors.BadManifest:
        return errors.BadManifest("s3://b/m", 7, "it broke")
    if kind is errors.MissingExtra:
        return errors.MissingExtra("it", "http")
    return kind("it broke", hint="mend it")


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_of_its_own_or_its_parent_s(kind: type[MillraceError]) -> None:
    assert 400 <= status_for(kind) < 600
    parent = kind.__mro__[1]
    # Right below the root nothing is left to chance.
    assert kind in STATUS or parent is not MillraceError


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_what_it_was(kind: type[MillraceError]) -> None:
    error = an_error(kind)
    problem = problem_of(error)
    answer = problem.response("/v1/x")
    assert answer.media_type == MEDIA_TYPE
    back = error_of(answer.status_code, bytes(answer.body))
    assert type(back) is kind
    assert (back.message, back.code) == (error.message, error.code)
    if not isinstance(error, ItemError):
        assert back.hint == error.hint


def test_what_no_millrace_wrote_is_still_an_error() -> None:
    assert isinstance(error_of(502, b"<html>Bad gateway"), errors.ServerUnavailable)
    assert isinstance(error_of(404, b"[]"), errors.UsageError)
    assert isinstance(error_of(418, orjson.dumps({"code": "x", "detail": "y"})), errors.UsageError)


def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    problem = problem_of(ValueError("redis://user:secret@host"))
    assert problem.status == 500
    assert "secret" not in orjson.dumps(problem.body("/")).decode()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "no_such_page"),
        ("GET", "/v1/jobs/none-such", 404, "job_not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/-odd", 422, "invalid_request"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_request"),
        ("GET", "/v1/jobs?cursor=%25", 422, "usage"),
        ("GET", "/v1/jobs?label=x", 422, "usage"),
        ("GET", "/v1/jobs?model=..%2F..", 422, "usage"),
        ("POST", "/v1/jobs", 422, "invalid_request"),
    ],
)
def test_whatever_is_refused_is_a_problem(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    answer = api.operator.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    body = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:millrace:problem:{code}"
    assert body["instance"] == path.partition("?")[0]
    assert body["title"]
    assert body["detail"]


def test_a_body_of_no_kind_is_told_which_one_is_taken(api: Api) -> None:
    assert "Content-Type" in api.operator.post("/v1/jobs", content=b"{}").json()["hint"]
    as_curl = {"content-type": "application/x-www-form-urlencoded"}
    answer = api.operator.post("/v1/jobs", content=b"{}", headers=as_curl)
    assert "Content-Type" in answer.json()["hint"]
    # A picture comes as another kind of form.
    answer = api.operator.post("/v1/predict", content=b"model=tiny", headers=as_curl)
    assert (answer.status_code, "hint" in answer.json()) == (422, False)
    assert "hint" not in api.operator.post("/v1/jobs", json={}).json()
    assert "hint" not in api.operator.post("/v1/jobs").json()


def test_what_is_asked_for_is_told_as_a_url(api: Api) -> None:
    answer = api.viewer.get("/v1/jobs/a%20b%00%E2%80%AE")
    assert answer.json()["instance"] == "/v1/jobs/a%20b%00%E2%80%AE"


def test_a_path_tells_all_its_methods(api: Api) -> None:
    assert api.viewer.put("/v1/jobs").headers["allow"] == "GET, POST"


def test_a_body_that_is_no_json_is_a_problem(api: Api) -> None:
    answer = api.operator.post(
        "/v1/jobs", content=b"{", headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
