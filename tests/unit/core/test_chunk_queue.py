"""The queue on a real Redis: what is sent is seen waiting, and what is not ours is passed over."""

from __future__ import annotations

import base64
import json

import pytest

from millrace.cli.embedded_redis import EmbeddedRedis
from millrace.core.celery_app import make_app
from millrace.core.errors import AccessDenied, CorruptRecord
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.topology import PREDICT_CHUNK

QUEUE = "millrace.tiny"


def test_what_is_sent_is_seen_waiting(services: Services) -> None:
    assert services.queue.send(QUEUE, "job", range(3)) == 3
    assert services.queue.waiting(QUEUE) == {("job", 0), ("job", 1), ("job", 2)}
    assert services.queue.waiting("millrace.other") == set()


def test_nothing_to_send_sends_nothing(services: Services) -> None:
    assert services.queue.send(QUEUE, "job", []) == 0
    assert services.redis.raw.keys() == []


def test_a_message_is_a_json_reference_of_about_a_kilobyte(services: Services) -> None:
    services.queue.send(QUEUE, "j" * 128, [2**31 - 1])
    (entry,) = services.redis.raw.lrange(QUEUE, 0, -1)
    envelope = json.loads(entry)
    arguments, keywords, _ = json.loads(base64.b64decode(envelope["body"]))
    assert envelope["headers"]["task"] == PREDICT_CHUNK
    assert envelope["content-type"] == "application/json"
    assert (arguments, keywords) == ([], {"v": 1, "job": "j" * 128, "chunk": 2**31 - 1})
    assert len(entry) < 1500


def test_a_queue_is_one_list_and_leaves_nothing_else(services: Services) -> None:
    services.queue.send(f"{QUEUE}:1", "job", range(2))
    assert services.redis.raw.keys() == [f"{QUEUE}:1".encode()]


def test_a_chunk_sent_twice_is_seen_once(services: Services) -> None:
    for _ in range(2):
        services.queue.send(QUEUE, "job", [0])
    assert services.redis.raw.llen(QUEUE) == 2
    assert services.queue.waiting(QUEUE) == {("job", 0)}


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x80\x02}q\x00.",
        b"null",
        b"[]",
        b'"body"',
        b"{}",
        b'{"body":5}',
        b'{"body":"%%%"}',
        b'{"body":"bm90IEpTT04="}',
        json.dumps({"body": base64.b64encode(b"[]").decode()}).encode(),
        json.dumps({"body": base64.b64encode(b'[[],{"job":"x"},{}]').decode()}).encode(),
        json.dumps({"body": base64.b64encode(b"[[],null,{}]").decode()}).encode(),
        json.dumps({"body": base64.b64encode(b"\xff").decode()}).encode(),
    ],
)
def test_an_entry_that_is_not_ours_is_passed_over(services: Services, entry: bytes) -> None:
    services.queue.send(QUEUE, "job", [0])
    services.redis.raw.lpush(QUEUE, entry)
    services.queue.send(QUEUE, "job", [1])
    assert services.queue.waiting(QUEUE) == {("job", 0), ("job", 1)}


def test_a_wrong_password_is_refused(redis_server: EmbeddedRedis) -> None:
    settings = Settings.load(redis_url=f"redis://:wrong@127.0.0.1:{redis_server.port}/0")
    app = make_app(settings)
    app.conf.task_publish_retry_policy |= {"interval_start": 0, "interval_step": 0}
    with pytest.raises(AccessDenied, match="refused"):
        Services(settings, app).queue.send(QUEUE, "job", [0])


def test_a_queue_that_is_no_list_is_corrupt(services: Services) -> None:
    services.redis.raw.set(QUEUE, "not a list")
    with pytest.raises(CorruptRecord, match="WRONGTYPE") as caught:
        services.queue.send(QUEUE, "job", [0])
    password = services.settings.redis_url.get_secret_value().split("@")[0].rpartition(":")[2]
    assert password not in str(caught.value)


def test_with_a_key_only_what_is_signed_with_it_is_ours(redis_url: str) -> None:
    key = {"redis_url": redis_url, "message_key": "a key of sixteen"}
    ours, theirs = Services(Settings.load(**key)), Services(Settings.load(redis_url=redis_url))
    theirs.queue.send(QUEUE, "job", [0])
    ours.queue.send(QUEUE, "job", [1])
    assert ours.queue.waiting(QUEUE) == {("job", 1)}
    assert theirs.queue.waiting(QUEUE) == {("job", 0), ("job", 1)}


def test_what_is_hurried_is_taken_next_and_the_rest_keeps_its_order(services: Services) -> None:
    services.queue.send(QUEUE, "large", range(3))
    services.queue.send(QUEUE, "small", [0])
    services.redis.raw.lpush(QUEUE, "not ours")
    services.queue.hurry(QUEUE, "small")
    taken = []
    while entry := services.redis.raw.rpop(QUEUE):  # where workers take them
        if entry != b"not ours":
            keywords = json.loads(base64.b64decode(json.loads(entry)["body"]))[1]
            taken.append((keywords["job"], keywords["chunk"]))
    # Its first message is still there, and is dropped when it comes.
    assert taken == [("small", 0), ("large", 0), ("large", 1), ("large", 2), ("small", 0)]


def test_there_may_be_nothing_to_hurry(services: Services) -> None:
    services.queue.hurry(QUEUE, "job")
    assert services.redis.raw.keys() == []
