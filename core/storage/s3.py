"""S3 and what speaks it. obstore moves the bytes; boto3 knows the user's configuration.

boto3 resolves credentials, region and endpoint the way AWS users set them (environment,
profile, `AWS_ENDPOINT_URL`), lists, and fetches the keys obstore cannot express: obstore
normalises paths, so it rejects `a//b.jpg` and would answer for `/a.jpg` with `a.jpg`.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

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
from millrace.core.storage.base import BLOCK_BYTES, ObjectInfo, Store, refuse_larger
from millrace.core.storage.retry import retried
from millrace.core.storage.via_obstore import (
    ObstoreStore,
    client_options,
    obstore_can_express,
    retries,
)

_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_TRICKLE_BYTES = 16 * 1024
_LISTING_RETRIES = 5
"""boto3 waits up to 20 s between two tries: more of them look like a command that hangs."""

_MISSING = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}


class S3Store(Store):
    """One bucket. Opening it costs nothing; the first request finds region and credentials."""

    ordered = True

    def __init__(self, bucket: str, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._settings = settings

    def __repr__(self) -> str:
        return f"S3Store({self._bucket!r})"

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        start = {"StartAfter": after} if after else {}
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, **start
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
        return retried(lambda: self._get(key, if_match, max_bytes), self._settings)

    def _get(self, key: str, if_match: str | None, max_bytes: int | None) -> bytes:
        condition = {"IfMatch": if_match} if if_match else {}
        too_late = time.monotonic() + self._settings.storage_request_timeout_s
        with self._translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **condition)
            data = bytearray()
            with answer["Body"] as body:
                refuse_larger(key, answer["ContentLength"], max_bytes)
                # boto3's own timeout is for each read: a body that trickles would never end.
                while block := body.read(_TRICKLE_BYTES):
                    data += block
                    if time.monotonic() > too_late:
                        raise StorageUnavailable(f"s3://{self._bucket}/{key}: the body is too slow")
        return bytes(data)

    def blocks(self, key: str) -> Iterator[bytes]:
        if obstore_can_express(key):
            yield from self._fast.blocks(key)
            return
        with self._translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            body = answer["Body"]
            with body:
                yield from body.iter_chunks(BLOCK_BYTES)

    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        if obstore_can_express(key):
            self._fast.put(key, data)
        else:
            self._put(key, data if isinstance(data, bytes) else b"".join(data))

    def create(self, key: str, data: bytes) -> None:
        if obstore_can_express(key):
            self._fast.create(key, data)
        elif self._settings.storage_overwrite:
            self.create_by_looking(key, data)
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
            self._check_ca_bundle()
            try:
                client = self._new_client("auto")
                if "@" in client.meta.endpoint_url:
                    raise UsageError("the AWS endpoint URL must hold no credentials")
                # Hosts of their own (MinIO, SeaweedFS, moto) rarely resolve bucket.host.
                return client if _is_aws(client.meta.endpoint_url) else self._new_client("path")
            except ValueError as error:
                raise UsageError(f"the AWS configuration makes no sense: {error}") from error

    def _new_client(self, addressing: str, region: str | None = None) -> Any:
        settings = self._settings
        return self._session.client(
            "s3",
            region_name=region,
            config=Config(
                connect_timeout=settings.storage_connect_timeout_s,
                read_timeout=settings.storage_request_timeout_s,
                retries={
                    "mode": "standard",
                    "total_max_attempts": 1 + min(settings.storage_max_retries, _LISTING_RETRIES),
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
        region = self._region()
        endpoint = self._endpoint(region)
        options = client_options(settings)
        options["allow_http"] = endpoint.startswith("http://")
        bundle = self._ca_bundle
        if bundle:
            options["root_certificate"] = Path(bundle).read_bytes()
        try:
            provider = Boto3CredentialProvider(self._session)
        except ValueError as error:
            raise _no_credentials() from error
        store = ObstoreS3(
            self._bucket,
            credential_provider=provider,
            client_options=options,
            retry_config=retries(settings),
            region=region,
            endpoint=endpoint,
        )
        return ObstoreStore(store, f"s3://{self._bucket}", settings)

    @property
    def _ca_bundle(self) -> str | None:
        bundle: str | None = self._configuration.get_config_variable("ca_bundle")
        return bundle

    def _check_ca_bundle(self) -> None:
        """boto3 would find out at the first request, and call it a failed connection."""
        if self._ca_bundle:
            try:
                ssl.create_default_context(cafile=self._ca_bundle)
            except OSError as error:
                why = error.strerror or error
                raise UsageError(f"AWS_CA_BUNDLE {self._ca_bundle}: {why}") from error

    def _endpoint(self, region: str) -> str:
        """What boto3 would ask for a bucket of that region, whatever was configured."""
        client = self._client
        if client.meta.region_name != region and _is_aws(client.meta.endpoint_url):
            client = self._new_client("auto", region)
        # The partition's name stands for its first region in this one place of botocore.
        endpoint: str = client.meta.endpoint_url
        return endpoint.replace("aws-global", region)

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
    if isinstance(error, PartialCredentialsError | CredentialRetrievalError):
        return AccessDenied(str(error))
    if isinstance(error, ProfileNotFound | ConfigParseError):
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
