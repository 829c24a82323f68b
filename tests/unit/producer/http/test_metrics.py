"""Requests by their ids and numbers: what the server tells of itself."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from millrace.core.errors import RedisUnavailable
from millrace.core.job import JobState, Reason
from millrace.core.metrics import REDIS_UP, Sample
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import JobKeys
from millrace.producer import fleet_metrics
from millrace.producer.fleet_metrics import FleetMetrics
from tests.faults.redis_server import MortalRedis
from tests.support import capture_logs, wait_until
from tests.unit.core.support import a_spec, standing_job
from tests.unit.producer.http.conftest import OPERATOR, Api, Serve


def values(samples: list[Sample]) -> dict[tuple[str, ...], object]:
    return {(each.metric.name, *each.labels): each.value for each in samples}


def test_it_is_for_viewers_unless_it_is_open(api: Api, serve: Serve) -> None:
    assert api.anybody.get("/metrics").status_code == 401
    assert api.viewer.get("/metrics").status_code == 200
    answer = serve(metrics_open=True).anybody.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert list(text_string_to_metric_families(answer.text))


def test_requests_are_counted_by_the_template_of_their_path(api: Api) -> None:
    for path in ("/v1/jobs/a", "/v1/jobs/b", "/v1/jobs/a/errors", "/x/1", "/x/2", "/healthz"):
        api.viewer.get(path)
    api.operator.post("/v1/jobs", json={"nonsense": 1})
    text = api.viewer.get("/metrics").text
    found = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "millrace_http_requests_total"
    }
    assert found == {
        ("GET", "/v1/jobs/{job}", "404"): 2,
        ("GET", "/v1/jobs/{job}/errors", "404"): 1,
        ("GET", "none", "404"): 2,
        ("GET", "/healthz", "200"): 1,
        ("POST", "/v1/jobs", "422"): 1,
    }


def test_an_unexpected_error_has_its_request_s_id_and_is_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(api.backend.board, "fresh", broken)
    answer = api.viewer.get("/v1/jobs/a", headers={"x-request-id": "mine"})
    assert answer.status_code == 500
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.json()["request_id"] == "mine"
    monkeypatch.undo()
    # The server ends a connection on which that happened.
    assert 'status="500"' in api.operator.get("/metrics").text


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "ä"])
def test_an_id_that_would_not_do_is_not_taken(given: str, api: Api) -> None:
    answer = api.viewer.get("/healthz", headers=[(b"x-request-id", given.encode())])
    (made,) = answer.headers.get_list("x-request-id")
    assert len(made) == 16


def test_what_changes_something_is_told_in_the_log(api: Api) -> None:
    with capture_logs() as logs:
        api.operator.post("/v1/jobs/a/cancel", headers={"x-request-id": "mine"})
    (line,) = [each for each in logs if each["event"] == "answered a request"]
    assert (line["request_id"], line["method"], line["path"]) == (
        *("mine", "POST"),
        "/v1/jobs/a/cancel",
    )
    assert (line["status"], line["log_level"]) == (404, "info")


def test_every_line_that_a_request_causes_says_which_and_of_which_job(
    api: Api, asked: dict[str, object]
) -> None:
    """Also those of other threads, later."""
    with capture_logs() as logs:
        named = {"x-request-id": "mine"}
        made = api.operator.post("/v1/jobs", json={**asked, "job_id": "j"}, headers=named)
        assert made.status_code == 202, made.text
        wait_until(lambda: api.services.jobs.record("j").listing_complete, 20)
        wait_until(lambda: not api.backend.lister._begun, 20)
        api.operator.post("/v1/jobs/j/cancel", headers=named)
        wait_until(lambda: "the job ended" in [line["event"] for line in logs], 20)
        api.operator.post("/v1/jobs/j/verify", headers=named)
        api.operator.post("/v1/jobs/j/nonsense", headers=named)
    assert {"listing", "the job ended", "answered a request"} <= {line["event"] for line in logs}
    assert {(line.get("request_id"), line.get("job")) for line in logs} == {("mine", "j")}


def test_a_job_that_is_none_yet_or_only_a_page_to_go_to(api: Api, asked: dict[str, object]) -> None:
    with capture_logs() as logs:
        for size in (2, 3):
            job = {**asked, "job_id": "j", "chunk_size": size}
            refused = api.operator.post("/v1/jobs", json=job)
        api.anybody.post("/login", data={"token": OPERATOR, "next": "/jobs/x"})
        api.operator.post("/v1/predict", files={"picture": b"x"}, data={"model": "m"})
    found = {
        (line["path"], line["status"]): line.get("job")
        for line in logs
        if line["event"] == "answered a request"
    }
    assert refused.status_code == 409
    assert str(found.pop(("/v1/predict", 404))).startswith("predict-")
    assert found == {("/v1/jobs", 202): "j", ("/v1/jobs", 409): "j", ("/login", 303): None}


def test_a_request_that_fails_says_of_which_job(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise RedisUnavailable("gone")

    monkeypatch.setattr(api.services.jobs, "snapshot", away)
    with capture_logs() as logs:
        assert api.viewer.get("/v1/jobs/j").status_code == 503
    (line,) = [line for line in logs if line["event"] == "a request failed"]
    assert line["job"] == "j"


@pytest.mark.parametrize("path", ["/v1/jobs/j/events", "/jobs/j/live"])
def test_how_long_somebody_listens_is_not_how_long_an_answer_takes(
    path: str, serve: Serve, tmp_path: Path
) -> None:
    api = serve(allowed=None, any_location=True)
    standing_job(api.services, a_spec("j", output=str(tmp_path)), rows=0)
    api.services.jobs.stop("j", JobState.CANCELLED, Reason.REQUESTED)
    api.services.finalizer.finalize("j")
    answer = api.viewer.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert api.viewer.get("/v1/jobs/j").status_code == 200
    text = api.viewer.get("/metrics").text
    found = {
        (sample.name, sample.labels["route"])
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("millrace_http_request") and "route" in sample.labels
    }
    route = path.replace("/j/", "/{job}/")
    assert ("millrace_http_requests_total", route) in found
    assert ("millrace_http_request_seconds_count", route) not in found
    assert ("millrace_http_request_seconds_count", "/v1/jobs/{job}") in found


def test_the_server_tells_its_own_memory(api: Api) -> None:
    text = api.viewer.get("/metrics").text
    (resident,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "millrace_server_process_resident_memory_bytes"
    ]
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.3)


def test_jobs_are_counted_by_state_and_what_is_no_job_s_by_none(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_metrics, "FRESH_S", -1.0)
    monkeypatch.setattr(fleet_metrics, "AT_ONCE", 2)
    fleet = FleetMetrics(services)
    for number in range(5):
        standing_job(services, a_spec(f"j{number}", output=str(tmp_path)), rows=4)
    services.redis.raw.hset(JobKeys("j0").record, "state", "succeeded")
    services.redis.raw.hset(JobKeys("j1").record, "state", "nonsense")
    services.redis.raw.delete(JobKeys("j2").record)
    found = values(fleet.samples())
    assert found["millrace_jobs", "succeeded"] == 1
    assert found["millrace_jobs", "running"] == 2
    assert found["millrace_pending_images", "tiny"] == 8
    assert found["millrace_jobs_unhealthy", "tiny", "no_workers"] == 2
    assert found["millrace_live_workers", "tiny"] == 0
    assert found["millrace_queue_chunks", "millrace.tiny"] == 0
    # An ended one is not asked for again, until it is time; one that is gone is gone.
    services.redis.raw.hset(JobKeys("j0").record, "state", "running")
    services.jobs.delete(services.jobs.spec("j3"))
    found = values(fleet.samples())
    assert found["millrace_jobs", "succeeded"] == 1
    assert found["millrace_jobs", "running"] == 1
    monkeypatch.setattr(fleet_metrics, "REMEMBERED_S", -1.0)
    assert values(fleet.samples())["millrace_jobs", "running"] == 2


def test_while_redis_is_away_only_that_is_told() -> None:
    nowhere = Services(Settings.load(redis_url="redis://127.0.0.1:1/0"))
    assert FleetMetrics(nowhere).samples() == [Sample(REDIS_UP, 0)]


def test_a_redis_that_hangs_holds_up_no_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read last is told for a while, then only that Redis is away."""
    monkeypatch.setattr(fleet_metrics, "FRESH_S", 0.0)
    monkeypatch.setattr(fleet_metrics, "WAIT_S", 0.2)
    monkeypatch.setattr(fleet_metrics, "STALE_S", 600)
    with MortalRedis() as redis:
        services = Services(Settings.load(redis_url=redis.url, redis_timeout_s=20))
        standing_job(services, a_spec("j", output=str(tmp_path)), rows=4)
        fleet = FleetMetrics(services)
        wait_until(lambda: ("millrace_jobs", "running") in values(fleet.samples()), 20)
        redis.freeze()
        began = time.monotonic()
        assert values(fleet.samples())["millrace_jobs", "running"] == 1
        assert time.monotonic() - began < 10
        monkeypatch.setattr(fleet_metrics, "STALE_S", 0)
        assert fleet.samples() == [Sample(REDIS_UP, 0)]
        monkeypatch.setattr(fleet_metrics, "STALE_S", 600)
        redis.thaw()
        standing_job(services, a_spec("k", output=str(tmp_path)), rows=4)
        wait_until(lambda: values(fleet.samples()).get(("millrace_jobs", "running")) == 2, 20)
        services.redis.close()
