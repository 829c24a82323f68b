"""The chunk message: small, versioned, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from millrace.core.errors import BadMessage
from millrace.core.message import ChunkMessage


def test_a_message_is_version_job_and_chunk() -> None:
    message = ChunkMessage(job="photos-1", chunk=17)
    assert message.fields() == {"v": 1, "job": "photos-1", "chunk": 17}


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True), st.integers(0, 2**31 - 1)
)
def test_a_message_survives_the_wire(job: str, chunk: int) -> None:
    message = ChunkMessage(job=job, chunk=chunk)
    assert ChunkMessage.read(orjson.loads(orjson.dumps(message.model_dump()))) == message


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"v": 1, "job": "a", "chunk": 0, "pixels": "…"}, "pixels"),
        ({"v": 2, "job": "a", "chunk": 0}, "v"),
        ({"v": "1", "job": "a", "chunk": 0}, "v"),
        ({"v": None, "job": "a", "chunk": 0}, "v"),
        ({"v": True, "job": "a", "chunk": 0}, "v"),
        ({"v": 1, "chunk": 0}, "job"),
        ({"v": 1, "job": "a"}, "chunk"),
        ({"v": 1, "job": "a", "chunk": True}, "chunk"),
        ({"v": 1, "job": "a", "chunk": "0"}, "chunk"),
        ({"v": 1, "job": "a", "chunk": 0.0}, "chunk"),
        ({"v": 1, "job": "a", "chunk": None}, "chunk"),
        ({"v": 1, "job": "a", "chunk": -1}, "chunk"),
        ({"v": 1, "job": "a", "chunk": 2**31}, "chunk"),
        ({"v": 1, "job": "a", "chunk": 10**30}, "chunk"),
        ({"v": 1, "job": 7, "chunk": 0}, "job"),
        ({"v": 1, "job": "", "chunk": 0}, "job"),
        ({"v": 1, "job": "a/b", "chunk": 0}, "job"),
        ({"v": 1, "job": "a:b", "chunk": 0}, "job"),
        ({"v": 1, "job": "{a}", "chunk": 0}, "job"),
        ({"v": 1, "job": "a\n", "chunk": 0}, "job"),
        ({"v": 1, "job": "a" * 129, "chunk": 0}, "job"),
        ({}, "job"),
        (None, "message"),
        ([], "message"),
        ("job", "message"),
        (b"\x80", "message"),
    ],
)
def test_anything_else_is_a_bad_message(fields: Any, at: str) -> None:
    with pytest.raises(BadMessage, match=f"^{at}: "):
        ChunkMessage.read(fields)


def test_a_message_cannot_be_changed() -> None:
    message = ChunkMessage(job="a", chunk=0)
    with pytest.raises(ValidationError):
        message.chunk = 1  # type: ignore[misc]


KEY, OTHER = b"a key of sixteen", b"another sixteen!"


def test_a_signed_message_is_read_with_its_key_alone() -> None:
    fields = ChunkMessage(job="job", chunk=3).fields(KEY)
    assert ChunkMessage.read(fields, KEY).chunk == 3
    assert ChunkMessage.read(fields).chunk == 3  # who has no key checks none
    with pytest.raises(BadMessage, match="not signed"):
        ChunkMessage.read(fields, OTHER)


@pytest.mark.parametrize(
    "forged", [{"chunk": 4}, {"job": "job2"}, {"mac": None}, {"mac": ""}, {"mac": "é"}]
)
def test_with_a_key_nothing_forged_is_taken(forged: dict[str, object]) -> None:
    fields = ChunkMessage(job="job", chunk=3).fields(KEY) | forged
    with pytest.raises(BadMessage, match="not signed"):
        ChunkMessage.read(fields, KEY)


def test_without_a_key_nothing_is_signed() -> None:
    assert ChunkMessage(job="job", chunk=3).fields() == {"v": 1, "job": "job", "chunk": 3}
