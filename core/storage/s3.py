"""S3 and what speaks it. obstore moves the bytes; boto3 knows the user's configuration.

boto3 resolves credentials, region and endpoint the way AWS users set them (environment,
profile, `AWS_ENDPOINT_URL`), lists, and fetches the keys obstore cannot express: obstore
normalises paths, so it rejects `a//b.jpg` and would answer for `/a.jpg` with `a.jpg`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

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
from millrace.core.storage.deadline import within
from millrace.core.storage.retry import retried
from millrace.core.storage.via_obstore import (
    ObstoreStore,
    client_options,
    obstore_can_express,
    retries,
)

_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_MISSING = {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}

_UNANSWERED = (
    TimeoutError,
    NoConnection,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
    HTTPError,
)
"""What is raised when a request got no answer, or half of one; not all of it is boto3's own."""

T = TypeVar("T")


class S3Store(Store):
    """One bucket. Opening it costs nothing; the first request finds region and credentials."""

    ordered = True

    def __init__(self, bucket: str, settings: StorageSettings) -> None:
        self._bucket = bucket
        self._settings = settings

    def __repr__(self) -> str:
        return f"S3Store({self._bucket!r})"

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        where = {"Prefix": prefix} | ({"StartAfter": after} if after else {})
        while True:
            page = self._ask(prefix, self._client.list_objects_v2, **where)
            for item in page.get("Contents", ()):
                yield ObjectInfo(item["Key"], item["Size"], item.get("ETag"))
            token = page.get("NextContinuationToken")
            if not token:
                return
            if token == where.get("ContinuationToken"):
                raise StorageUnavailable(f"s3://{self._bucket}/{prefix}: the listing has no end")
            where["ContinuationToken"] = token

    def head(self, key: str) -> ObjectInfo:
        answer = self._ask(key, self._client.head_object, Key=key)
        return ObjectInfo(key, answer["ContentLength"], answer.get("ETag"))

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        if obstore_can_express(key):
            return self._fast.get(key, if_match=if_match, max_bytes=max_bytes)
        return self._get(key, if_match, max_bytes)

    def _get(
        self, key: str, if_match: str | None, max_bytes: int | None = None, **more: str
    ) -> bytes:
        condition = {"IfMatch": if_match} if if_match else {}

        def read(**request: str) -> bytes:
            answer = self._client.get_object(**request)
            with answer["Body"] as body:
                refuse_larger(key, answer["ContentLength"], max_bytes)
                data: bytes = body.read()
                return data

        return self._ask(key, read, Key=key, **condition, **more)

    def blocks(self, key: str) -> Iterator[bytes]:
        if obstore_can_express(key):
            yield from self._fast.blocks(key)
            return
        info = self.head(key)
        for start in range(0, info.size, BLOCK_BYTES):
            last = min(start + BLOCK_BYTES, info.size) - 1
            yield self._get(key, info.etag, Range=f"bytes={start}-{last}")

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
        self._ask(key, self._client.delete_object, Key=key)

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        try:
            self._ask(key, self._client.put_object, Key=key, Body=data, **condition)
        except SourceChanged:
            # 412 is what both conditions answer; this one asked for nothing to be there.
            raise AlreadyExists(f"s3://{self._bucket}/{key} already exists") from None

    def _ask(self, key: str, call: Callable[..., T], **request: Any) -> T:
        """What boto3 answers to a request, tried again where that may help.

        Each try has the request timeout in all: boto3's own is for each read of the socket, so
        that an answer that trickles would never end.
        """

        def once() -> T:
            with self._translated(key):
                return within(
                    self._settings.storage_request_timeout_s,
                    lambda: call(Bucket=self._bucket, **request),
                )

        return retried(once, self._settings, _may_pass)

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
                # It is `_ask` that tries again: not also what it has given up.
                retries={"mode": "standard", "total_max_attempts": 1},
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

        def region(Bucket: str) -> str | None:  # noqa: N803
            try:
                answer = client.head_bucket(Bucket=Bucket)
            except ClientError as error:
                answer = error.response
                if "x-amz-bucket-region" not in answer["ResponseMetadata"]["HTTPHeaders"]:
                    raise
            told: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
            return told

        return self._ask("", region) or client.meta.region_name or "us-east-1"

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError, *_UNANSWERED) as error:
            raise translate(error, f"s3://{self._bucket}/{key}") from error


def translate(error: Exception, what: str) -> MillraceError:
    """The millrace error a boto3 error means."""
    if isinstance(error, NoCredentialsError):
        return _no_credentials()
    if isinstance(error, TimeoutError):
        return StorageUnavailable(f"{what}: no whole answer in time")
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


def _may_pass(error: StorageUnavailable) -> bool:
    """Whether the same request could fare better: boto3's own idea of it."""
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return isinstance(cause, _UNANSWERED)
    code = str(cause.response.get("Error", {}).get("Code", ""))
    status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
    return code == "RequestTimeout" or status == 429 or (status >= 500 and status != 501)


def _no_credentials() -> AccessDenied:
    return AccessDenied(
        "no AWS credentials were found",
        hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    )


def _is_aws(endpoint: str) -> bool:
    host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
