"""S3 and what speaks it. obstore moves the bytes; boto3 knows the user's configuration.

boto3 resolves credentials, region and endpoint the way AWS users set them (environment,
profile, `AWS_ENDPOINT_URL`), lists, and fetches the keys obstore cannot express: obstore
normalises paths, so it rejects `a//b.jpg` and would answer for `/a.jpg` with `a.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound

from millrace.core.errors import (
    AccessDenied,
    AlreadyExists,
    MillraceError,
    ObjectNotFound,
    SourceChanged,
    StorageUnavailable,
    UsageError,
)
from millrace.core.settings import StorageSettings
from millrace.core.storage.base import ObjectInfo, Store, refuse_larger
from millrace.core.storage.via_obstore import ObstoreStore, obstore_can_express, timeouts

_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_MISSING = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}


class S3Store(Store):
    """One bucket. Opening it costs nothing; the first request finds region and credentials."""

    def __init__(self, bucket: str, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._settings = settings

    def __repr__(self) -> str:
        return f"S3Store({self._bucket!r})"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield ObjectInfo(item["Key"], item["Size"], item.get("ETag"))

    def head(self, key: str) -> ObjectInfo:
        with self._translated(key):
            answer = self._client.head_object(Bucket=self._bucket, Key=key)
        return ObjectInfo(key, answer["ContentLength"], answer.get("ETag"))

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        if obstore_can_express(key):
            return self._fast.get(key, if_match=if_match, max_bytes=max_bytes)
        condition = {"IfMatch": if_match} if if_match else {}
        with self._translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **condition)
            with answer["Body"] as body:
                refuse_larger(key, answer["ContentLength"], max_bytes)
                data: bytes = body.read()
        return data

    def blocks(self, key: str) -> Iterator[bytes]:
        if obstore_can_express(key):
            return self._fast.blocks(key)
        return iter((self.get(key),))

    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        if obstore_can_express(key):
            self._fast.put(key, data)
        else:
            self._put(key, data if isinstance(data, bytes) else b"".join(data))

    def create(self, key: str, data: bytes) -> None:
        if obstore_can_express(key):
            self._fast.create(key, data)
        elif self._settings.storage_overwrite:
            self._put(key, data)
        else:
            self._put(key, data, IfNoneMatch="*")

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        try:
            with self._translated(key):
                self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **condition)
        except SourceChanged:
            # 412 is what both conditions answer; this one asked for nothing to be there.
            raise AlreadyExists(f"s3://{self._bucket}/{key} already exists") from None

    @cached_property
    def _configuration(self) -> botocore.session.Session:
        return botocore.session.get_session()

    @cached_property
    def _session(self) -> boto3.session.Session:
        return boto3.session.Session(botocore_session=self._configuration)

    @cached_property
    def _client(self) -> Any:
        with self._translated(""):
            client = self._new_client("auto")
            # Hosts of their own (MinIO, SeaweedFS, moto) rarely resolve bucket.host.
            return client if _is_aws(client.meta.endpoint_url) else self._new_client("path")

    def _new_client(self, addressing: str) -> Any:
        settings = self._settings
        return self._session.client(
            "s3",
            config=Config(
                connect_timeout=settings.storage_connect_timeout_s,
                read_timeout=settings.storage_request_timeout_s,
                retries={
                    "mode": "standard",
                    "total_max_attempts": settings.storage_max_retries + 1,
                },
                s3={"addressing_style": addressing},
                max_pool_connections=32,
            ),
        )

    @cached_property
    def _fast(self) -> ObstoreStore:
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store as ObstoreS3

        settings = self._settings
        endpoint = self._client.meta.endpoint_url
        options: dict[str, Any] = timeouts(
            settings.storage_request_timeout_s, settings.storage_connect_timeout_s
        )
        config: dict[str, Any] = {"region": self._region()}
        if not _is_aws(endpoint):
            config["endpoint"] = endpoint
            options["allow_http"] = endpoint.startswith("http://")
        bundle = self._configuration.get_config_variable("ca_bundle")
        if bundle:
            options["root_certificate"] = Path(bundle).read_bytes()
        try:
            provider = Boto3CredentialProvider(self._session)
        except ValueError as error:
            raise _no_credentials() from error
        store = ObstoreS3(
            self._bucket,
            credential_provider=provider,
            client_options=options,  # type: ignore[arg-type]
            retry_config={
                "max_retries": settings.storage_max_retries,
                "retry_timeout": timedelta(seconds=settings.storage_retry_timeout_s),
            },
            **config,
        )
        return ObstoreStore(store, f"s3://{self._bucket}", overwrite=settings.storage_overwrite)

    def _region(self) -> str:
        """The bucket's region: AWS says it even to those who may not list."""
        client = self._client
        if not _is_aws(client.meta.endpoint_url):
            return client.meta.region_name or "us-east-1"
        with self._translated(""):
            try:
                answer = client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                answer = error.response
                if "x-amz-bucket-region" not in answer["ResponseMetadata"]["HTTPHeaders"]:
                    raise
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return headers.get("x-amz-bucket-region") or client.meta.region_name or "us-east-1"

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise translate(error, f"s3://{self._bucket}/{key}") from error


def translate(error: ClientError | BotoCoreError, what: str) -> MillraceError:
    """The millrace error a boto3 error means."""
    if isinstance(error, NoCredentialsError):
        return _no_credentials()
    if isinstance(error, ProfileNotFound):
        return UsageError(str(error))
    if not isinstance(error, ClientError):
        return StorageUnavailable(f"{what}: {error}")
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return ObjectNotFound(f"{what}: there is no such bucket")
    if code in _MISSING:
        return ObjectNotFound(f"{what} does not exist")
    if code in _DENIED or status in (401, 403):
        return AccessDenied(f"{what}: access denied ({code})")
    if code == "PreconditionFailed" or status == 412:
        return SourceChanged(f"{what} is no longer the object that was listed")
    if status == 409:
        return AlreadyExists(f"{what}: {code}")
    return StorageUnavailable(f"{what}: {code or error}")


def _no_credentials() -> AccessDenied:
    return AccessDenied(
        "no AWS credentials were found",
        hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    )


def _is_aws(endpoint: str) -> bool:
    host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
