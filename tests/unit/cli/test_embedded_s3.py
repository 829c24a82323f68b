"""The private S3 endpoint."""

from __future__ import annotations

import boto3

from millrace.cli.embedded_s3 import EmbeddedS3


def test_its_environment_points_boto3_at_it(s3: EmbeddedS3) -> None:
    client = boto3.session.Session().client("s3")
    assert client.meta.endpoint_url == s3.endpoint
    assert isinstance(client.list_buckets()["Buckets"], list)


def test_its_environment_is_all_boto3_needs(s3_server: EmbeddedS3) -> None:
    assert set(s3_server.environment) == {
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
    }
