"""A store that throttles, resets, truncates, stalls and loses answers: nothing is lost by it."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import boto3
import numpy as np
import numpy.typing as npt
from PIL import Image

from millrace.cli.embedded_s3 import EmbeddedS3
from tests.faults.s3_proxy import Asked, Cut, Fault, Slow, Stall, Withheld, s3_proxy
from tests.job_checks import check_job, check_predictions
from tests.support import (
    millrace,
    millrace_json,
    random_pixels,
    running_worker,
    wait_until,
)

CHUNK = 4
FOR_EVER = 1000

IMPATIENT = {
    "MILLRACE_STORAGE_REQUEST_TIMEOUT_S": "2",
    "MILLRACE_STORAGE_MAX_RETRIES": "4",
    "MILLRACE_STORAGE_RETRY_TIMEOUT_S": "15",
}


class Script:
    """What happens to the requests whose method and path match, one after another."""

    def __init__(self, faults: Mapping[tuple[str, str], Sequence[Fault | None]]) -> None:
        self._faults = faults
        self.asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Fault | None:
        for place, faults in self._faults.items():
            method, part = place
            if asked.method == method and part in asked.path:
                with self._lock:
                    turn = self.asked[place]
                    self.asked[place] += 1
                if turn < len(faults):
                    return faults[turn]
        return None

    def unplayed(self) -> list[tuple[str, str]]:
        """The places where not every fault has happened."""
        return [
            place
            for place, faults in self._faults.items()
            if len(faults) < FOR_EVER and self.asked[place] < len(faults)
        ]


def upload(bucket: str, number: int, *, seed: int | None = None, padding: int = 0) -> str:
    """Put a picture of random pixels, with so many idle bytes; returns its key."""
    key, file = f"in/{number:04d}.png", io.BytesIO()
    Image.fromarray(pixels_of(number if seed is None else seed)).save(file, "PNG")
    body = file.getvalue() + bytes(padding)
    boto3.session.Session().client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return key


def pixels_of(number: int) -> npt.NDArray[np.uint8]:
    return random_pixels(number, (8, 8))


def request(bucket: str) -> list[str]:
    source, out = f"s3://{bucket}/in", f"s3://{bucket}/out"
    return ["enqueue", source, "--model", "tiny", "--out", out, "--chunk-size", str(CHUNK)]


def objects(bucket: str, prefix: str) -> list[str]:
    found = boto3.session.Session().client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for item in found.get("Contents", ())]


def test_a_store_in_trouble_loses_nothing(
    s3: EmbeddedS3, bucket: str, repository: Path, env: dict[str, str], tmp_path: Path
) -> None:
    keys = [upload(bucket, n, padding=20_000 if n == 38 else 0) for n in range(48)]
    instead = Script(
        {
            ("GET", "list-type=2"): [503, Cut()],
            ("GET", "in/0003.png"): [503, 500],
            ("GET", "in/0010.png"): [Cut()],
            ("GET", "in/0024.png"): [Stall()],
            ("GET", "in/0031.png"): [503] * FOR_EVER,
            ("PUT", "job.json"): [Cut()],
            ("PUT", "manifest/part"): [503],
            ("GET", "manifest/part"): [Cut()],
            ("PUT", "chunk-0000000.jsonl"): [503],
            ("PUT", "chunk-0000001.jsonl"): [Cut()],
            # More than one commit tries: the chunk goes back, and runs again.
            ("PUT", "chunk-0000004.jsonl"): [503] * 6,
            ("PUT", "chunk-0000005.jsonl"): [Stall()],
            ("PUT", "_SUCCESS"): [Cut()],
        }
    )
    afterwards = Script(
        {
            ("GET", "list-type=2"): [Slow(10)],
            ("GET", "in/0017.png"): [Cut(20)],
            ("GET", "in/0038.png"): [Slow(1000)] * FOR_EVER,
            # Done, but the answer is lost.
            ("PUT", "manifest/complete"): [Cut()],
            ("PUT", "chunk-0000002.jsonl"): [Cut()],
            ("PUT", "chunk-0000003.jsonl"): [500],
            ("PUT", "summary.json"): [Cut()],
        }
    )
    with s3_proxy(s3.endpoint, instead=instead, afterwards=afterwards) as endpoint:
        troubled = env | s3.environment | IMPATIENT | {"AWS_ENDPOINT_URL": endpoint}
        job = millrace_json(*request(bucket), env=troubled)["job_id"]
        with running_worker("--model", "tiny", env=troubled, log=tmp_path / "log") as worker:
            watched = millrace("status", job, "--watch", env=troubled)
            assert watched.returncode == 3, watched.stderr + worker.log
    assert instead.unplayed() + afterwards.unplayed() == []

    # Seen without the proxy, as another reader would.
    env |= s3.environment
    outcomes = check_job(f"s3://{bucket}/out/{job}", millrace_json("status", job, env=env))
    assert [outcome["key"] for outcome in outcomes] == keys
    errors = {outcome["key"]: outcome["error"] for outcome in outcomes if "error" in outcome}
    assert sorted(errors) == [keys[31], keys[38]]
    for error in errors.values():
        assert (error["stage"], error["code"]) == ("fetch", "storage_unavailable")
        assert error["retryable"]
    check_predictions(
        repository / "tiny" / "1", outcomes, {key: pixels_of(n) for n, key in enumerate(keys)}
    )
    assert millrace_json("verify", job, env=env)["ok"]


def test_a_slow_object_holds_up_its_own_chunk_alone(
    s3: EmbeddedS3, bucket: str, repository: Path, env: dict[str, str], tmp_path: Path
) -> None:
    keys = [upload(bucket, n) for n in range(40)]
    waited_for = threading.Event()
    late = Script({("GET", keys[1]): [Withheld(waited_for)] * FOR_EVER})
    with s3_proxy(s3.endpoint, afterwards=late) as endpoint:
        env |= s3.environment | {"AWS_ENDPOINT_URL": endpoint}
        job = millrace_json(*request(bucket), env=env)["job_id"]
        results = f"out/{job}/results/"
        with running_worker("--model", "tiny", env=env, log=tmp_path / "log"):
            done = wait_until(lambda: (o := objects(bucket, results))[8:] and o, 90)
            assert len(done) == 9
            assert not any("chunk-0000000" in name for name in done)
            waited_for.set()
            assert millrace("status", job, "--watch", env=env).returncode == 0
    outcomes = check_job(f"s3://{bucket}/out/{job}", millrace_json("status", job, env=env))
    check_predictions(
        repository / "tiny" / "1", outcomes, {key: pixels_of(n) for n, key in enumerate(keys)}
    )


def test_objects_replaced_or_deleted_after_the_listing_are_told_apart(
    s3: EmbeddedS3, bucket: str, env: dict[str, str], tmp_path: Path
) -> None:
    keys = [upload(bucket, n) for n in range(8)]
    env |= s3.environment
    job = millrace_json(*request(bucket), env=env)["job_id"]
    upload(bucket, 2, seed=99)
    boto3.session.Session().client("s3").delete_object(Bucket=bucket, Key=keys[5])
    with running_worker("--model", "tiny", env=env, log=tmp_path / "log"):
        assert millrace("status", job, "--watch", env=env).returncode == 3
    outcomes = check_job(f"s3://{bucket}/out/{job}", millrace_json("status", job, env=env))
    codes = {o["key"]: o["error"]["code"] for o in outcomes if "error" in o}
    assert codes == {keys[2]: "source_changed", keys[5]: "not_found"}
    assert not any(o["error"]["retryable"] for o in outcomes if "error" in o)


def test_a_store_without_conditional_writes_is_refused_until_the_setting_says_so(
    s3: EmbeddedS3, bucket: str, env: dict[str, str], tmp_path: Path
) -> None:
    for n in range(8):
        upload(bucket, n)

    def knows_none(asked: Asked) -> Fault | None:
        return 501 if "If-None-Match" in asked.headers else None

    # A commit whose answer is lost: the next try finds its own object.
    lose_one = Script({("PUT", "chunk-0000001.jsonl"): [Cut()]})
    with s3_proxy(s3.endpoint, instead=knows_none, afterwards=lose_one) as endpoint:
        env |= s3.environment | IMPATIENT | {"AWS_ENDPOINT_URL": endpoint}
        refused = millrace(*request(bucket), env=env)
        assert refused.returncode == 5
        assert "MILLRACE_STORAGE_OVERWRITE=1" in refused.stderr
        env["MILLRACE_STORAGE_OVERWRITE"] = "1"
        job = millrace_json(*request(bucket), env=env)["job_id"]
        with running_worker("--model", "tiny", env=env, log=tmp_path / "log"):
            assert millrace("status", job, "--watch", env=env).returncode == 0
        assert lose_one.unplayed() == []
        assert millrace_json("verify", job, env=env)["ok"]
    check_job(f"s3://{bucket}/out/{job}", millrace_json("status", job, env=env))
