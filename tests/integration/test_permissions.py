"""Storage that refuses: a bucket the credentials may not list or write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.errors import AccessDenied
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.producer import submit

SET_UP_CALLS = 3


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedS3]:
    """An endpoint that authorises every request after the ones that set it up."""
    monkeypatch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", str(SET_UP_CALLS))
    with EmbeddedS3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        session = boto3.session.Session()
        session.client("s3").create_bucket(Bucket="closed")
        iam = session.client("iam")
        iam.create_user(UserName="nobody")
        key = iam.create_access_key(UserName="nobody")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield server


def test_a_bucket_that_may_not_be_listed_makes_no_job(
    refusing: EmbeddedS3, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(AccessDenied):
        submit("s3://closed/in", model="any", output=str(tmp_path / "out"), settings=settings)
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_may_not_be_written_makes_no_job(
    refusing: EmbeddedS3, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    with pytest.raises(AccessDenied):
        submit(str(tmp_path / "in"), model="any", output="s3://closed/out", settings=settings)


def test_objects_that_may_not_be_read_say_so(refusing: EmbeddedS3, settings: Settings) -> None:
    store = Stores(settings).open(Location.parse("s3://closed"))
    # Both ways to the bytes: obstore's, and boto3's for keys obstore cannot express.
    for key in ("a.jpg", "a//b.jpg"):
        with pytest.raises(AccessDenied):
            store.get(key)
