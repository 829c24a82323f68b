"""The S3 endpoint of the benchmarks, read by the client that millrace and peers use."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from benchmarks import services


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket" / "set"
    folder.mkdir(parents=True)
    for number in range(1100):
        (folder / f"{number:06d}.jpg").write_bytes(str(number).encode())
    return tmp_path


def client_of(environment: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )


@pytest.fixture
def client(root: Path) -> Iterator[Any]:
    with services.store(root, 0) as (environment, stop):
        yield client_of(environment)
        assert stop() > 0


def test_it_lists_page_by_page(client: Any) -> None:
    pages = list(client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="set/0"))
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    assert keys == [f"set/{number:06d}.jpg" for number in range(1100)]
    assert len(pages) == 2
    folders = client.list_objects_v2(Bucket="bucket", Delimiter="/")
    assert [one["Prefix"] for one in folders["CommonPrefixes"]] == ["set/"]


def test_it_gives_objects_whole_in_part_and_by_etag(client: Any) -> None:
    key = {"Bucket": "bucket", "Key": "set/000123.jpg"}
    answer = client.get_object(**key)
    assert answer["Body"].read() == b"123"
    assert answer["ETag"] == f'"{hashlib.md5(b"123").hexdigest()}"'
    assert client.head_object(**key)["ContentLength"] == 3
    assert client.get_object(**key, Range="bytes=1-")["Body"].read() == b"23"
    assert client.get_object(**key, IfMatch=answer["ETag"])["Body"].read() == b"123"
    with pytest.raises(ClientError, match="412"):
        client.get_object(**key, IfMatch='"other"')


def test_nothing_outside_its_directory_is_given(client: Any) -> None:
    for key in ("set/none.jpg", "../../etc/passwd"):
        with pytest.raises(ClientError, match=r"NoSuchKey|404"):
            client.get_object(Bucket="bucket", Key=key)


def test_latency_is_added_to_each_request(root: Path) -> None:
    with services.store(root, 50) as (environment, _):
        client = client_of(environment)
        begun = time.perf_counter()
        client.get_object(Bucket="bucket", Key="set/000000.jpg")
        assert time.perf_counter() - begun >= 0.05
