"""How much is taken, from where, and what every answer carries."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.errors import UsageError
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.producer.http import envelope
from millrace.producer.http.app import create_app
from millrace.producer.http.board import Posted
from millrace.producer.http.problems import MEDIA_TYPE
from millrace.producer.http.protocol import MOST_HEAD_BYTES
from millrace.producer.http.settings import HttpSettings
from tests.unit.producer.http.conftest import OPERATOR, VIEWER, Api, Serve, asked_of, serving

CHUNKED = "POST /login HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"


def test_a_request_that_says_it_is_too_large_is_refused(serve: Serve) -> None:
    api = serve(max_body_bytes=2048)
    answer = api.operator.post("/v1/jobs", content=b"x" * 4096)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_request_that_does_not_say_is_cut_off(serve: Serve) -> None:
    api = serve(max_body_bytes=2048)

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 1024

    headers = {"content-type": "application/json"}
    answer = api.operator.post("/v1/jobs", content=endless(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "path", ["/v1/predict", "/v1/jobs", "/try", "/new", "/new/preview", "/jobs/j/cancel"]
)
def test_who_may_not_act_is_refused_before_a_body_is_read(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Nothing comes after the head of the request, but the answer does."""
    monkeypatch.setattr(envelope, "PASSED_OVER_S", 0.05)
    for token, status in (("", 401), (f"authorization: Bearer {VIEWER}\r\n", 403)):
        with sending(api, path, token) as answer:
            wanted = status if path.startswith("/v1/") or token else 303
            assert answer.status == wanted


def test_a_body_that_does_not_come_is_not_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "BODY_WITHIN_S", 0.1)
    for path in ("/v1/jobs", "/v1/predict"):
        with sending(api, path, f"authorization: Bearer {OPERATOR}\r\n") as answer:
            assert answer.status == 408
            assert b'"code":"too_slow"' in answer.read()


def test_an_answer_may_take_longer_than_its_body_may(
    api: Api, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "BODY_WITHIN_S", 1)
    read = api.backend.board.read

    def read_slowly(job: str) -> Posted:
        time.sleep(1.2)
        return read(job)

    monkeypatch.setattr(api.backend.board, "read", read_slowly)
    assert api.operator.post("/v1/jobs", json=asked).status_code == 202


@contextmanager
def sending(api: Api, path: str, headers: str) -> Iterator[HTTPResponse]:
    """The answer to a request of whose body nothing comes."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        opened.sendall(
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\n{headers}"
            "content-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\n\r\n".encode()
        )
        with HTTPResponse(opened) as answer:
            answer.begin()
            yield answer


def test_a_picture_may_be_larger_than_a_request(serve: Serve) -> None:
    api = serve(max_body_bytes=2048, max_upload_bytes=16 * 1024)
    for size, status in ((8 * 1024, 404), (32 * 1024, 413)):
        answer = api.operator.post(
            "/v1/predict", data={"model": "tiny"}, files={"picture": b"x" * size}
        )
        assert answer.status_code == status  # 404: there is no place for uploads


def test_every_answer_is_safe_to_look_at(api: Api) -> None:
    for path in ("/healthz", "/v1/jobs", "/v1/nothing", "/login"):
        headers = api.viewer.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_other_sites_pages_may_not_read_it(api: Api) -> None:
    answer = api.viewer.get("/v1/jobs", headers={"origin": "https://other.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_unless_they_are_named(serve: Serve) -> None:
    api = serve(cors_origins="https://ours.example")
    for origin, allowed in (("https://ours.example", True), ("https://other.example", False)):
        answer = api.viewer.get("/v1/jobs", headers={"origin": origin})
        assert ("access-control-allow-origin" in answer.headers) == allowed


def test_what_another_site_s_page_would_send_is_refused_as_a_problem(serve: Serve) -> None:
    api = serve(cors_origins="https://ours.example")
    for origin, status in (("https://ours.example", 200), ("https://other.example", 403)):
        asked = {"origin": origin, "access-control-request-method": "POST"}
        answer = api.anybody.options("/v1/jobs", headers=asked)
        assert answer.status_code == status
        assert "origin" in answer.headers["vary"].lower()
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["code"] == "forbidden"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "begun", ["GET /", "GET / HTTP/1.1\r\nx: ", CHUNKED + "1\r\nx\r\n0\r\nx: "]
)
def test_a_head_that_does_not_end_is_cut_off(api: Api, begun: str) -> None:
    """The last is one of trailers."""
    address = httpx.URL(api.url)
    with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
        connection.sendall(begun.encode())
        sent = 0
        with suppress(ConnectionError):
            while sent < 100 * MOST_HEAD_BYTES:
                sent += connection.send(b"x" * 16_384)
        assert sent < 100 * MOST_HEAD_BYTES
    assert api.anybody.get("/healthz").status_code == 200


def test_a_head_below_the_limit_and_any_body_are_taken(api: Api) -> None:
    headers = {"x-much": "x" * (MOST_HEAD_BYTES - 1000)}
    for _ in range(3):
        assert api.viewer.get("/v1/jobs", headers=headers).status_code == 200
        pieces = (b" " * 1000 for _ in range(200))
        answer = api.operator.post("/v1/jobs", content=pieces, headers=headers)
        assert answer.status_code == 422


@pytest.mark.parametrize("origin", ["*", "ours.example", "https://ours.example/path", "https://"])
def test_an_origin_is_one(origin: str) -> None:
    with pytest.raises(UsageError, match="CORS"):
        _ = HttpSettings.load(cors_origins=origin).origins


def test_where_jobs_may_read_has_to_be_said() -> None:
    services = Services(Settings.load())
    with pytest.raises(UsageError, match="MILLRACE_ALLOWED_LOCATIONS"):
        create_app(services, HttpSettings.load(operator_token=OPERATOR))
    create_app(services, HttpSettings.load(operator_token=OPERATOR, any_location=True))


def test_uploads_lie_where_jobs_may_read(tmp_path: Path) -> None:
    services = Services(Settings.load(allowed_locations=tmp_path.as_uri()))
    http = HttpSettings.load(operator_token=OPERATOR, uploads="s3://elsewhere/uploads")
    with pytest.raises(UsageError, match="s3://elsewhere"):
        create_app(services, http)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="module")
def lasting(redis_server: EmbeddedRedis, place: Path) -> Iterator[Api]:
    """One server for all that it refuses."""
    allowed = place.as_uri()
    services = Services(Settings.load(redis_url=redis_server.url, allowed_locations=allowed))
    http = HttpSettings.load(viewer_token=VIEWER, operator_token=OPERATOR)
    with serving(services, http) as api:
        yield api
    services.redis.close()


@pytest.mark.parametrize("field", ["source", "output", "manifest"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/preview"])
@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("file:///etc", 403),
        ("s3://somebody-else-s/", 403),
        ("gs://somebody-else-s/", 403),
        ("file://{tmp}/../..", 403),
        ("file://{tmp}/%2e%2e/%2e%2e", 403),
        ("file://{tmp}-other", 403),
        ("http://169.254.169.254/latest/meta-data", 422),
        ("http://127.0.0.1:6379/", 422),
        ("file://remote.example/etc", 422),
        ("s3://user:secret@bucket/", 422),
        ("/etc/passwd", 422),
        ("relative", 422),
        ("~root", 422),
        ("\x00", 422),
    ],
)
def test_jobs_read_and_write_where_they_may(
    lasting: Api, redis_url: str, place: Path, field: str, path: str, url: str, status: int
) -> None:
    named = url.replace("{tmp}", str(place))
    answer = lasting.operator.post(path, json=asked_of(place) | {field: named})
    assert answer.status_code == status, answer.text
    assert "secret" not in answer.text
    assert lasting.viewer.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("job", ["..%2F..%2Fetc", "%2e%2e", "a%2Fb", "a%00b", "a%0Ab", "%E2%80%AE"])
@pytest.mark.parametrize("what", ["", "/results", "/errors", "/events", "/verify"])
def test_a_job_s_name_leads_nowhere_else(lasting: Api, job: str, what: str) -> None:
    answer = lasting.viewer.get(f"/v1/jobs/{job}{what}")
    assert answer.status_code in (404, 422)
    for verb in ("cancel", "pause", "resume", "retry", "verify"):
        assert lasting.operator.post(f"/v1/jobs/{job}/{verb}").status_code in (404, 422)


@pytest.mark.parametrize("name", ["..", "a/b", "a\n", "x" * 200, "", "é"])
def test_nor_does_one_that_is_asked_for(lasting: Api, place: Path, name: str) -> None:
    asked = asked_of(place) | {"job_id": name}
    assert lasting.operator.post("/v1/jobs", json=asked).status_code == 422


def test_an_unknown_field_is_no_slip_that_is_passed_over(
    api: Api, asked: dict[str, object]
) -> None:
    answer = api.operator.post("/v1/jobs", json=asked | {"deadlin": "2h"})
    assert "deadlin" in answer.json()["detail"]
