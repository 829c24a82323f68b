"""The stores under test: a directory, a memory and a bucket, which keep the same promises."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.settings import StorageSettings
from millrace.core.storage.base import Store
from millrace.core.storage.local import LocalStore
from millrace.core.storage.s3 import S3Store
from millrace.core.storage.via_obstore import ObstoreStore


@dataclass(frozen=True)
class Bucket:
    """A bucket behind real HTTP, and boto3's own client to look at it from outside."""

    name: str
    client: Any
    store: S3Store

    def put(self, key: str, data: bytes) -> str:
        """Write past the store; returns the ETag."""
        etag: str = self.client.put_object(Bucket=self.name, Key=key, Body=data)["ETag"]
        return etag

    def keys(self) -> list[str]:
        """Up to a thousand of them."""
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return [item["Key"] for item in found]

    def empty(self) -> None:
        while keys := self.keys():
            for key in keys:  # one by one: XML cannot name a key with control characters
                self.client.delete_object(Bucket=self.name, Key=key)


@pytest.fixture(scope="module")
def module_bucket(s3_server: EmbeddedS3, s3_client: Any) -> Iterator[Bucket]:
    """One bucket for a module: finding region and credentials anew costs more than a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        name = f"test-{uuid.uuid4().hex[:12]}"
        s3_client.create_bucket(Bucket=name)
        yield Bucket(name, s3_client, S3Store(name, StorageSettings.load()))


@pytest.fixture
def clean_bucket(module_bucket: Bucket) -> Iterator[Bucket]:
    yield module_bucket
    module_bucket.empty()


@pytest.fixture(params=["local", "memory", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if kind == "s3":
        bucket: Bucket = request.getfixturevalue("clean_bucket")
        return bucket.store
    return _in_this_process(kind, tmp_path, StorageSettings.load())


@pytest.fixture
def looking(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same, as for a store without conditional writes."""
    settings = StorageSettings.load(storage_overwrite=True)
    if kind == "s3":
        return S3Store(request.getfixturevalue("clean_bucket").name, settings)
    return _in_this_process(kind, tmp_path, settings)


def _in_this_process(kind: str, tmp_path: Path, settings: StorageSettings) -> Store:
    if kind == "memory":
        return ObstoreStore(MemoryStore(), "memory://test", settings)
    root = tmp_path / "store"
    root.mkdir()
    return LocalStore(str(root), settings)
