"""The OpenAPI document leaves nothing out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from millrace.core.status import JobStatus
from millrace.producer.http.checks import CheckModel, PreviewModel, VerificationModel
from millrace.producer.http.examples import EXAMPLES
from millrace.producer.http.fleet import ModelList, WorkerList
from millrace.producer.http.health import Health, Readiness
from millrace.producer.http.jobs import JobList
from millrace.producer.http.predict import PredictionModel
from millrace.producer.http.problems import MEDIA_TYPE
from tests.support import ROOT
from tests.unit.producer.http.conftest import Api

OPERATIONS = {
    ("GET", "/v1/jobs"): "listJobs",
    ("POST", "/v1/jobs"): "submitJob",
    ("GET", "/v1/jobs/{job}"): "getJob",
    ("POST", "/v1/jobs/{job}/cancel"): "cancelJob",
    ("POST", "/v1/jobs/{job}/pause"): "pauseJob",
    ("POST", "/v1/jobs/{job}/resume"): "resumeJob",
    ("POST", "/v1/jobs/{job}/retry"): "retryJob",
    ("GET", "/v1/jobs/{job}/events"): "watchJob",
    ("GET", "/v1/jobs/{job}/results"): "streamResults",
    ("GET", "/v1/jobs/{job}/errors"): "streamErrors",
    ("GET", "/v1/jobs/{job}/verify"): "getVerification",
    ("POST", "/v1/jobs/{job}/verify"): "verifyJob",
    ("GET", "/v1/models"): "listModels",
    ("GET", "/v1/workers"): "listWorkers",
    ("POST", "/v1/preview"): "previewJob",
    ("POST", "/v1/predict"): "predictPicture",
    ("GET", "/healthz"): "health",
    ("GET", "/readyz"): "readiness",
    ("GET", "/metrics"): "metrics",
}


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.anybody.get("/openapi.json").raise_for_status().json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_operations_are_these(document: dict[str, Any]) -> None:
    found = {key: one["operationId"] for key, one in operations(document).items()}
    assert OPERATIONS.items() <= found.items()


def test_every_operation_is_explained_and_tells_its_problems(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]
        if not path.startswith("/v1/"):
            continue
        answers = operation["responses"]
        assert {"401", "403", "500", "503"} <= set(answers), path
        for status, answer in answers.items():
            if int(status) >= 400:
                schema = answer["content"][MEDIA_TYPE]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (method, path, status)
        if "requestBody" in operation:
            assert {"400", "408", "413", "422"} <= set(answers), path


def test_whatever_is_sent_and_answered_has_an_example(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        bodies += operation["responses"].values()
        for body in bodies:
            # Nothing is said of what has no content, as a 204.
            for kind, content in body.get("content", {}).items():
                assert has_example(document, content), (method, path, kind)


def has_example(document: dict[str, Any], content: dict[str, Any]) -> bool:
    if "example" in content:
        return True
    schema = content["schema"]
    # What may be left out is `anyOf` it and null.
    for one in (schema, *schema.get("anyOf", ())):
        name = one.get("$ref", "").rpartition("/")[2]
        known = document["components"]["schemas"].get(name, {})
        fields = [
            field
            for field in known.get("properties", {}).values()
            if field.get("contentMediaType") != "application/octet-stream"
        ]
        if "examples" in known or (fields and all("examples" in field for field in fields)):
            return True
    return False


@pytest.mark.parametrize(
    "model",
    [
        *(JobStatus, JobList, PreviewModel, VerificationModel, CheckModel),
        *(PredictionModel, ModelList, WorkerList, Health, Readiness),
    ],
)
def test_an_example_is_what_it_is_an_example_of(model: type[BaseModel]) -> None:
    example = EXAMPLES[model.__name__]
    assert model.model_validate(example).model_dump(mode="json") == example


def test_every_operation_of_the_api_wants_a_token(api: Api, document: dict[str, Any]) -> None:
    for method, path in operations(document):
        if path.startswith("/v1/"):
            answer = api.anybody.request(method, path.replace("{job}", "j"))
            assert answer.status_code == 401, (method, path)
            assert operations(document)[method, path]["security"]


def test_every_operation_that_changes_something_wants_an_operator(
    api: Api, document: dict[str, Any]
) -> None:
    for (method, path), operation in operations(document).items():
        if path.startswith("/v1/") and method == "POST":
            body = {"picture": b"x"} if operation["operationId"] == "predictPicture" else None
            given: dict[str, Any] = {"files": body, "data": {"model": "m"}} if body else {}
            if "requestBody" in operation and not body:
                given = {"json": {"source": "s3://b", "output": "s3://c", "model": "m"}}
            if operation["operationId"] == "retryJob":
                given = {}
            answer = api.viewer.request(method, path.replace("{job}", "j"), **given)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


def test_every_operation_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    for method, path in OPERATIONS:
        written = path.replace("{job}", "{id}")
        assert re.search(rf"{method} {re.escape(written)}(?![\w/{{])", text), (method, path)
