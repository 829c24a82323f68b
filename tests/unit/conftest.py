"""Unit tests are quick: what is dear is made once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest

from millrace.cli.embedded_s3 import EmbeddedS3


@pytest.fixture(scope="session", autouse=True)
def one_loader() -> Iterator[None]:
    """botocore reads its description of S3 once, and not anew for every session."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda search_path: loader)
        yield


@pytest.fixture(scope="session")
def s3_client(s3_server: EmbeddedS3) -> Any:
    """boto3's own client, to prepare a bucket and look at it from outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        return boto3.session.Session().client("s3")


@pytest.fixture
def bucket(s3: EmbeddedS3, s3_client: Any) -> str:
    """A bucket of the test's own; one client makes them all, for a client costs more."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name
