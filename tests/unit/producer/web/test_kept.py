"""`Kept`: bounded, and each value made once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from millrace.producer.web.kept import Kept


def test_a_value_is_made_once_and_the_oldest_goes() -> None:
    made: list[int] = []
    kept: Kept[int, int] = Kept(2)

    def make(key: int) -> int:
        made.append(key)
        return key * 10

    def get(key: int) -> int:
        return kept.get(key, lambda: make(key))

    assert [get(1), get(2), get(1), get(3), get(1), get(2)] == [10, 20, 10, 30, 10, 20]
    assert made == [1, 2, 3, 2]


def test_what_is_looked_at_is_kept() -> None:
    kept: Kept[int, int] = Kept(2)
    for key in (1, 2):
        kept.get(key, lambda: 10)
    assert kept.peek(1) == 10
    kept.get(3, lambda: 10)
    assert [kept.peek(key) for key in (1, 2, 3)] == [10, None, 10]


def test_what_is_there_may_be_looked_at_without_waiting() -> None:
    kept: Kept[int, int] = Kept(4)
    assert kept.peek(1) is None
    with ThreadPoolExecutor(1) as pool:
        begun, gate = Barrier(2), Barrier(2)

        def make() -> int:
            begun.wait(10)
            gate.wait(10)
            return 10

        making = pool.submit(kept.get, 1, make)
        begun.wait(10)
        assert kept.peek(1) is None
        gate.wait(10)
        assert making.result(10) == kept.peek(1) == 10


def test_of_many_who_ask_at_once_one_makes_it() -> None:
    made: list[int] = []
    kept: Kept[str, int] = Kept(4)
    together = Barrier(8)

    def make(number: int) -> int:
        made.append(number)
        return number

    def ask(number: int) -> int:
        together.wait()
        return kept.get("it", lambda: make(number))

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, range(8)))
    assert found == set(made)
    assert len(made) == 1


def test_a_failure_is_not_kept() -> None:
    kept: Kept[str, int] = Kept(4)

    def fail() -> int:
        raise KeyError("no")

    with pytest.raises(KeyError):
        kept.get("it", fail)
    assert kept.get("it", lambda: 7) == 7
