"""What comes from Redis or a manifest reaches nothing that the job does not declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest

from millrace.core.errors import CorruptRecord, LocationNotAllowed, ObjectNotFound, SpecMismatch
from millrace.core.job import JobSpec
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow, encode_rows
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.core.topology import JobKeys, by_key_object, manifest_part
from millrace.producer import control
from millrace.producer.retry import retry
from millrace.producer.submit import submit
from tests.support import random_pixels, running_worker, wait_until, write_png

QUICK = {"MILLRACE_LEASE_S": "2", "MILLRACE_RECONCILE_S": "0.5", "MILLRACE_MAX_ATTEMPTS": "1"}


@pytest.fixture(scope="module")
def png(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("png") / "a.png"
    write_png(file, random_pixels(1, (8, 8)))
    return file.read_bytes()


@pytest.fixture
def env(redis_url: str, repository: Path) -> dict[str, str]:
    return {"MILLRACE_REDIS_URL": redis_url, "MILLRACE_MODELS": str(repository)} | QUICK


@pytest.fixture
def services(env: dict[str, str]) -> Services:
    return Services(
        Settings.load(redis_url=env["MILLRACE_REDIS_URL"], models=env["MILLRACE_MODELS"])
    )


def await_end(services: Services, job: str) -> None:
    wait_until(lambda: services.jobs.record(job).state.terminal, 20, f"the end of {job}")


def replace_manifest(services: Services, spec: JobSpec, keys: list[str]) -> None:
    """What somebody could do who may write to the job's directory, and to nothing else."""
    body = encode_rows([ManifestRow(key) for key in keys])
    directory = spec.directory
    services.stores.open(directory).put(directory.prefix + manifest_part(0), body)


def outcomes(services: Services, job: str) -> dict[str, str]:
    """Key → error code, or `ok`."""
    spec = services.jobs.spec(job)
    body = JobDirectory(services.stores, spec.directory).read_chunk(spec.plan, 0) or b""
    lines = [orjson.loads(line) for line in body.splitlines()]
    return {line["key"]: line["error"]["code"] if "error" in line else "ok" for line in lines}


def test_a_manifest_names_nothing_outside_the_input(
    services: Services, env: dict[str, str], s3: Any, bucket: str, png: bytes, tmp_path: Path
) -> None:
    client = boto3.session.Session().client("s3")
    s3_keys = ["in/a.png", "private/b.png", "in/../private/b.png", "../private/b.png"]
    s3_keys += ["/in/a.png", f"s3://{bucket}/private/b.png", "in", "in2/c.png", "IN/a.png"]
    for key in ("in/a.png", "private/b.png", "in2/c.png"):
        client.put_object(Bucket=bucket, Key=key, Body=png)
    root = tmp_path / "files"
    for name in ("in/a.png", "private/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png)
    (root / "in/link.png").symlink_to(root / "private/b.png")
    (root / "in/folder").symlink_to(root / "private")
    (root / "in/within.png").symlink_to("a.png")
    files = ["a.png", "../private/b.png", str(root / "private/b.png"), "x/../../private/b.png"]
    files += ["link.png", "folder/b.png", (root / "private/b.png").as_uri(), "within.png"]
    settings = services.settings
    submit(
        f"s3://{bucket}/in",
        model="tiny",
        output=f"s3://{bucket}/out",
        include=["a.png"],
        layout="per-image",
        job_id="on-s3",
        settings=settings,
    )
    submit(
        str(root / "in"),
        model="tiny",
        output=str(tmp_path / "out"),
        include=["a.png"],
        layout="per-image",
        job_id="on-disk",
        settings=settings,
    )
    for job, keys in (("on-s3", s3_keys), ("on-disk", files)):
        replace_manifest(services, services.jobs.spec(job), keys)
    with running_worker("--model", "tiny", env=env, log=tmp_path / "log"):
        for job in ("on-s3", "on-disk"):
            await_end(services, job)
    found = outcomes(services, "on-s3")
    assert found.pop("in/a.png") == "ok"
    # A key of S3 is no path: this one lies under `in/`, and there is no such object.
    assert found.pop("in/../private/b.png") == "not_found"
    assert set(found.values()) == {"outside_input"}
    assert outcomes(services, "on-disk") == {
        "a.png": "ok",
        "within.png": "ok",
        # Links are the word of whoever owns the directory.
        "link.png": "ok",
        "folder/b.png": "ok",
        **dict.fromkeys(files[1:4] + files[6:7], "not_found"),
    }
    # By-key copies carry every one of these names, and stay where they belong.
    for job, keys in (("on-s3", s3_keys), ("on-disk", files)):
        place = services.jobs.spec(job).directory
        items = services.stores.open(place).list(place.prefix)
        names = {item.key[len(place.prefix) :] for item in items}
        assert {name for name in names if name.startswith("by-key/")} == {
            by_key_object(key) for key in keys
        }
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.json*")}
    assert written == {"out"}


def tamper(services: Services, job: str, **fields: Any) -> JobSpec:
    """Change a job's spec in Redis alone."""
    spec = services.jobs.spec(job)
    changed = JobSpec.make(**(spec.model_dump() | fields))
    services.redis.raw.hset(JobKeys(job).record, "spec", changed.model_dump_json())
    return changed


def test_a_record_that_is_not_the_job_s_is_refused(
    services: Services, env: dict[str, str], png: bytes, tmp_path: Path
) -> None:
    for folder in ("in", "private"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png)
    (tmp_path / "theirs" / "out").mkdir(parents=True)
    jobs = ("reads", "writes", "moved", "good")
    for job in jobs:
        submit(
            str(tmp_path / "in"),
            model="tiny",
            output=str(tmp_path / "out"),
            job_id=job,
            settings=services.settings,
        )
    private = {"uri": Location.parse(str(tmp_path / "private")).uri}
    tamper(services, "reads", input=private)
    tamper(services, "writes", output=Location.parse(str(tmp_path / "theirs")).uri)
    # Nor does a job.json that asks for something else.
    moved = tamper(services, "moved", output=str(tmp_path / "theirs"), input=private)
    JobDirectory(services.stores, moved.directory).create_spec(
        services.jobs.spec("good").model_copy(update={"job_id": "moved"})
    )
    with running_worker("--model", "tiny", env=env, log=tmp_path / "log") as worker:
        for job in jobs:
            await_end(services, job)
        assert "in Redis is not what" in worker.log
    good = services.jobs.record("good")
    assert good.counts.succeeded == 1
    for job in ("reads", "writes", "moved"):
        record = services.jobs.record(job)
        assert (record.state, record.reason) == ("failed", "job_directory_unusable"), job
    assert not [*(tmp_path / "out").glob("*s/results/*")]
    theirs = [path for path in (tmp_path / "theirs").rglob("*") if path.is_file()]
    assert theirs == [tmp_path / "theirs/moved/job.json"]


def test_a_forged_job_directory_reaches_nothing_outside_the_allowed_places(
    services: Services, env: dict[str, str], png: bytes, tmp_path: Path
) -> None:
    """Of one who may write to Redis, and a `job.json` to go with it where workers can read."""
    for folder in ("in", "private"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png)
    ours, drop = str(tmp_path / "out"), str(tmp_path / "drop")
    private = {"uri": Location.parse(str(tmp_path / "private")).uri}
    jobs = ("reads", "writes", "both", "good")
    for job in jobs:
        submit(
            str(tmp_path / "in"), model="tiny", output=ours, job_id=job, settings=services.settings
        )
    for job, changed in (
        ("reads", {"input": private, "output": f"{ours}/of"}),
        ("writes", {"output": drop}),
        ("both", {"input": private, "output": drop}),
    ):
        forged = tamper(services, job, **changed)
        directory = JobDirectory(services.stores, forged.directory)
        directory.create_spec(forged)
        directory.create_part(0, [ManifestRow("a.png")])
        directory.confirm(forged)  # as good as a real one, to who is not told more
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    allowed = {"MILLRACE_ALLOWED_LOCATIONS": f"{tmp_path}/in {tmp_path}/out"}
    with running_worker("--model", "tiny", env=env | allowed, log=tmp_path / "log") as worker:
        for job in jobs:
            await_end(services, job)
        assert "MILLRACE_ALLOWED_LOCATIONS" in worker.log
    assert services.jobs.record("good").counts.succeeded == 1
    for job in ("reads", "writes", "both"):
        record = services.jobs.record(job)
        assert (record.state, record.reason) == ("failed", "job_directory_unusable"), job
    fresh = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.relative_to(tmp_path).parts[:2] for path in fresh} == {("log",), ("out", "good")}
    # Nor is anything of it deleted.
    settings = services.settings.model_copy(
        update={"allowed_locations": allowed["MILLRACE_ALLOWED_LOCATIONS"]}
    )
    with pytest.raises(LocationNotAllowed):
        control.delete(Services(settings), "both", outputs=True)
    assert before <= {*tmp_path.rglob("*")}


def test_nothing_is_deleted_that_is_not_the_job_s(
    services: Services, png: bytes, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "precious" / "j").mkdir(parents=True)
    (tmp_path / "precious" / "j" / "kept").touch()
    submit(
        str(tmp_path / "in"),
        model="tiny",
        output=str(tmp_path / "out"),
        job_id="j",
        settings=services.settings,
    )
    assert services.jobs.record("j").state.terminal
    tamper(services, "j", output=str(tmp_path / "precious"))
    with pytest.raises(ObjectNotFound):
        control.delete(services, "j", outputs=True)
    with pytest.raises(ObjectNotFound):
        retry(services, "j")
    tamper(services, "j", output=str(tmp_path / "out"), input={"uri": "file:///"})
    with pytest.raises(SpecMismatch):
        control.delete(services, "j", outputs=True)
    with pytest.raises(SpecMismatch):
        retry(services, "j")
    assert (tmp_path / "precious/j/kept").exists()
    assert (tmp_path / "out/j/job.json").exists()


def test_a_record_under_another_job_s_name_is_corrupt(services: Services, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    out = str(tmp_path / "out")
    submit(str(tmp_path / "in"), model="tiny", output=out, job_id="j", settings=services.settings)
    services.redis.raw.copy(JobKeys("j").record, JobKeys("k").record)
    for read in (services.jobs.record, services.jobs.spec, services.jobs.snapshot):
        with pytest.raises(CorruptRecord, match="holds the spec of j"):
            read("k")
