"""What a worker accepts: chunk messages as Celery really sends them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, Signature
from celery.exceptions import InvalidTaskError
from kombu.exceptions import ContentDisallowed, DecodeError

from millrace.core.celery_app import make_app, queue
from millrace.core.message import ChunkMessage
from millrace.core.settings import Settings
from millrace.core.topology import PREDICT_CHUNK
from millrace.worker.intake import check

NAME = "millrace.tiny"
FIELDS = {"v": 1, "job": "digits-1", "chunk": 17}
DROPPED = (InvalidTaskError, DecodeError, ContentDisallowed)
"""What Celery's consumer answers by dropping the message."""


class Post:
    """A broker in memory: what Celery sends through it comes out as a real kombu message."""

    def __init__(self) -> None:
        self.app: Celery = make_app(Settings.load())
        self.app.conf.broker_url = "memory://"
        self.connection = self.app.connection_for_write()
        self.inbox = queue(NAME).bind(self.connection.default_channel)
        self.inbox.declare()

    def close(self) -> None:
        self.inbox.purge()
        self.connection.close()

    def task(self, fields: Any = FIELDS, name: str = PREDICT_CHUNK, **options: Any) -> Any:
        """A message sent by Celery."""
        producer = self.app.amqp.Producer(self.connection)
        self.app.send_task(name, kwargs=fields, queue=queue(NAME), producer=producer, **options)
        return self.inbox.get(accept=["json"])

    def raw(self, body: Any, **options: Any) -> Any:
        """A message sent by whoever else."""
        with self.connection.Producer() as producer:
            producer.publish(body, routing_key=NAME, exchange="", **options)
        return self.inbox.get(accept=["json"])


@pytest.fixture
def post() -> Iterator[Post]:
    made = Post()
    yield made
    made.close()


def test_a_chunk_message_is_accepted(post: Post) -> None:
    message = post.task()
    check(message)
    assert message.payload[1] == FIELDS


def test_what_the_producer_sends_is_accepted(post: Post) -> None:
    check(post.task(argsrepr="-", kwargsrepr="-"))


def link() -> Any:
    return Signature("evil.task", args=(1,), app=Celery(set_as_current=False))


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": 5},
        {"eta": datetime.now(UTC) + timedelta(hours=1)},
        {"expires": 60},
        {"expires": datetime.now(UTC) + timedelta(hours=1)},
        {"retries": 3},
        {"time_limit": 10},
        {"soft_time_limit": 10},
        {"group_id": "g"},
        {"shadow": "another name"},
        {"link": [link()]},
        {"link_error": [link()]},
        {"chord": link()},
        {"chain": [link()]},
        {"args": [1]},
        {"args": ["digits-1", 17]},
    ],
    ids=lambda options: "-".join(options),
)
def test_whatever_else_celery_could_do_is_refused(options: dict[str, Any], post: Post) -> None:
    with pytest.raises(InvalidTaskError):
        check(post.task(**options))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"v": 1, "job": "a"},
        {"v": 1, "chunk": 1},
        {"v": 2, "job": "a", "chunk": 1},
        {"v": 1, "job": "a", "chunk": "1"},
        {"v": 1, "job": "a", "chunk": 1.0},
        {"v": 1, "job": "a", "chunk": True},
        {"v": 1, "job": "a", "chunk": -1},
        {"v": 1, "job": "a", "chunk": 2**31},
        {"v": 1, "job": "a", "chunk": None},
        {"v": 1, "job": "", "chunk": 1},
        {"v": 1, "job": "../a", "chunk": 1},
        {"v": 1, "job": "a\n", "chunk": 1},
        {"v": 1, "job": "a:b", "chunk": 1},
        {"v": 1, "job": "a" * 129, "chunk": 1},
        {"v": 1, "job": ["a"], "chunk": 1},
        {"v": 1, "job": "a", "chunk": 1, "pixels": "…"},
    ],
    ids=str,
)
def test_fields_of_another_shape_are_refused(fields: dict[str, Any], post: Post) -> None:
    with pytest.raises(InvalidTaskError, match="not a chunk message"):
        check(post.task(fields))


@pytest.mark.parametrize(
    "body",
    [
        [],
        [[], FIELDS],
        [[], FIELDS, None],
        [[], FIELDS, []],
        [[], FIELDS, {}, {}],
        [[], None, {}],
        [[], [FIELDS], {}],
        [None, FIELDS, {"callbacks": ["x"]}],
        {"task": PREDICT_CHUNK, "id": "1", "args": [], "kwargs": FIELDS},
        {"a": 1, "b": 2, "c": 3},
        "text",
        5,
        None,
        "abc",
    ],
    ids=str,
)
def test_bodies_of_another_shape_are_refused(body: Any, post: Post) -> None:
    with pytest.raises(InvalidTaskError):
        check(post.raw(body, serializer="json", headers={"task": PREDICT_CHUNK, "id": "1"}))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{not json", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"cos\nsystem\n(S'true'\ntR.", "application/x-python-serialize"),
        (b"- a: b", "application/x-yaml"),
        (b"text", "text/plain"),
        (b"\x00\x01", "application/data"),
        (b"[" * 100_000, "application/json"),
    ],
    ids=["broken", "binary", "pickle", "yaml", "text", "data", "deep"],
)
def test_bodies_that_cannot_be_decoded_are_refused(body: bytes, kind: str, post: Post) -> None:
    headers = {"task": PREDICT_CHUNK}
    message = post.raw(body, content_type=kind, content_encoding="utf-8", headers=headers)
    with pytest.raises(DROPPED):
        check(message)


def test_no_headers_do_no_harm(post: Post) -> None:
    check(post.raw([[], FIELDS, {}], serializer="json"))


def test_the_check_reads_and_takes_nothing(post: Post) -> None:
    """A message that is refused is still there to be dropped by the consumer."""
    message = post.task(countdown=5)
    with pytest.raises(InvalidTaskError):
        check(message)
    assert not message.acknowledged


def test_with_a_key_only_signed_messages_are_accepted(post: Post) -> None:
    key = b"a key of sixteen"
    check(post.task(ChunkMessage(job="digits-1", chunk=17).fields(key)), key)
    for forged in (FIELDS, ChunkMessage(job="digits-1", chunk=17).fields(b"another sixteen!")):
        with pytest.raises(InvalidTaskError, match="not signed"):
            check(post.task(forged), key)
