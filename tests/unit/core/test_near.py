"""Names like the one that was asked for."""

from __future__ import annotations

from millrace.core.near import MOST, near


def test_the_same_last_part_goes_before_what_is_spelled_alike() -> None:
    names = ["input", "head/Softmax", "softmx", "conv"]
    assert near("Softmax", names) == ["head/Softmax", "softmx"]
    assert near("inptu", names) == ["input"]
    assert near("zzz", names) == []


def test_there_are_not_too_many() -> None:
    assert len(near("a", [f"layer_{number}/a" for number in range(20)])) == MOST
