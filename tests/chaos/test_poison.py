"""An image that kills the process is named and left out; everything else is predicted."""

from __future__ import annotations

from pathlib import Path

from tests.faults.poison import POISON, killed_by_poison
from tests.job_checks import check_job
from tests.support import millrace, millrace_json, running_worker, write_pngs

IMAGES = 60
POISONED = "in/0031.png"


def test_a_poisoned_image_is_named_and_the_rest_completes(
    tmp_path: Path, env: dict[str, str]
) -> None:
    write_pngs(tmp_path / "in", IMAGES, digits=4)
    with (tmp_path / POISONED).open("ab") as picture:
        picture.write(POISON)
    deaths = tmp_path / "deaths"
    deadly = env | killed_by_poison(tmp_path / "killer", deaths)
    status = millrace_json(
        *("enqueue", str(tmp_path / "in"), "--model", "tiny", "--out", str(tmp_path / "out")),
        *("--chunk-size", "8"),
        env=env,
    )
    job = status["job_id"]
    with running_worker("--model", "tiny", env=deadly, log=tmp_path / "worker.log", ready=None):
        assert millrace("status", job, "--watch", env=env).returncode == 3
    assert len(deaths.read_text().splitlines()) <= 3
    outcomes = check_job(f"{tmp_path}/out/{job}", millrace_json("status", job, env=env))
    (failed,) = [outcome for outcome in outcomes if "error" in outcome]
    assert failed["key"] == "0031.png"
    assert failed["error"]["code"] == "worker_crashed"
    assert millrace("verify", job, env=env).returncode == 0
