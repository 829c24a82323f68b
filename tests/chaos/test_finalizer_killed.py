"""A finalizer killed before or after any of its writes: another reader ends the job, whole."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.redis_client import RedisClient
from millrace.core.settings import Settings
from millrace.core.topology import JobKeys
from tests.chaos.crew import ready_pids
from tests.faults.s3_proxy import Asked, Fault, Stall, s3_proxy
from tests.job_checks import check_job
from tests.support import MILLRACE, millrace, millrace_json, running_worker, wait_until, write_pngs

WRITES = ["errors.jsonl", "summary.json", "_SUCCESS"]


class Holding:
    """Never answers the PUT of one object; says when it was asked for."""

    def __init__(self) -> None:
        self.name = ""
        self.asked = False

    def __call__(self, asked: Asked) -> Fault | None:
        if asked.method == "PUT" and self.name and asked.path.endswith(self.name):
            self.asked = True
            return Stall()
        return None

    def hold(self, name: str) -> None:
        self.name, self.asked = name, False

    def wait(self) -> None:
        wait_until(lambda: self.asked, 90, f"{self.name} is written")


def test_a_finalizer_killed_at_any_point_is_replaced(
    s3: EmbeddedS3, bucket: str, env: dict[str, str], tmp_path: Path
) -> None:
    write_pngs(tmp_path / "in", 6)
    (tmp_path / "in" / "6.png").write_bytes(b"no picture")
    env |= s3.environment
    redis = RedisClient(Settings.load(redis_url=env["MILLRACE_REDIS_URL"]))
    before, after = Holding(), Holding()
    with s3_proxy(s3.endpoint, instead=before, afterwards=after) as endpoint:
        held = env | {"AWS_ENDPOINT_URL": endpoint}
        enqueue = ("enqueue", str(tmp_path / "in"), "--model", "tiny")
        job = millrace_json(*enqueue, "--out", f"s3://{bucket}/out", env=env)["job_id"]
        before.hold(WRITES[0])
        with running_worker("--model", "tiny", env=held, log=tmp_path / "log") as worker:
            before.wait()
            worker.process.kill()  # first, or it would start another
            os.kill(ready_pids(worker.log)[-1], signal.SIGKILL)

        def let_the_lock_expire() -> None:
            assert redis.raw.delete(JobKeys(job).finalizer)

        let_the_lock_expire()
        for name in WRITES:
            for point in (before, after):
                point.hold(name)
                reader = subprocess.Popen(
                    [*MILLRACE, "status", job], env={**os.environ, **held}, stdout=subprocess.PIPE
                )
                point.wait()
                reader.kill()
                reader.communicate()
                point.hold("")
                let_the_lock_expire()
    status = millrace_json("status", job, env=env)
    assert status["state"] == "completed_with_errors"
    assert len(check_job(f"s3://{bucket}/out/{job}", status)) == 7
    assert millrace("verify", job, env=env).returncode == 0
    redis.close()
