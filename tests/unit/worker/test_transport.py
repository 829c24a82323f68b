"""The transport, against a real Redis: whatever stands in the queue, the next message comes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Consumer

from millrace.core.celery_app import make_app, queue
from millrace.core.services import Services
from millrace.core.settings import Settings

NAME = "millrace.tiny"
WITHIN_S = 15


class Line:
    """A consumer behind millrace's transport, and the Redis list it drinks from."""

    def __init__(self, services: Services, settings: Settings) -> None:
        self.services = services
        self.redis = services.redis.raw
        self.taken: list[Any] = []
        app = make_app(settings, transport="millrace.worker.transport:Transport", queues=[NAME])
        self.connection = app.connection_for_read()
        self.consumer = Consumer(
            self.connection, [queue(NAME)], on_message=self.taken.append, accept=["json"]
        )
        self.consumer.qos(prefetch_count=1)
        self.consumer.consume()

    def close(self) -> None:
        self.consumer.cancel()
        self.connection.close()

    def put(self, entry: bytes) -> None:
        self.redis.lpush(NAME, entry)

    def send(self, chunk: int) -> None:
        """A real message, as Celery sends it."""
        self.services.queue.send(NAME, "job", [chunk])

    def next_chunk(self) -> int:
        """Drain until a chunk message arrives; what came before it is no message."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            try:
                self.connection.drain_events(timeout=0.5)
            except TimeoutError:
                continue
            while self.taken:
                message = self.taken.pop(0)
                message.ack()
                if message.headers and message.headers.get("task") == "millrace.predict_chunk":
                    chunk: int = message.payload[1]["chunk"]
                    return chunk
        raise AssertionError("the message behind it never came")


@pytest.fixture
def line(services: Services, settings: Settings) -> Iterator[Line]:
    made = Line(services, settings)
    yield made
    made.close()


PROPERTIES = {
    "correlation_id": "1",
    "delivery_mode": 2,
    "delivery_info": {"exchange": "", "routing_key": NAME},
    "priority": 0,
    "body_encoding": "base64",
    "delivery_tag": "1",
}


def envelope(**other: Any) -> bytes:
    """kombu's envelope around an empty body, some of it replaced."""
    basic = {
        "body": base64.b64encode(b"[]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {},
        "properties": PROPERTIES,
    }
    return json.dumps(basic | other).encode()


GARBAGE = {
    "empty": b"",
    "text": b"hello",
    "binary": b"\xff\xfe\x00\x80",
    "a list": b"[1, 2]",
    "a number": b"5",
    "null": b"null",
    "a string": b'"x"',
    "an empty object": b"{}",
    "a body alone": b'{"body": "x"}',
    "half an object": b'{"body": "x", "prop',
    "no base64": envelope(body="!"),
    "no body": envelope(body=None),
    "unknown encoding": envelope(properties=PROPERTIES | {"body_encoding": "rot13"}),
    "properties of a list": envelope(properties=[]),
    "no delivery info": envelope(properties=PROPERTIES | {"delivery_info": 5}),
    "no delivery tag": envelope(properties=PROPERTIES | {"delivery_tag": None}),
    "headers of a number": envelope(headers=5),
    "no content type": envelope(**{"content-type": None}),
    "a date that is none": b'{"__type__": "datetime", "__value__": "x"}',
    "a decimal that is none": b'{"__type__": "decimal", "__value__": "x"}',
    "a bad header value": envelope(headers={"a": {"__type__": "decimal", "__value__": "x"}}),
    "said to be compressed": envelope(headers={"compression": "application/x-gzip"}),
    "deeply nested": b"[" * 200_000,
    "a huge number": b"9" * 10_000,
}


@pytest.mark.parametrize("entry", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_dropped_and_the_next_message_comes(entry: bytes, line: Line) -> None:
    for _ in range(3):  # more than the prefetch count: garbage may cost no credit
        line.put(entry)
    line.send(7)
    assert line.next_chunk() == 7
    assert line.redis.llen(NAME) == 0


def test_no_run_of_garbage_uses_up_what_may_be_taken(line: Line) -> None:
    for chunk in range(2):
        for entry in GARBAGE.values():
            line.put(entry)
        line.send(chunk)
        assert line.next_chunk() == chunk


@pytest.mark.parametrize(
    "entry",
    [
        envelope(**{"content-type": "application/x-python-serialize"}),
        envelope(headers={"task": "somebody.elses"}),
        envelope(properties=PROPERTIES | {"delivery_info": {"routing_key": "no.queue.of.ours"}}),
    ],
    ids=["a pickle", "another task", "another queue"],
)
def test_twenty_messages_nobody_acknowledges_leave_the_consumer_consuming(
    line: Line, entry: bytes
) -> None:
    """kombu counts what was taken and is not acknowledged against the prefetch count, of one."""
    for _ in range(20):
        line.put(entry)
    line.send(7)
    deadline = time.monotonic() + WITHIN_S
    while len(line.taken) < 21 and time.monotonic() < deadline:
        line.connection.drain_events(timeout=WITHIN_S)
    assert line.taken[-1].payload[1]["chunk"] == 7
    assert line.redis.llen(NAME) == 0


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    entry=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["body", "headers", "properties", "x"]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    chunk=st.integers(0, 1000),
)
def test_no_entry_keeps_the_next_message_back(line: Line, entry: bytes, chunk: int) -> None:
    line.put(entry)
    line.send(chunk)
    assert line.next_chunk() == chunk


def test_messages_come_in_the_order_they_were_sent(line: Line) -> None:
    for chunk in range(5):
        line.send(chunk)
    assert [line.next_chunk() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_message_is_taken_for_good(services: Services, settings: Settings) -> None:
    """No `unacked` hash, nothing put back: a lease, not the queue, says who has a chunk."""
    line = Line(services, settings)
    line.send(1)
    deadline = time.monotonic() + WITHIN_S
    while not line.taken and time.monotonic() < deadline:
        line.connection.drain_events(timeout=WITHIN_S)
    assert len(line.taken) == 1
    assert line.redis.keys("*unacked*") == []
    line.close()  # without an acknowledgement
    assert line.redis.llen(NAME) == 0
    assert line.redis.keys("*unacked*") == []
