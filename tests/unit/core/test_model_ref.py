"""`NAME` and `NAME:VERSION`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.errors import UsageError
from millrace.core.model_ref import ModelRef

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", fullmatch=True)


@given(names, st.none() | names)
def test_a_reference_is_read_back_as_it_was_written(name: str, version: str | None) -> None:
    ref = ModelRef(name, version)
    assert ModelRef.parse(str(ref)) == ref


def test_a_name_alone_pins_nothing() -> None:
    assert ModelRef.parse("resnet50") == ModelRef("resnet50", None)


def test_a_version_is_what_follows_the_colon() -> None:
    assert ModelRef.parse("resnet50:3") == ModelRef("resnet50", "3")


@pytest.mark.parametrize(
    "text", ["", ":", ":1", "a/b", "../a", ".hidden", "-a", "a b", "ä", "a" * 101, "a\x00", "a\n"]
)
def test_what_does_not_name_a_model_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="does not name a model") as caught:
        ModelRef.parse(text)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "text", ["a:", "a:b:c", "a:../1", "a:1/2", "a:" + "1" * 51, "a: 1", "a:1\n"]
)
def test_what_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a version"):
        ModelRef.parse(text)
