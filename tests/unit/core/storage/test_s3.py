"""S3 over real HTTP: the keys obstore cannot express, the buckets that are not there."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import (
    ClientError,
    ConfigParseError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.cli.embedded_server import free_port
from millrace.core.errors import (
    AccessDenied,
    AlreadyExists,
    CorruptRecord,
    MillraceError,
    ObjectNotFound,
    ObjectTooLarge,
    SourceChanged,
    StorageUnavailable,
    UsageError,
)
from millrace.core.settings import StorageSettings
from millrace.core.storage.base import Store
from millrace.core.storage.s3 import S3Store, translate
from millrace.core.storage.via_obstore import ObstoreStore, obstore_can_express
from tests.faults.s3_proxy import Asked, Cut, Fault, Rule, Slow, Stall, s3_proxy
from tests.unit.core.storage.conftest import Bucket

INEXPRESSIBLE = [
    "a//b.jpg",
    "../c.jpg",
    "x/../y.jpg",
    "/lead.jpg",
    "//two.jpg",
    "./x",
    "x/./y",
    "x/.",
    "x/..",
    ".",
    "..",
    "/",
    "folder/",
    "folder//",
    "control\x01.jpg",
    "tab\t.jpg",
    "carriage\r.jpg",
    "delete\x7f.jpg",
]

ASKS: dict[str, Callable[[Store], object]] = {
    "list": lambda store: list(store.list()),
    "head": lambda store: store.head("a"),
    "get": lambda store: store.get("a"),
    "get by boto3": lambda store: store.get("a//b"),
    "blocks": lambda store: list(store.blocks("a")),
    "put": lambda store: store.put("a", b""),
    "put a stream": lambda store: store.put("a", [b"1"]),
    "create": lambda store: store.create("a", b""),
    "delete": lambda store: store.delete("a"),
}


def impatient() -> StorageSettings:
    return StorageSettings.load(storage_max_retries=0)


@pytest.mark.parametrize("key", INEXPRESSIBLE)
def test_a_key_obstore_cannot_express_is_listed_and_read(clean_bucket: Bucket, key: str) -> None:
    etag = clean_bucket.put(key, b"here")
    store = clean_bucket.store
    (listed,) = store.list()
    assert (listed.key, listed.size, listed.etag) == (key, 4, etag)
    assert store.head(key) == listed
    assert store.get(key, if_match=etag, max_bytes=4) == b"here"
    assert list(store.blocks(key)) == [b"here"]
    with pytest.raises(SourceChanged):
        store.get(key, if_match='"0"')
    with pytest.raises(ObjectTooLarge):
        store.get(key, max_bytes=3)
    store.delete(key)
    assert clean_bucket.keys() == []


@pytest.mark.parametrize(
    ("asked", "standing"),
    [
        ("/a.jpg", "a.jpg"),
        ("//a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("a.jpg/", "a.jpg"),
        ("x/../a.jpg", "a.jpg"),
        ("a//b.jpg", "a/b.jpg"),
        ("a/./b.jpg", "a/b.jpg"),
        ("a%2Ejpg", "a.jpg"),
        ("a.jpg\x01", "a.jpg"),
        ("a.jpg", "/a.jpg"),
        ("a/b.jpg", "a//b.jpg"),
        ("a.jpg", "./a.jpg"),
    ],
)
def test_a_key_never_answers_with_the_bytes_of_another(
    clean_bucket: Bucket, asked: str, standing: str
) -> None:
    clean_bucket.put(standing, b"secret")
    store = clean_bucket.store
    for ask in (store.get, store.head, lambda key: list(store.blocks(key))):
        with pytest.raises(ObjectNotFound):
            ask(asked)
    store.delete(asked)
    assert clean_bucket.keys() == [standing]


@pytest.mark.parametrize("key", ["x" * 1024, "é" * 512, "a/" * 511 + "bc"])
def test_a_key_may_have_1024_bytes(clean_bucket: Bucket, key: str) -> None:
    clean_bucket.store.create(key, b"here")
    assert clean_bucket.keys() == [key]
    assert clean_bucket.store.get(key) == b"here"


@pytest.mark.parametrize(
    "key", ["a#b?c%41 d+e&f", "naïve/🦄", "e\u0301", "back\\slash", "~[]{}^|<>"]
)
def test_a_key_is_written_as_boto3_would_read_it(clean_bucket: Bucket, key: str) -> None:
    clean_bucket.store.put(key, b"here")
    assert clean_bucket.keys() == [key]
    answer = clean_bucket.client.get_object(Bucket=clean_bucket.name, Key=key)
    assert answer["Body"].read() == b"here"


@given(st.text(st.sampled_from("ab./\x01\x1f\x7f %é\\"), min_size=1, max_size=6))
def test_obstore_is_asked_only_for_keys_it_takes_verbatim(key: str) -> None:
    store = MemoryStore()
    via = ObstoreStore(store, "memory://test", StorageSettings.load())
    if obstore_can_express(key):
        via.create(key, b"")
        assert [item.key for item in via.list()] == [key]


def test_all_pages_of_a_listing_are_read(clean_bucket: Bucket) -> None:
    keys = [f"{number}.jpg" for number in range(8)]
    for key in keys:
        clean_bucket.put(key, b"")
    asked: list[dict[str, Any]] = []

    def three_keys_a_page(params: dict[str, Any], **_: object) -> dict[str, Any]:
        asked.append(params)
        return params | {"MaxKeys": 3}

    store = S3Store(clean_bucket.name, impatient())
    store._client.meta.events.register("provide-client-params.s3.ListObjectsV2", three_keys_a_page)
    assert [item.key for item in store.list()] == keys
    assert len(asked) == 3


@pytest.mark.parametrize("key", ["/out/job/job.json", "a//b.jpg"])
def test_a_key_obstore_cannot_express_is_written(clean_bucket: Bucket, key: str) -> None:
    """As of a job whose output has an empty segment."""
    store = clean_bucket.store
    store.create(key, b"first")
    with pytest.raises(AlreadyExists):
        store.create(key, b"second")
    assert store.get(key) == b"first"
    store.put(key, iter([b"thi", b"rd"]))
    assert store.get(key) == b"third"
    assert clean_bucket.keys() == [key]


def test_a_stream_that_fails_leaves_no_unfinished_upload(clean_bucket: Bucket) -> None:
    def lines() -> Iterator[bytes]:
        yield bytes(6_000_000)
        yield bytes(6_000_000)
        raise CorruptRecord("midway")

    with pytest.raises(CorruptRecord):
        clean_bucket.store.put("errors.jsonl", lines())
    answer = clean_bucket.client.list_multipart_uploads(Bucket=clean_bucket.name)
    assert "Uploads" not in answer


def test_a_name_no_bucket_can_have_is_an_error_of_ours(module_bucket: Bucket) -> None:
    store = S3Store("B ad", impatient())
    for ask in ASKS.values():
        with pytest.raises(MillraceError, match="B ad"):
            ask(store)


def test_a_missing_bucket_is_not_found(module_bucket: Bucket) -> None:
    name = f"missing-{uuid.uuid4().hex[:12]}"
    store = S3Store(name, impatient())
    for ask in ASKS.values():
        with pytest.raises(ObjectNotFound, match=name):
            ask(store)


def test_an_endpoint_that_does_not_answer_is_unavailable(
    module_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = S3Store("photos", impatient())
    for ask in ASKS.values():
        with pytest.raises(StorageUnavailable, match="s3://photos/"):
            ask(store)


BY_BOTO3: dict[str, Callable[[Store], object]] = {
    "list": lambda store: [item.key for item in store.list()],
    "head": lambda store: store.head("a//b").size,
    "get": lambda store: store.get("a//b"),
    "blocks": lambda store: b"".join(store.blocks("a//b")),
    "put": lambda store: store.put("a//b", b"again"),
    "create": lambda store: store.create("c//d", b"new"),
    "delete": lambda store: store.delete("a//b"),
}
"""What goes through boto3, of a bucket that holds `a//b`."""


@pytest.fixture
def troubled(
    clean_bucket: Bucket, s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., S3Store]]:
    """Opens the bucket behind a proxy; one retry."""
    clean_bucket.put("a//b", b"here" * 5)
    with ExitStack() as stack:

        def open_store(timeout_s: float = 20, **rules: Rule) -> S3Store:
            settings = StorageSettings.load(
                storage_max_retries=1, storage_request_timeout_s=timeout_s
            )
            endpoint = stack.enter_context(s3_proxy(s3.endpoint, **rules))
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            return S3Store(clean_bucket.name, settings)

        yield open_store


def once(fault: Fault) -> Rule:
    """A fault that happens to the first request alone."""
    left: list[Fault] = [fault]
    return lambda _: left.pop() if left else None


def patience_with(fault: Fault) -> float:
    """Little where it is to run out, seconds."""
    return 3 if isinstance(fault, Stall | Slow) else 20


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        *((verb, fault) for verb in BY_BOTO3 for fault in (503, Cut())),
        *(("list", fault) for fault in (429, 500, Stall())),
    ],
    ids=str,
)
def test_what_boto3_is_asked_is_tried_again(
    troubled: Callable[..., S3Store], clean_bucket: Bucket, verb: str, fault: Fault
) -> None:
    expected = BY_BOTO3[verb](clean_bucket.store)
    for key in ("a//b", "c//d"):
        clean_bucket.client.delete_object(Bucket=clean_bucket.name, Key=key)
    clean_bucket.put("a//b", b"here" * 5)
    assert BY_BOTO3[verb](troubled(patience_with(fault), instead=once(fault))) == expected


@pytest.mark.parametrize("verb", ["list", "get"])
@pytest.mark.parametrize("fault", [Cut(10), Slow(1)], ids=str)
def test_half_an_answer_is_asked_for_again(
    troubled: Callable[..., S3Store], clean_bucket: Bucket, verb: str, fault: Fault
) -> None:
    store = troubled(patience_with(fault), afterwards=once(fault))
    assert BY_BOTO3[verb](store) == BY_BOTO3[verb](clean_bucket.store)


@pytest.mark.parametrize(
    ("verb", "fault"),
    [*((verb, Stall()) for verb in BY_BOTO3), *((verb, Slow(10)) for verb in ("list", "get"))],
    ids=str,
)
def test_an_answer_that_never_ends_is_given_up(
    troubled: Callable[..., S3Store], verb: str, fault: Fault
) -> None:
    store = troubled(0.1, afterwards=lambda _: fault)
    started = time.monotonic()
    with pytest.raises(StorageUnavailable, match="s3://"):
        BY_BOTO3[verb](store)
    assert time.monotonic() - started < 15  # two tries, and a moment between them


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_what_would_be_answered_again_is_not_asked_again(
    troubled: Callable[..., S3Store], status: int
) -> None:
    asked = []

    def refuse(request: Asked) -> Fault:
        asked.append(request)
        return status

    with pytest.raises(MillraceError):
        list(troubled(instead=refuse).list())
    assert len(asked) == 1


@pytest.mark.parametrize("first", ["list", "get"])
def test_without_credentials_access_is_denied_with_a_hint(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3Store("photos", impatient())
    for ask in (ASKS[first], *ASKS.values()):
        with pytest.raises(AccessDenied, match="no AWS credentials") as caught:
            ask(store)
        assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")


def test_a_profile_that_is_not_there_is_a_usage_error(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    store = S3Store("photos", impatient())
    for ask in ASKS.values():
        with pytest.raises(UsageError, match="nobody"):
            ask(store)


@pytest.mark.parametrize("first", ["list", "get"])
def test_half_the_credentials_are_access_denied(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = S3Store("photos", impatient())
    for ask in (ASKS[first], *ASKS.values()):
        with pytest.raises(AccessDenied, match="missing: AWS_SECRET_ACCESS_KEY"):
            ask(store)


@pytest.mark.parametrize("url", ["garbage", "http://", "127.0.0.1:9000"])
def test_an_endpoint_that_is_no_url_is_a_usage_error(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    store = S3Store("photos", impatient())
    for ask in ASKS.values():
        with pytest.raises(UsageError, match=f"Invalid endpoint: {url}"):
            ask(store)


def test_a_configuration_that_cannot_be_parsed_is_a_usage_error(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "config"
    broken.write_text("[default\nregion")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(broken))
    store = S3Store("photos", impatient())
    for ask in ASKS.values():
        with pytest.raises(UsageError, match=str(broken)):
            ask(store)


@pytest.mark.parametrize("verb", ASKS)
def test_a_missing_bundle_of_certificates_is_a_usage_error(
    s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(UsageError, match=r"^AWS_CA_BUNDLE /nowhere/ca\.pem: No such file"):
        ASKS[verb](S3Store("photos", impatient()))


@pytest.mark.usefixtures("s3")
def test_a_bundle_that_holds_no_certificate_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("not PEM")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(UsageError, match=r"ca\.pem"):
        S3Store("photos", impatient()).get("a")


@pytest.fixture
def aws(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon's own endpoints, with nobody's configuration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment.items():
        if name != "AWS_ENDPOINT_URL":
            monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")


def asked_of_amazon(store: S3Store, region: str) -> tuple[str, str | None]:
    """The host boto3 asks for the bucket's region, and the endpoint obstore is told after that.

    Nothing leaves this machine: botocore's event answers what Amazon would.
    """
    asked: list[str] = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        asked.append(urlsplit(request.url).netloc)
        empty = urllib3.HTTPResponse(io.BytesIO(), preload_content=False)
        return AWSResponse(request.url, 200, {"x-amz-bucket-region": region}, empty)

    store._client.meta.events.register("before-send.s3.HeadBucket", answer)
    config: Any = store._fast._store.config  # type: ignore[union-attr]
    assert config["region"] == region
    (host,) = asked
    return host.removeprefix("photos."), config.get("endpoint")


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    "region", ["us-east-1", "eu-central-1", "ap-southeast-4", "us-gov-west-1", "mx-central-1"]
)
def test_obstore_is_told_the_usual_endpoint_of_a_region(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    host, endpoint = asked_of_amazon(S3Store("photos", impatient()), region)
    assert endpoint == f"https://{host}"
    assert host in (f"s3.{region}.amazonaws.com", "s3.amazonaws.com")


@pytest.mark.usefixtures("aws")
def test_a_bucket_elsewhere_is_asked_where_it_lies() -> None:
    """The configuration says us-east-1, Amazon says where the bucket is."""
    _, endpoint = asked_of_amazon(S3Store("photos", impatient()), "eu-central-1")
    assert endpoint == "https://s3.eu-central-1.amazonaws.com"


VPC = "https://bucket.vpce-1a2b3c4d-5e6f.s3.eu-west-1.vpce.amazonaws.com"


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("region", "variable", "value", "endpoint"),
    [
        ("eu-west-1", "AWS_ENDPOINT_URL", VPC, VPC),
        ("eu-west-1", "AWS_ENDPOINT_URL_S3", VPC, VPC),
        ("us-west-2", "AWS_USE_FIPS_ENDPOINT", "true", "https://s3-fips.us-west-2.amazonaws.com"),
        ("us-east-1", "AWS_USE_FIPS_ENDPOINT", "true", "https://s3-fips.us-east-1.amazonaws.com"),
        (
            "eu-west-1",
            "AWS_USE_DUALSTACK_ENDPOINT",
            "true",
            "https://s3.dualstack.eu-west-1.amazonaws.com",
        ),
        (
            "cn-north-1",
            "AWS_DEFAULT_REGION",
            "cn-north-1",
            "https://s3.cn-north-1.amazonaws.com.cn",
        ),
        (
            "cn-north-1",
            "AWS_USE_DUALSTACK_ENDPOINT",
            "true",
            "https://s3.dualstack.cn-north-1.amazonaws.com.cn",
        ),
    ],
)
def test_obstore_is_told_any_other_endpoint_of_amazon(
    monkeypatch: pytest.MonkeyPatch, region: str, variable: str, value: str, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv(variable, value)
    host, told = asked_of_amazon(S3Store("photos", impatient()), region)
    assert told == endpoint == f"https://{host}"


def test_opening_a_store_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert repr(S3Store("photos", impatient())) == "S3Store('photos')"


OWN_WORDS = (
    ConfigParseError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
"""About the configuration, whatever object was asked for."""


def a_client_error(code: str, status: int | None = None) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "…"}}
    if status is not None:
        answer["ResponseMetadata"] = {"HTTPStatusCode": status}
    return ClientError(answer, "GetObject")


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (a_client_error("NoSuchBucket", 404), ObjectNotFound),
        (a_client_error("NoSuchKey", 404), ObjectNotFound),
        (a_client_error("404", 404), ObjectNotFound),
        (a_client_error("NotFound", 404), ObjectNotFound),
        (a_client_error("AccessDenied", 403), AccessDenied),
        (a_client_error("403", 403), AccessDenied),
        (a_client_error("AllAccessDisabled", 403), AccessDenied),
        (a_client_error("InvalidAccessKeyId", 403), AccessDenied),
        (a_client_error("SignatureDoesNotMatch", 403), AccessDenied),
        (a_client_error("ExpiredToken", 400), AccessDenied),
        (a_client_error("Unauthorized", 401), AccessDenied),
        (a_client_error("PreconditionFailed", 412), SourceChanged),
        (a_client_error("412", 412), SourceChanged),
        (a_client_error("ConditionalRequestConflict", 409), AlreadyExists),
        (a_client_error("SlowDown", 503), StorageUnavailable),
        (a_client_error("InternalError", 500), StorageUnavailable),
        (a_client_error("", None), StorageUnavailable),
        (NoCredentialsError(), AccessDenied),
        (ProfileNotFound(profile="nobody"), UsageError),
        (ConfigParseError(path="/config"), UsageError),
        (PartialCredentialsError(provider="env", cred_var="X"), AccessDenied),
        (CredentialRetrievalError(provider="sso", error_msg="expired"), AccessDenied),
        (EndpointConnectionError(endpoint_url="http://x"), StorageUnavailable),
        (ReadTimeoutError(endpoint_url="http://x"), StorageUnavailable),
        (urllib3.exceptions.ProtocolError("reset"), StorageUnavailable),
        (ResponseParserError("no XML"), StorageUnavailable),
        (TimeoutError(), StorageUnavailable),
    ],
    ids=lambda value: str(value) if isinstance(value, Exception) else value.__name__,
)
def test_every_error_of_boto3_means_one_of_ours(
    error: Exception, meaning: type[MillraceError]
) -> None:
    found = translate(error, "s3://photos/a.jpg")
    assert type(found) is meaning
    assert isinstance(error, OWN_WORDS) or "s3://photos/a.jpg" in str(found)
