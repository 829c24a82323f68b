"""Bad input of every kind: one line, a named exit code, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

from millrace.core.errors import ExitCode
from tests.support import millrace, millrace_json, write_pngs


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pngs(tmp_path / "in", 5)


def refused(*arguments: str, env: dict[str, str], code: ExitCode, says: str) -> str:
    """Run a command that must fail with one line (and perhaps a hint)."""
    done = millrace(*arguments, env=env)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) <= 2, done.stderr
    return done.stderr


def test_a_missing_bucket_or_directory(s3_env: dict[str, str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    refused(
        *("enqueue", "s3://no-such-bucket/in", "--model", "tiny", "--out", out),
        env=s3_env,
        code=ExitCode.NOT_FOUND,
        says="no such bucket",
    )
    refused(
        *("enqueue", str(tmp_path / "nowhere"), "--model", "tiny", "--out", out),
        env=s3_env,
        code=ExitCode.NOT_FOUND,
        says="is not a directory",
    )
    assert millrace_json("jobs", env=s3_env) == []
    assert not (tmp_path / "out").exists()


def test_an_empty_prefix_is_a_failed_job(
    s3_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    done = millrace(
        *("enqueue", f"s3://{bucket}/nothing/", "--model", "tiny"),
        *("--out", f"s3://{bucket}/out", "--job-id", "empty", "--json"),
        env=s3_env,
    )
    assert done.returncode == ExitCode.NO_INPUTS
    status = json.loads(done.stdout)
    assert (status["state"], status["reason"]) == ("failed", "no_inputs")
    assert status["counts"]["total"] == 0
    assert millrace_json("status", "empty", env=s3_env)["terminal"]


def test_an_unknown_model(env: dict[str, str], images: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    said = refused(
        *("enqueue", str(images), "--model", "resnet", "--out", out),
        env=env,
        code=ExitCode.NOT_FOUND,
        says="no model 'resnet'",
    )
    assert "tiny" in said
    refused(
        *("enqueue", str(images), "--model", "tiny:9", "--out", out),
        env=env,
        code=ExitCode.NOT_FOUND,
        says="no version 9",
    )
    refused(
        *("enqueue", str(images), "--model", "../tiny", "--out", out),
        env=env,
        code=ExitCode.USAGE,
        says="does not name a model",
    )
    refused("worker", "--model", "resnet", env=env, code=ExitCode.NOT_FOUND, says="no model")


def test_a_model_that_does_not_load_stops_the_worker_without_a_retry_storm(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"junk")
    refused(
        *("worker", "--saved-model", str(tmp_path / "broken"), "--name", "broken"),
        *("--size", "8", "--processes", "1"),
        env=env,
        code=ExitCode.MODEL,
        says="does not load",
    )


def test_worker_facts_that_make_no_sense(env: dict[str, str], repository: Path) -> None:
    bundle = str(repository / "tiny" / "1")
    named = ["worker", "--saved-model", bundle, "--name", "x"]
    for extra, says in (
        (["--size", "big"], "input size"),
        (["--size", "8", "--scale", "loud"], "not a scale"),
        (["--size", "8", "--channels", "XYZ"], "CHANNELS"),
        (["--size", "8", "--input-op", "a"], "both an input and an output"),
        (["--size", "8", "--batch-size", "100000"], "BATCH_SIZE"),
    ):
        refused(*named, *extra, env=env, code=ExitCode.USAGE, says=says)
    refused("worker", env=env, code=ExitCode.USAGE, says="either a model")
    refused("worker", "--saved-model", bundle, env=env, code=ExitCode.USAGE, says="name")
    refused(
        *named,
        *("--size", "9", "--channels", "L"),
        env=env,
        code=ExitCode.MODEL,
        says="the card says",
    )
    refused(
        *named,
        *("--size", "8", "--channels", "L", "--tags", "myTag"),
        env=env,
        code=ExitCode.MODEL,
        says="no graph with the tags",
    )


def test_redis_that_is_not_there(images: Path, dead_port: int, tmp_path: Path) -> None:
    env = {"MILLRACE_REDIS_URL": f"redis://:secret@127.0.0.1:{dead_port}/0"}
    for command in (
        ["enqueue", str(images), "--model", "tiny", "--out", str(tmp_path / "out")],
        ["status", "some-job"],
        ["jobs"],
        ["workers"],
        ["results", "some-job"],
    ):
        said = refused(*command, env=env, code=ExitCode.UNAVAILABLE, says="cannot reach Redis")
        assert "secret" not in said
    done = millrace("doctor", env=env)
    assert done.returncode == ExitCode.CHECK_FAILED
    assert "cannot reach Redis" in done.stdout
    refused(
        "jobs",
        "--redis-url",
        "http://127.0.0.1",
        env={},
        code=ExitCode.USAGE,
        says="MILLRACE_REDIS_URL",
    )


def test_an_output_that_cannot_be_written(
    s3_env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(
        *("enqueue", str(images), "--model", "tiny", "--out", str(tmp_path / "file" / "out")),
        env=s3_env,
        code=ExitCode.NOT_FOUND,
        says="file",
    )
    refused(
        *("enqueue", str(images), "--model", "tiny", "--out", "s3://no-such-bucket/out"),
        env=s3_env,
        code=ExitCode.NOT_FOUND,
        says="no-such-bucket",
    )
    refused(
        *("enqueue", str(images), "--model", "tiny", "--out", str(images)),
        env=s3_env,
        code=ExitCode.USAGE,
        says="cannot be the input",
    )
    assert millrace_json("jobs", env=s3_env) == []


def test_patterns_urls_and_options_that_cannot_be_read(
    env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    start = ["enqueue", str(images), "--model", "tiny", "--out", str(tmp_path / "out")]
    for extra, says in (
        (["--include", "[a"], "opens a set"),
        (["--exclude", ""], "empty pattern"),
        (["--priority", "urgent"], "priority"),
        (["--layout", "tree"], "layout"),
        (["--job-id", "a/b"], "job_id"),
    ):
        refused(*start, *extra, env=env, code=ExitCode.USAGE, says=says)
    refused(
        *("enqueue", "ftp://host/in", "--model", "tiny", "--out", "out"),
        env=env,
        code=ExitCode.USAGE,
        says="unknown scheme",
    )
    assert millrace(*start, "--chunk-size", "0", env=env).returncode == ExitCode.USAGE
    assert millrace(*start, "--no-such-flag", env=env).returncode == ExitCode.USAGE


def test_a_malformed_manifest_names_its_line(
    env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "keys.jsonl"
    manifest.write_text('0.png\n{"key": "1.png"}\n{"key": 7}\n')
    refused(
        *("enqueue", str(images), "--model", "tiny", "--out", str(tmp_path / "out")),
        *("--manifest", str(manifest), "--job-id", "bad"),
        env=env,
        code=ExitCode.USAGE,
        says="keys.jsonl, line 3",
    )
    status = millrace_json("status", "bad", env=env)
    assert (status["state"], status["reason"]) == ("failed", "input_listing_failed")


def test_an_unknown_job(env: dict[str, str]) -> None:
    for command in (["status"], ["results"], ["errors"], ["status", "--watch"]):
        refused(*command, "no-such-job", env=env, code=ExitCode.NOT_FOUND, says="there is no job")
    done = millrace("status", "no-such-job", "--json", env=env)
    assert done.returncode == ExitCode.NOT_FOUND
    assert json.loads(done.stderr)["error"]["code"] == "job_not_found"


def test_the_same_job_id_is_the_same_job_or_a_conflict(
    env: dict[str, str], images: Path, tmp_path: Path
) -> None:
    start = ["enqueue", str(images), "--out", str(tmp_path / "out"), "--job-id", "mine"]
    first = millrace_json(*start, "--model", "tiny", env=env)
    again = millrace_json(*start, "--model", "tiny", env=env)
    assert again["job_id"] == first["job_id"] == "mine"
    assert again["created_at"] == first["created_at"]
    assert again["counts"]["total"] == 5
    assert len(millrace_json("jobs", env=env)) == 1
    refused(*start, "--model", "tiny", "--top-k", "2", env=env, code=ExitCode.CONFLICT, says="mine")


def test_a_bucket_without_permission(s3_env: dict[str, str], tmp_path: Path) -> None:
    env = s3_env | {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    env |= {"AWS_EC2_METADATA_DISABLED": "true"}
    refused(
        *("enqueue", "s3://any/in", "--model", "tiny", "--out", str(tmp_path / "out")),
        env=env,
        code=ExitCode.ACCESS_DENIED,
        says="no AWS credentials",
    )


def test_a_dry_run_finds_everything_and_enqueues_nothing(
    s3_env: dict[str, str], bucket: str
) -> None:
    client = boto3.session.Session().client("s3")
    for key in ("in/a.JPG", "in/b.png", "in/c.png", "in/readme", "out/mine/job.json"):
        client.put_object(Bucket=bucket, Key=key, Body=b"12345")
    start = ["enqueue", f"s3://{bucket}/in", "--model", "tiny", "--job-id", "mine", "--dry-run"]
    found = millrace_json(*start, "--out", f"s3://{bucket}/out", env=s3_env)
    assert found["images"] == 4
    assert found["bytes"] == 20
    assert found["chunks"] == 1
    assert found["types"] == {".png": 2, ".jpg": 1, "(none)": 1}
    assert found["first_keys"] == ["in/a.JPG", "in/b.png", "in/c.png", "in/readme"]
    assert found["standing"] == 1
    assert found["output_problem"] is None
    assert millrace_json("jobs", env=s3_env) == []
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert len(keys) == 5
    done = millrace(*start, "--out", "s3://no-such-bucket/out", env=s3_env)
    assert done.returncode == ExitCode.CHECK_FAILED
    assert "no-such-bucket" in done.stdout
