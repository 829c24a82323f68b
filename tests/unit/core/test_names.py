"""Names that come from messages, specs, cards and people lead nowhere but where names lie."""

from __future__ import annotations

import pytest

from millrace.core.card import Card
from millrace.core.errors import BadMessage, CorruptRecord, ExitCode, UsageError
from millrace.core.job import JobSpec
from millrace.core.message import ChunkMessage
from millrace.core.model_ref import ModelRef
from tests.support import millrace
from tests.unit.core.support import a_spec

ODD = [
    *("../../x", "..", ".", "./x", "/etc/x", "~/x", "a/b", "a\\b", "a//b", "a/../b", ""),
    *("s3://b/m", "file:///x", "%2e%2e", "a%2fb", "$HOME", "a;b", "a b", " a", "a\n", "a\x00"),
    *("ａ", "a\u200b", "a\u202e", "\u0430", "a\u0301", "\u212a", "a\ud800", "-a", ".a", "x" * 200),
]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_no_odd_name_is_a_model_a_version_or_a_job(text: str) -> None:
    with pytest.raises(UsageError):
        ModelRef.parse(text)
    with pytest.raises(UsageError):
        ModelRef.parse(f"tiny:{text}")
    for fields in ({"name": text}, {"name": "tiny", "version": text}):
        with pytest.raises(UsageError):
            a_spec(model=fields)
        with pytest.raises(UsageError):
            Card.make(signature="s", height=1, width=1, **fields)
    with pytest.raises(UsageError):
        a_spec(text)
    with pytest.raises(BadMessage):
        ChunkMessage.read({"v": 1, "job": text, "chunk": 0})


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "s3://b/m", "ａ", "a\\n"])
def test_a_record_that_names_such_a_model_is_corrupt(name: str) -> None:
    text = a_spec().model_dump_json().replace('"name":"tiny"', f'"name":"{name}"')
    assert name in text
    with pytest.raises(CorruptRecord):
        JobSpec.from_json(text)


@pytest.mark.parametrize("command", ["worker", "enqueue"])
def test_the_command_line_refuses_them(command: str) -> None:
    source = ("in", "--out", "out") if command == "enqueue" else ()
    done = millrace(command, *source, "--model", "../../x", env={"MILLRACE_MODELS": "nowhere"})
    assert done.returncode == ExitCode.USAGE
    assert "does not name a model" in done.stderr
