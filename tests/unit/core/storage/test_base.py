"""What every store promises, asked of each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from millrace.core.errors import (
    AlreadyExists,
    BadLocation,
    CorruptRecord,
    MillraceError,
    ObjectNotFound,
    ObjectTooLarge,
    SourceChanged,
)
from millrace.core.storage.base import BLOCK_BYTES, Store, refuse_larger

ODD_KEYS = [
    "plain.jpg",
    "with space.jpg",
    "a#b.jpg",
    "a?b=c&d.jpg",
    "100%41.jpg",
    "a%2Fb.jpg",
    "a+b.jpg",
    "naïve/日本/🦄.jpg",
    "e\u0301.jpg",
    "é.jpg",
    "back\\slash.jpg",
    "quote\"'`.jpg",
    "a,b;c:d@e=f.jpg",
    "~tilde[1]{2}^|<>.jpg",
    ".hidden",
    "..two",
    "a...",
    "line\u2028separator",
    "/".join(["d" * 100] * 10) + "/" + "e" * 14,
]


def test_what_was_created_is_read_back(store: Store) -> None:
    store.create("a/b.jsonl", b"one")
    assert store.get("a/b.jsonl") == b"one"


def test_the_first_writer_wins_and_the_second_is_told(store: Store) -> None:
    store.create("a", b"first")
    with pytest.raises(AlreadyExists):
        store.create("a", b"second")
    assert store.get("a") == b"first"


def test_without_conditional_writes_the_first_writer_wins_too(looking: Store) -> None:
    looking.create("a/b", b"first")
    with pytest.raises(AlreadyExists):
        looking.create("a/b", b"second")
    assert looking.get("a/b") == b"first"


def test_an_empty_object_counts_as_standing(store: Store) -> None:
    store.create("_SUCCESS", b"")
    with pytest.raises(AlreadyExists):
        store.create("_SUCCESS", b"x")
    assert store.get("_SUCCESS") == b""


def test_of_many_writers_at_once_exactly_one_wins(store: Store) -> None:
    won: list[bytes] = []
    told: list[bytes] = []
    barrier = threading.Barrier(8)

    def write(data: bytes) -> None:
        barrier.wait()
        try:
            store.create("contested", data)
            won.append(data)
        except AlreadyExists:
            told.append(data)

    threads = [threading.Thread(target=write, args=(b"%d" % n * 1000,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(told)) == (1, 7)
    assert store.get("contested") == won[0]


def test_put_overwrites(store: Store) -> None:
    store.put("a", b"first, and longer")
    store.put("a", b"second")
    assert store.get("a") == b"second"


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.get("a/missing"),
        lambda store: store.get("a/missing", if_match='"1"', max_bytes=1),
        lambda store: store.head("a/missing"),
        lambda store: list(store.blocks("a/missing")),
    ],
    ids=["get", "get if", "head", "blocks"],
)
def test_what_is_not_there_is_not_found(store: Store, ask: Callable[[Store], object]) -> None:
    store.put("a/missin", b"")
    store.put("a/missing.jpg", b"")
    with pytest.raises(ObjectNotFound, match="a/missing"):
        ask(store)


def test_head_and_listing_agree(store: Store) -> None:
    store.put("a/b", b"12345")
    (listed,) = store.list("a/")
    assert listed == store.head("a/b")
    assert (listed.key, listed.size) == ("a/b", 5)
    assert listed.etag


def test_a_replaced_object_has_another_etag(store: Store) -> None:
    store.put("a", b"one")
    before = store.head("a").etag
    store.put("a", b"two")
    assert store.head("a").etag != before


def test_the_listed_version_is_read(store: Store) -> None:
    store.put("a", b"one")
    assert store.get("a", if_match=store.head("a").etag) == b"one"


def test_another_version_is_refused(store: Store) -> None:
    store.put("a", b"one")
    listed = store.head("a").etag
    store.put("a", b"two")
    with pytest.raises(SourceChanged, match="a is no longer the"):
        store.get("a", if_match=listed)


def test_an_object_over_the_limit_is_refused(store: Store) -> None:
    store.put("a", b"12345")
    assert store.get("a", max_bytes=5) == b"12345"
    with pytest.raises(ObjectTooLarge, match="a: 5 bytes, over the limit of 4"):
        store.get("a", max_bytes=4)


def test_an_error_of_ours_is_not_its_own_cause(store: Store) -> None:
    store.put("a", b"12345")
    with pytest.raises(ObjectTooLarge) as caught:
        store.get("a", max_bytes=4)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
def test_blocks_are_the_object_in_pieces(store: Store, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    store.put("a", data)
    blocks = list(store.blocks("a"))
    assert b"".join(blocks) == data
    assert all(0 < len(block) <= BLOCK_BYTES for block in blocks)


@pytest.mark.parametrize(
    "pieces",
    [[], [b""], [b"one"], [b"one\n", b"", b"two\n"], [b"x" * 700_000] * 10],
    ids=["nothing", "an empty piece", "one", "a few", "7 MB"],
)
def test_an_iterable_is_streamed(store: Store, pieces: list[bytes]) -> None:
    store.put("list", pieces)
    store.put("iterator", iter(pieces))
    store.put("generator", (piece for piece in pieces))
    for key in ("list", "iterator", "generator"):
        assert store.get(key) == b"".join(pieces)


def test_a_stream_may_read_from_the_store_it_is_written_to(store: Store) -> None:
    for number in range(3):
        store.put(f"part-{number}", b"%d\n" % number)
    store.put("whole", (store.get(item.key) for item in sorted(store.list("part-"))))
    assert store.get("whole") == b"0\n1\n2\n"


@pytest.mark.parametrize("error", [CorruptRecord("bad line"), ObjectNotFound("a chunk is gone")])
@pytest.mark.parametrize("before", [1, 8_000_000], ids=["at once", "after 8 MB"])
def test_a_stream_that_fails_leaves_nothing(
    store: Store, error: MillraceError, before: int
) -> None:
    def lines() -> Iterator[bytes]:
        yield b"x" * before
        raise error

    with pytest.raises(type(error)) as caught:
        store.put("errors.jsonl", lines())
    assert caught.value is error
    with pytest.raises(ObjectNotFound):
        store.get("errors.jsonl")
    assert list(store.list()) == []


def test_an_object_replaced_between_two_blocks_is_noticed(store: Store) -> None:
    store.put("a", bytes(2 * BLOCK_BYTES))
    blocks = store.blocks("a")
    next(blocks)
    store.put("a", b"\x01" * 2 * BLOCK_BYTES)
    with pytest.raises(SourceChanged):
        list(blocks)


def test_a_stream_that_fails_leaves_what_stood(store: Store) -> None:
    def lines() -> Iterator[bytes]:
        yield b"half"
        raise CorruptRecord("bad line")

    store.put("errors.jsonl", b"whole")
    with pytest.raises(CorruptRecord):
        store.put("errors.jsonl", lines())
    assert store.get("errors.jsonl") == b"whole"
    assert [item.key for item in store.list()] == ["errors.jsonl"]


def test_listing_takes_any_prefix(store: Store) -> None:
    keys = {"a.jpg", "a/b.jpg", "a/bc/d.jpg", "a/c.jpg", "ab/e.jpg", "z"}
    for key in keys:
        store.put(key, b"")
    for prefix in ("", "a", "a/", "a/b", "a/b.jpg", "a/bc/", "a/bc/d", "ab", "b", "a/x/y", "y/z"):
        found = [item.key for item in store.list(prefix)]
        assert sorted(found) == sorted(key for key in keys if key.startswith(prefix))


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert list(store.list()) == []
    assert list(store.list("a/b/")) == []


def test_what_was_deleted_is_gone(store: Store) -> None:
    store.put("a", b"one")
    store.put("b", b"two")
    store.delete("a")
    assert [item.key for item in store.list()] == ["b"]
    store.create("a", b"again")


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.delete("never/was")


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_is_taken_verbatim(store: Store, key: str) -> None:
    store.create(key, b"here")
    assert [item.key for item in store.list()] == [key]
    assert store.get(key) == b"here"
    assert store.head(key).size == 4
    assert list(store.blocks(key)) == [b"here"]
    with pytest.raises(AlreadyExists):
        store.create(key, b"there")
    store.delete(key)
    assert list(store.list()) == []


@pytest.mark.parametrize("verb", ["put", "create"])
@pytest.mark.parametrize("key", ["/lead.jpg", "trail/", "a//b", "./a", "x/../a", "a\x01"])
def test_an_odd_key_is_written_verbatim_or_refused(store: Store, key: str, verb: str) -> None:
    written = []
    with suppress(BadLocation):
        getattr(store, verb)(key, b"x")
        written = [key]
    assert [item.key for item in store.list()] == written


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a%41.jpg", "aA.jpg"),
        ("é.jpg", "e\u0301.jpg"),
        ("a+b", "a b"),
        ("A", "a"),
        ("a%2Fb", "a/b"),
    ],
)
def test_keys_that_look_alike_are_different(store: Store, one: str, other: str) -> None:
    store.put(one, b"one")
    with pytest.raises(ObjectNotFound):
        store.get(other)
    store.put(other, b"other")
    assert (store.get(one), store.get(other)) == (b"one", b"other")


def test_all_of_a_prefix_is_deleted_and_nothing_else(store: Store) -> None:
    for key in ("a/b", "a/c/d", "a/c/e", "ab", "b/a/b"):
        store.put(key, b"x")
    assert store.delete_all("a/") == 3
    assert sorted(item.key for item in store.list()) == ["ab", "b/a/b"]
    assert store.delete_all("a/") == 0


def test_a_store_shows_where_it_is(store: Store) -> None:
    assert type(store).__name__ in repr(store)


def test_no_limit_refuses_nothing() -> None:
    refuse_larger("a", 10**12, None)
    refuse_larger("a", 5, 5)
    with pytest.raises(ObjectTooLarge):
        refuse_larger("a", 1, 0)
