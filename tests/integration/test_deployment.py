"""The server of `docker-compose.yml`, without Docker: its command, environment and health check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.cli.embedded_server import free_port
from tests.support import MILLRACE, ROOT, running_server

pytestmark = pytest.mark.usefixtures("no_environment")

SERVE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][
    "serve"
]
OPERATOR = "an-operator-s-token-1234"


def environment(given: dict[str, str]) -> dict[str, str]:
    """What Compose makes of the service's variables, for somebody whose shell has these."""
    made = {}
    for name, written in SERVE["environment"].items():
        if written is None:
            if name in given:
                made[name] = given[name]
            continue
        made[name] = re.sub(
            r"\$\{(\w+):?-([^}]*)\}",
            lambda found: given.get(found.group(1), found.group(2)),
            str(written),
        )
    return made


def healthy(port: int) -> bool:
    _, program, *arguments = SERVE["healthcheck"]["test"]
    assert program == "python"
    port_of_ours = str(SERVE["environment"]["MILLRACE_HTTP_PORT"])
    assert any(f":{port_of_ours}/" in argument for argument in arguments)
    here = [argument.replace(f":{port_of_ours}/", f":{port}/") for argument in arguments]
    done = subprocess.run([sys.executable, *here], capture_output=True, check=False, timeout=30)
    return done.returncode == 0


def test_it_serves_with_a_token_is_found_healthy_and_is_scraped(
    redis_url: str, s3: EmbeddedS3, tmp_path: Path
) -> None:
    port = free_port()
    env = environment({"MILLRACE_OPERATOR_TOKEN": OPERATOR}) | s3.environment
    env |= {"MILLRACE_REDIS_URL": redis_url, "MILLRACE_HTTP_HOST": "127.0.0.1"}
    assert not healthy(port)
    (command,) = SERVE["command"]
    assert command == "serve"
    with running_server(env=env, log=tmp_path / "log", port=port) as server:
        assert healthy(port)
        get = partial(httpx.get, timeout=60)
        metrics = get(f"{server.url}/metrics")
        assert metrics.status_code == 200
        assert "millrace_redis_up 1.0" in metrics.text
        assert get(f"{server.url}/v1/jobs").status_code == 401
        bearer = {"authorization": f"Bearer {OPERATOR}"}
        assert get(f"{server.url}/v1/jobs", headers=bearer).json()["jobs"] == []
        asked = {"model": "tiny", "output": "s3://results"}
        for source, code in (
            ("s3://images/2026", "model_not_found"),
            ("s3://elsewhere", "location_not_allowed"),
        ):
            asked["source"] = source
            answer = httpx.post(f"{server.url}/v1/jobs", headers=bearer, json=asked, timeout=60)
            assert answer.json()["code"] == code
    assert not healthy(port)


def test_without_a_token_it_says_so_and_does_not_start(redis_url: str) -> None:
    env = {**os.environ, **environment({}), "MILLRACE_REDIS_URL": redis_url}
    done = subprocess.run(
        [*MILLRACE, "serve"], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "MILLRACE_OPERATOR_TOKEN" in done.stderr
