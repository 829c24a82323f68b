"""An image that kills the process is named and left out; everything else is predicted."""

from __future__ import annotations

from pathlib import Path

from tests.job_checks import check_job
from tests.support import millrace, millrace_json, running_worker, write_pngs

IMAGES = 60
POISON = "in/0031.png"

KILLER = '''
"""Imported by every Python that starts: opening the poisoned picture aborts the process."""
import io, os
import PIL.Image

honest = PIL.Image.open

def open_or_die(file, *args, **kwargs):
    if isinstance(file, io.BytesIO) and file.getvalue().endswith(b"POISON"):
        with open(os.environ["DEATHS"], "a") as deaths:
            deaths.write("died\\n")
        os.abort()
    return honest(file, *args, **kwargs)

PIL.Image.open = open_or_die
'''


def test_a_poisoned_image_is_named_and_the_rest_completes(
    tmp_path: Path, env: dict[str, str]
) -> None:
    write_pngs(tmp_path / "in", IMAGES, digits=4)
    with (tmp_path / POISON).open("ab") as picture:
        picture.write(b"POISON")
    (tmp_path / "killer").mkdir()
    (tmp_path / "killer" / "sitecustomize.py").write_text(KILLER)
    deaths = tmp_path / "deaths"
    deadly = env | {"PYTHONPATH": str(tmp_path / "killer"), "DEATHS": str(deaths)}
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
