"""The door: which store a location opens, and that it is opened once."""

from __future__ import annotations

import pytest

from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores
from millrace.core.storage.local import LocalStore
from millrace.core.storage.s3 import S3Store
from millrace.core.storage.via_obstore import ObstoreStore


@pytest.mark.parametrize(
    ("url", "kind"),
    [("/data", LocalStore), ("s3://photos/x", S3Store), ("memory://photos/x", ObstoreStore)],
)
def test_a_scheme_opens_its_store(url: str, kind: type) -> None:
    assert type(Stores(StorageSettings.load()).open(Location.parse(url))) is kind


@pytest.mark.parametrize("root", ["s3://photos", "memory://photos"])
def test_two_prefixes_of_a_bucket_share_a_store(root: str) -> None:
    stores = Stores(StorageSettings.load())
    one, other = (stores.open(Location.parse(f"{root}/{name}")) for name in ("a", "b"))
    assert one is other
    assert stores.open(Location.parse(f"{root}2")) is not one


def test_keys_start_at_the_root_and_not_at_the_prefix() -> None:
    stores = Stores(StorageSettings.load())
    stores.open(Location.parse("memory://photos/2024")).put("2024/a.jpg", b"one")
    assert stores.open(Location.parse("memory://photos")).get("2024/a.jpg") == b"one"
