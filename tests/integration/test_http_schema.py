"""Schemathesis over the server's own OpenAPI: whatever is sent, nothing is a 500, and every answer
is as documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import boto3
import httpx
import pytest

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.producer.client import Client
from tests.support import running_server, running_worker

pytestmark = pytest.mark.usefixtures("no_environment")

TOKEN = "an-operator-s-token-1234"
FOR_S = 25
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]

[[operations]]
include-operation-id = [
    "getJob", "streamResults", "streamErrors", "getVerification", "verifyJob", "watchJob",
]
parameters = { "path.job" = "mine" }
"""
"""A random name is hardly ever a job's; these are to meet one that is there. It has ended, so its
stream of events ends at once. That no worker answers in time is an answer."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


def test_whatever_is_sent_is_answered_as_documented(
    redis_url: str, repository: Path, s3: EmbeddedS3, bucket: str, tmp_path: Path
) -> None:
    env = {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_ALLOWED_LOCATIONS": f"s3://{bucket}",
        "MILLRACE_UPLOADS": f"s3://{bucket}/uploads",
        "MILLRACE_PREDICT_TIMEOUT_S": "20",
        "MILLRACE_OPERATOR_TOKEN": TOKEN,
        **s3.environment,
    }
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    store = boto3.session.Session().client("s3")
    with (
        running_worker("--model", "tiny", "--threads", "1", env=env, log=tmp_path / "worker.log"),
        running_server(env=env, log=tmp_path / "server.log") as server,
        Client(server.url, TOKEN) as client,
    ):
        for number in range(20):
            store.put_object(Bucket=bucket, Key=f"in/{number}.png", Body=b"no picture")
        source, output = f"s3://{bucket}/in", f"s3://{bucket}/out"
        client.submit(source, model="tiny", output=output, job_id="mine").wait(60, poll_s=0.05)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", ",".join(CHECKS)),
                *("--report", "ndjson", "--report-dir", str(tmp_path)),
                *("--max-time", str(FOR_S), "--max-examples", "40", "--seed", "7"),
                # Of one thread: two at once are in each other's way in Python 3.11's parser.
                *("--request-timeout", "30", "--workers", "1"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=FOR_S + 80,
            check=False,
        )
        alive = httpx.get(f"{server.url}/healthz", timeout=60)
        document = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
        log = server.log
    assert alive.status_code == 200
    assert "Traceback" not in log, log
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = tmp_path.glob("*.ndjson")
    assert reached(report) == {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }


def reached(report: Path) -> set[str]:
    """The operations that were sent what was made up."""
    events = map(json.loads, report.read_text().splitlines())
    ended = [event["ScenarioFinished"] for event in events if "ScenarioFinished" in event]
    return {
        scenario["recorder"]["label"]
        for scenario in ended
        if scenario["phase"] == "fuzzing" and scenario["status"] != "skip"
    }
