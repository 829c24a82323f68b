"""The README's blocks are run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from tests.support import ROOT, random_pixels, running_server, running_worker

README = (ROOT / "README.md").read_text()


def block(heading: str, language: str, number: int = 0) -> str:
    """The nth code block of a language under a heading."""
    section = README.split(f"### {heading}\n", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return blocks[number]


def write_photos(folder: Path) -> None:
    from PIL import Image

    folder.mkdir()
    for n in range(20):
        Image.fromarray(random_pixels(n, (30, 40, 3))).save(folder / f"{n:02d}.jpg")
    (folder / "notes.txt").write_text("left out by --include")
    (folder / "torn.jpg").write_bytes((folder / "00.jpg").read_bytes()[:500])


def test_the_five_things_people_do(tmp_path: Path, redis_url: str) -> None:
    env = {**os.environ, "MILLRACE_REDIS_URL": redis_url, "MILLRACE_MODELS": "bundles"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    write_photos(tmp_path / "photos")

    def python(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-"],
            input=code,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shell(code: str, *codes: int) -> str:
        done = subprocess.run(
            code, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode in (codes or (0,)), done.stderr
        return done.stdout

    shell(block("Export a model", "sh"))
    python(block("Export a model", "python"))
    assert "21 images" in shell(block("Enqueue a bucket", "sh"))
    program, *arguments = block("Scale", "sh").split()
    assert program == "millrace"
    assert arguments[0] == "worker"
    worker_env = env | {"MILLRACE_MODELS": str(tmp_path / "bundles")}
    with running_worker(*arguments[1:], env=worker_env, log=tmp_path / "worker.log", ready=2):
        watched = shell(block("Poll", "sh"), 3)
        assert "completed with errors" in watched
        polled = python(block("Poll", "python"))
    assert polled.splitlines()[-1] == "completed_with_errors 20 1"
    program, command, *arguments = block("Poll", "sh", 1).split()
    assert (program, command) == ("millrace", "serve")
    with running_server(*arguments, env=worker_env, log=tmp_path / "server.log") as server:
        with urlopen(f"{server.url}/v1/jobs/holiday") as answer:
            assert json.load(answer)["counts"]["succeeded"] == 20
        with urlopen(f"{server.url}/jobs/holiday") as page:
            assert "holiday" in page.read().decode()
    shell(block("Read the results", "sh"))
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == 22
    assert (tmp_path / "predictions" / "holiday" / "_SUCCESS").exists()


def test_the_variables_and_commands_the_readme_names_are_those_we_have() -> None:
    from typer.main import get_command

    from millrace.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    used = re.findall(r"^millrace (\w+) (.*)$", shell, re.MULTILINE)
    assert {name for name, _ in used} >= {
        "run",
        "enqueue",
        "worker",
        "status",
        "serve",
        "results",
        "errors",
    }
    for name, arguments in used:
        options = {option for param in commands[name].params for option in param.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", f" {arguments}")) <= options, name
    assert "make demo" in README
    assert "make test" in README
