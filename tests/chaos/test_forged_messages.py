"""Workers with a message key run what their producers sent, and nothing that others did."""

from __future__ import annotations

from pathlib import Path

from tests.job_checks import check_job
from tests.support import (
    millrace,
    millrace_json,
    random_pixels,
    running_worker,
    wait_until,
    write_png,
)

KEY = {"MILLRACE_MESSAGE_KEY": "a key of sixteen characters"}


def test_a_worker_with_a_key_takes_signed_messages_only(
    tmp_path: Path, env: dict[str, str]
) -> None:
    write_png(tmp_path / "in" / "0.png", random_pixels(0, (8, 8)))
    enqueue = ("enqueue", str(tmp_path / "in"), "--model", "tiny", "--out", str(tmp_path / "out"))
    with running_worker("--model", "tiny", env=env | KEY, log=tmp_path / "log") as worker:
        forged = millrace_json(*enqueue, env=env)["job_id"]
        wait_until(lambda: "not signed with this worker's key" in worker.log, 90)
        signed = millrace_json(*enqueue, env=env | KEY)["job_id"]
        assert millrace("status", signed, "--watch", env=env).returncode == 0
        check_job(f"{tmp_path}/out/{signed}", millrace_json("status", signed, env=env))
        # The other job is in the record, so the reconciler sends its chunk itself, signed.
        assert millrace("status", forged, "--watch", env=env).returncode == 0
