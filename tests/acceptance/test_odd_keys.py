"""Object keys a real bucket has, down to the strangest S3 allows."""

from __future__ import annotations

import io
import json

import boto3
from PIL import Image

from tests.job_checks import check_job
from tests.support import millrace, random_pixels

KEYS = [
    "in/plain.png",
    "in//twice.png",
    "in/../up.png",
    "in/./here.png",
    "in//",
    "in/ space and  more .png",
    "in/ünï/☃ 😀.png",
    "in/hash#question?.png",
    "in/percent%41%.png",
    "in/plus+and&equals=.png",
    "in/quote\"'`.png",
    "in/back\\slash.png",
    "in/<angle>|pipe*.png",
    "in/é.png",
    "in/é.png",
    "in/tab\there.png",
    "in/" + "k" * (1024 - len("in/")),
    "in/" + "deep/" * 200 + "x.png",
]


def test_every_key_s3_allows_is_predicted_under_its_own_name(
    s3_env: dict[str, str], bucket: str
) -> None:
    client = boto3.session.Session().client("s3")
    pixels = {}
    for n, key in enumerate(KEYS):
        file = io.BytesIO()
        Image.fromarray(random_pixels(n, (8, 8))).save(file, "PNG")
        pixels[key] = file.getvalue()
        client.put_object(Bucket=bucket, Key=key, Body=file.getvalue())
    # What S3 would answer for these keys if their path were tidied first.
    client.put_object(Bucket=bucket, Key="up.png", Body=b"the wrong object")
    client.put_object(Bucket=bucket, Key="in/twice.png", Body=b"the wrong object")
    done = millrace(
        *("run", f"s3://{bucket}/in", "--model", "tiny", "--out", f"s3://{bucket}/out"),
        *("--exclude", "twice.png", "--include", "**", "--layout", "per-image", "--json"),
        env=s3_env,
    )
    assert done.returncode in (0, 3), done.stderr
    status = json.loads(done.stdout)
    outcomes = check_job(f"s3://{bucket}/out/{status['job_id']}", status)
    by_key = {outcome["key"]: outcome for outcome in outcomes}
    expected = {key for key in KEYS if key not in ("in//twice.png",)}
    assert set(by_key) == expected
    failed = {key: by_key[key]["error"] for key in expected if "error" in by_key[key]}
    assert failed == {}
    prefix = f"out/{status['job_id']}/by-key/"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    copies = [item["Key"] for page in pages for item in page.get("Contents", ())]
    assert len(copies) == len(expected)
    found = {
        json.loads(client.get_object(Bucket=bucket, Key=copy)["Body"].read())["key"]
        for copy in copies
    }
    assert found == expected


def test_objects_that_are_empty_or_too_large_are_error_lines(
    s3_env: dict[str, str], bucket: str
) -> None:
    client = boto3.session.Session().client("s3")
    file = io.BytesIO()
    Image.fromarray(random_pixels(1, (8, 8))).save(file, "PNG")
    client.put_object(Bucket=bucket, Key="in/good.png", Body=file.getvalue())
    client.put_object(Bucket=bucket, Key="in/empty.png", Body=b"")
    client.put_object(Bucket=bucket, Key="in/folder/", Body=b"")
    client.put_object(Bucket=bucket, Key="in/large.png", Body=b"x" * 5000)
    done = millrace(
        *("run", f"s3://{bucket}/in", "--model", "tiny", "--out", f"s3://{bucket}/out", "--json"),
        env=s3_env | {"MILLRACE_MAX_OBJECT_BYTES": "4096"},
    )
    assert done.returncode == 3, done.stderr
    status = json.loads(done.stdout)
    outcomes = check_job(f"s3://{bucket}/out/{status['job_id']}", status)
    errors = {o["key"]: o["error"]["code"] for o in outcomes if "error" in o}
    assert errors == {"in/empty.png": "empty", "in/large.png": "too_large"}
    assert {o["key"] for o in outcomes} == {"in/good.png", "in/empty.png", "in/large.png"}
