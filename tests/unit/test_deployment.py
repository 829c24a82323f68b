"""The container files: no engine runs here, so they are checked against what they refer to."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml
from typer.main import get_command

from millrace.cli.main import app
from millrace.producer.http.server import GRACE_S
from tests.support import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def commands() -> dict[str, Any]:
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/redis/compose.yml"])
def test_the_compose_files_fit_the_compose_specification(file: str) -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(ROOT / file)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_guarded_redis_is_for_every_service_of_ours() -> None:
    guarded = yaml.safe_load((ROOT / "deploy/redis/compose.yml").read_text())["services"]
    assert set(guarded) == {"redis", *OURS}
    for name in OURS:
        role = "worker" if name.startswith("worker") else "producer"
        url = guarded[name]["environment"]["MILLRACE_REDIS_URL"]
        assert url.startswith(
            f"redis://millrace-{role}:${{REDIS_{role.upper()}_PASSWORD:?}}@redis:"
        )
    for volume in guarded["redis"]["volumes"]:
        source, target, _ = volume.split(":")
        assert target in (ROOT / "deploy/redis/redis.conf").read_text() + str(
            guarded["redis"]["command"]
        )
        assert (ROOT / source).exists() or source.endswith("users.acl")


def test_the_services_are_there() -> None:
    assert OURS == ["worker", "worker-gpu", "serve", "producer"]
    assert set(SERVICES) == {*OURS, "redis", "storage", "prometheus", "grafana"}
    # What has no profile comes up by itself.
    assert [name for name in SERVICES if "profiles" not in SERVICES[name]] == [
        "redis",
        "storage",
        "worker",
    ]


def test_prometheus_and_grafana_find_their_files_the_server_and_the_workers() -> None:
    for name in ("prometheus", "grafana"):
        assert SERVICES[name]["profiles"] == ["metrics"]
        assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"])
        for volume in SERVICES[name]["volumes"]:
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).is_file()
    (port,) = SERVICES["grafana"]["ports"]
    assert port.startswith("127.0.0.1:")
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (server,), (workers,) = (found["dns_sd_configs"] for found in config["scrape_configs"])
    assert server["names"] == ["serve"]
    assert SERVICES["serve"]["environment"]["MILLRACE_HTTP_PORT"] == server["port"]
    assert SERVICES["serve"]["environment"]["MILLRACE_METRICS_OPEN"] == "true"
    assert set(workers["names"]) == {"worker", "worker-gpu"}
    for name in workers["names"]:
        assert SERVICES[name]["environment"]["MILLRACE_METRICS_PORT"] == workers["port"]
    assert '".[${EXTRA},metrics]"' in DOCKERFILE


@pytest.mark.parametrize("name", ["redis", "storage"])
def test_images_of_others_are_pinned_and_keep_their_data(name: str) -> None:
    tag = SERVICES[name]["image"].rpartition(":")[2]
    assert tag != "latest"
    assert re.match(r"\d+\.\d+", tag)
    volumes = [volume.partition(":")[0] for volume in SERVICES[name]["volumes"]]
    assert volumes == [name]
    assert name in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_our_services_call_commands_that_exist(name: str) -> None:
    service = SERVICES[name]
    calls = [service["command"]]
    if "healthcheck" in service:
        kind, program, *check = service["healthcheck"]["test"]
        assert kind == "CMD"
        if program == "millrace":
            calls.append(check)
    for command, *arguments in calls:
        options = {option for param in commands()[command].params for option in param.opts}
        assert set(arguments) <= options


@pytest.mark.parametrize("name", OURS)
def test_our_services_set_only_variables_we_read(name: str) -> None:
    from millrace.core.settings import Settings
    from millrace.producer.http.settings import HttpSettings
    from millrace.worker.options import WorkerOptions

    known = {
        f"MILLRACE_{field.upper()}"
        for group in (Settings, HttpSettings, WorkerOptions)
        for field in group.model_fields
    }
    known |= {str(param.envvar) for c in commands().values() for param in c.params}
    ours = {v for v in SERVICES[name]["environment"] if v.startswith("MILLRACE_")}
    assert ours <= known
    assert {"MILLRACE_REDIS_URL", "MILLRACE_MODELS"} <= ours


@pytest.mark.parametrize("name", OURS)
def test_our_services_get_what_telling_the_ends_of_jobs_takes(name: str) -> None:
    environment = SERVICES[name]["environment"]
    for variable in ("SECRET", "HOSTS", "ALLOW_PRIVATE"):
        assert environment[f"MILLRACE_NOTIFY_{variable}"] is None  # as it is set outside


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_workers_are_scalable_checked_and_given_time_to_finish(name: str) -> None:
    worker = SERVICES[name]
    assert "container_name" not in worker
    assert "ports" not in worker
    assert seconds(worker["stop_grace_period"]) >= 120
    assert seconds(worker["healthcheck"]["start_period"]) >= 60
    for needed in ("redis", "storage"):
        assert worker["depends_on"][needed] == {"condition": "service_healthy"}
        assert SERVICES[needed]["healthcheck"]["test"][0] == "CMD"


def test_the_server_is_reached_from_this_machine_alone_and_brings_no_tensorflow() -> None:
    server = SERVICES["serve"]
    port = server["environment"]["MILLRACE_HTTP_PORT"]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert server["profiles"] == ["serve"]
    assert server["build"]["args"]["EXTRA"] == "http"
    assert server["image"] != SERVICES["worker"]["image"]
    assert not any("tensorflow" in need or "worker" in need for need in EXTRAS["http"])
    assert seconds(server["stop_grace_period"]) > GRACE_S


def test_redis_persists_and_does_not_evict() -> None:
    command = SERVICES["redis"]["command"]
    settings = dict(zip(command[1::2], command[2::2], strict=True))
    assert settings["--appendonly"] == "yes"
    assert settings["--maxmemory-policy"] == "noeviction"


def test_gpu_workers_reserve_a_device_and_bring_cuda() -> None:
    worker = SERVICES["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert worker["build"]["args"]["EXTRA"] == "gpu"
    assert any(need.startswith("tensorflow[and-cuda]") for need in EXTRAS["gpu"])


def test_the_storage_endpoint_is_the_storage_service() -> None:
    endpoint = SERVICES["worker"]["environment"]["AWS_ENDPOINT_URL"]
    assert "http://storage:8333" in endpoint
    assert "-s3.port=8333" in SERVICES["storage"]["command"]


def test_the_dockerfile_copies_what_it_installs_and_drops_root() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = set(packages["package-dir"].values())
    copied = {line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")}
    assert folders <= copied
    kept = set((ROOT / ".dockerignore").read_text().splitlines())
    assert {f"!{folder}" for folder in folders} <= kept
    for source in copied:
        assert (ROOT / source).exists()
    extra = re.search(r"^ARG EXTRA=(\w+)$", DOCKERFILE, re.MULTILINE)
    assert extra is not None
    assert extra.group(1) in EXTRAS
    assert re.search(r"^USER (?!root)", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["millrace"]' in DOCKERFILE
    assert re.search(r"^FROM python:3\.1\d-", DOCKERFILE, re.MULTILINE)
