"""`/metrics` of real workers and a real server, and what is made of them in `deploy/`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from millrace.core.errors import ExitCode
from millrace.core.metrics import METRICS, Kind
from tests.faults.redis_server import MortalRedis
from tests.support import (
    ROOT,
    RunningServer,
    RunningWorker,
    millrace,
    millrace_json,
    running_server,
    running_worker,
    wait_until,
    write_pngs,
)

pytestmark = pytest.mark.usefixtures("no_environment")

VIEWER = "a-viewer-s-token-1234"
IMAGES = 20
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/millrace.json"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_at(url: str, **headers: str) -> Samples:
    """What Prometheus would read there."""
    answer = httpx.get(f"{url}/metrics", timeout=60, headers=headers)
    answer.raise_for_status()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of this name that have these labels."""
    return sum(
        value
        for (sample, have), value in samples.items()
        if sample == name and labels.items() <= dict(have).items()
    )


def url_of(worker: RunningWorker) -> str:
    """Where a worker that logs JSON says that it serves its metrics."""
    lines = (json.loads(line) for line in worker.log.splitlines())
    (line,) = (line for line in lines if line["event"] == "serving metrics")
    return f"http://{line['address']}:{line['port']}"


@pytest.fixture
def env(redis_url: str, repository: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_VIEWER_TOKEN": VIEWER,
        "MILLRACE_ALLOWED_LOCATIONS": tmp_path.as_uri(),
    }


@pytest.fixture
def worker(env: dict[str, str], tmp_path: Path) -> Iterator[RunningWorker]:
    """Two processes, of which one has done a job with an error in it."""
    arguments = ("--model", "tiny", "--processes", "2", "--metrics-port", "0")
    log = tmp_path / "worker.log"
    with running_worker(*arguments, "--log-format", "json", env=env, log=log, ready=2) as running:
        write_pngs(tmp_path / "in", IMAGES)
        (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
        done = millrace(
            *("enqueue", str(tmp_path / "in"), "--model", "tiny", "--job-id", "j"),
            *("--out", str(tmp_path / "out"), "--chunk-size", "4"),
            env=env,
        )
        # It may have ended by then.
        assert done.returncode in (ExitCode.OK, ExitCode.COMPLETED_WITH_ERRORS), done.stderr
        wait_until(lambda: millrace_json("status", "j", env=env)["terminal"], 60)
        yield running


@pytest.fixture
def server(env: dict[str, str], tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(env=env, log=tmp_path / "server.log") as running:
        yield running


def test_one_address_tells_of_all_processes(worker: RunningWorker) -> None:
    samples = samples_at(url_of(worker))
    assert total(samples, "millrace_images_total", outcome="succeeded") == IMAGES
    broken = {"outcome": "failed", "stage": "decode", "code": "not_an_image", "model": "tiny"}
    assert total(samples, "millrace_images_total", **broken) == 1
    assert total(samples, "millrace_chunks_total", outcome="counted") == 6
    assert total(samples, "millrace_batch_images_sum") == IMAGES
    assert total(samples, "millrace_batch_images_count") == total(
        samples, "millrace_stage_seconds_count", stage="infer"
    )
    assert total(samples, "millrace_stage_seconds_count", stage="fetch") == IMAGES + 1
    assert total(samples, "millrace_stage_seconds_count", stage="decode") >= IMAGES
    assert total(samples, "millrace_stage_seconds_count", stage="write") == 6
    for number in ("0", "1"):
        assert total(samples, "millrace_worker_up", process=number) == 1
        assert total(samples, "millrace_worker_ready", process=number) == 1
        assert total(samples, "millrace_worker_restarts_total", process=number) == 0
        assert total(samples, "millrace_leases", process=number) == 0
        assert total(samples, "millrace_session_load_seconds", process=number) > 0
        assert total(samples, "millrace_worker_resident_memory_bytes", process=number) > 50e6
        info = {"model": "tiny", "version": "1", "precision": "float32", "process": number}
        assert total(samples, "millrace_worker_info", **info) == 1
    # It is asked for every few seconds.
    wait_until(lambda: total(samples_at(url_of(worker)), "millrace_queue_chunks") == 0, 60)


def test_a_process_that_is_killed_is_down_then_back_and_counted(worker: RunningWorker) -> None:
    url = url_of(worker)
    children = psutil.Process(worker.process.pid).children()
    first = next(child for child in children if "millrace.worker.process" in child.cmdline())
    os.kill(first.pid, signal.SIGKILL)

    def restarted() -> bool:
        samples = samples_at(url)
        ready = total(samples, "millrace_worker_ready")
        return total(samples, "millrace_worker_restarts_total") == 1 and ready == 2

    wait_until(lambda: total(samples_at(url), "millrace_worker_up") == 1, 20, "it is down")
    wait_until(restarted, 60, "it is back")


def test_while_redis_hangs_who_is_well_is_told_to_be(env: dict[str, str], tmp_path: Path) -> None:
    asked = {"authorization": f"Bearer {VIEWER}"}
    with MortalRedis() as redis, ExitStack() as stack:
        env = env | {"MILLRACE_REDIS_URL": redis.url}
        arguments = ("--model", "tiny", "--metrics-port", "0", "--log-format", "json")
        worker = stack.enter_context(running_worker(*arguments, env=env, log=tmp_path / "w.log"))
        server = stack.enter_context(running_server(env=env, log=tmp_path / "s.log"))
        url = url_of(worker)
        assert total(samples_at(server.url, **asked), "millrace_redis_up") == 1
        redis.freeze()
        try:
            for _ in range(3):
                began = time.monotonic()
                assert total(samples_at(url), "millrace_worker_up") == 1
                samples_at(server.url, **asked)
                assert time.monotonic() - began < 10  # Prometheus waits for ten seconds for each
            wait_until(lambda: total(samples_at(server.url, **asked), "millrace_redis_up") == 0, 40)
        finally:
            redis.thaw()
        wait_until(lambda: total(samples_at(server.url, **asked), "millrace_redis_up") == 1, 40)


def test_the_server_tells_of_jobs_and_of_itself(
    worker: RunningWorker, server: RunningServer, env: dict[str, str], tmp_path: Path
) -> None:
    asked = {"authorization": f"Bearer {VIEWER}"}
    assert httpx.get(f"{server.url}/metrics", timeout=60).status_code == 401
    millrace_json(
        *("enqueue", str(tmp_path / "in"), "--model", "nobodys", "--job-id", "waiting"),
        *("--out", str(tmp_path / "out")),
        env=env | {"MILLRACE_MODELS": ""},
    )
    for path in ("/v1/jobs/j", "/v1/jobs/waiting", "/v1/jobs/nobody", "/no/such/page"):
        httpx.get(server.url + path, headers=asked, timeout=60)
    samples = samples_at(server.url, **asked)
    assert total(samples, "millrace_jobs", state="completed_with_errors") == 1
    assert total(samples, "millrace_jobs") == 2
    assert total(samples, "millrace_pending_images", model="nobodys") == IMAGES + 1
    assert total(samples, "millrace_pending_images", model="tiny") == 0
    assert total(samples, "millrace_live_workers", model="tiny") == 2
    assert total(samples, "millrace_live_workers", model="nobodys") == 0
    assert total(samples, "millrace_jobs_unhealthy", model="nobodys", health="no_workers") == 1
    assert total(samples, "millrace_queue_chunks", queue="millrace.nobodys") == 1
    assert total(samples, "millrace_queue_leases") == 0
    assert total(samples, "millrace_redis_up") == 1
    requests = {"method": "GET", "route": "/v1/jobs/{job}"}
    routes = {dict(labels)["route"] for name, labels in samples if name.endswith("requests_total")}
    assert routes == {"/metrics", "/v1/jobs/{job}", "none"}, routes
    assert total(samples, "millrace_http_requests_total", **requests, status="200") == 2
    assert total(samples, "millrace_http_requests_total", **requests, status="404") == 1
    assert total(samples, "millrace_http_requests_total", route="none", status="404") == 1
    assert total(samples, "millrace_http_request_seconds_count", **requests) == 3
    assert total(samples, "millrace_http_requests_open") == 1
    assert total(samples, "millrace_server_process_resident_memory_bytes") > 20e6


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\bmillrace_[a-z_]+", text))


def expressions(part: Any) -> Iterator[str]:
    """Everything that is asked of Prometheus."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name in ("expr", "query") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(part, list):
        for each in part:
            yield from expressions(each)


def test_every_metric_that_rules_and_dashboard_name_is_exported(
    worker: RunningWorker, server: RunningServer
) -> None:
    workers = samples_at(url_of(worker))
    servers = samples_at(server.url, authorization=f"Bearer {VIEWER}")
    servers |= samples_at(server.url, authorization=f"Bearer {VIEWER}")  # with the first one
    exported = {name for name, _ in (workers | servers)}
    rules = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]
    asked = [rule["expr"] for rule in rules] + list(expressions(json.loads(DASHBOARD.read_text())))
    names = set().union(*map(named_in, asked))
    assert len(rules) >= 8
    assert len(names) > 20
    # Only a model that stood idle has waited.
    assert names - exported <= {"millrace_model_wait_seconds_total"}
    # Each metric is exported, or is of what did not happen.
    told = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported} | exported
    assert set(METRICS) - told <= {"millrace_model_wait_seconds_total"}


def test_the_dashboard_shows_every_metric() -> None:
    """Also those that may not be exported yet."""
    shown = named_in(DASHBOARD.read_text())
    for metric in METRICS.values():
        name = metric.name + ("_bucket" if metric.kind is Kind.HISTOGRAM else "")
        assert {name, f"{metric.name}_sum"} & shown, name


def test_the_dashboard_s_panels_are_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len(panels) > 15
    for panel in panels:
        assert panel["title"]
        assert panel["targets"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_the_rules_are_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, of Debian's package prometheus")
    for what, file in (("rules", RULES), ("config", ROOT / "deploy/prometheus/prometheus.yml")):
        done = subprocess.run(
            [promtool, "check", what, *(["--syntax-only"] if what == "config" else []), str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
