"""What failed in a job, read from what it published."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.errors import CorruptRecord, ObjectNotFound
from millrace.core.jobdir import JobDirectory
from millrace.core.manifest import ManifestRow
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores
from millrace.producer.failed import failed_rows


@pytest.fixture
def stores() -> Stores:
    return Stores(StorageSettings.load())


@pytest.fixture
def job(tmp_path: Path) -> Location:
    return Location.parse(str(tmp_path))


def line(key: str, stage: str, code: str) -> bytes:
    failure = f'{{"stage":"{stage}","code":"{code}"}}'
    return f'{{"key":"{key}","etag":"1","error":{failure}}}\n'.encode()


def test_rows_come_in_the_order_of_the_manifest_and_forget_the_etag(
    stores: Stores, job: Location
) -> None:
    lines = [line("b", "fetch", "gone"), line("a", "decode", "bad"), line("é", "fetch", "gone")]
    JobDirectory(stores, job).put_errors(lines)
    assert list(failed_rows(stores, job, ())) == [ManifestRow(key) for key in ("b", "a", "é")]
    assert list(failed_rows(stores, job, ["gone", "decode/gone"])) == [
        ManifestRow(key) for key in ("b", "é")
    ]


def test_a_job_that_published_nothing_has_not_ended(stores: Stores, job: Location) -> None:
    with pytest.raises(ObjectNotFound, match=r"has no errors\.jsonl; it has not ended"):
        list(failed_rows(stores, job, ()))


def test_a_foreign_line_is_corrupt(stores: Stores, job: Location) -> None:
    JobDirectory(stores, job).put_errors([b"nonsense\n"])
    with pytest.raises(CorruptRecord):
        list(failed_rows(stores, job, ()))
