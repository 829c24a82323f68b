"""A directory as a store: what file systems have and buckets have not."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millrace.core.errors import (
    AlreadyExists,
    CorruptRecord,
    ObjectNotFound,
    OutsideRoot,
    SourceChanged,
)
from millrace.core.settings import StorageSettings
from millrace.core.storage.base import BLOCK_BYTES
from millrace.core.storage.local import LocalStore

SETTINGS = StorageSettings.load()

CLIMBING = [
    "/a.jpg",
    "//a.jpg",
    "./a.jpg",
    "a.jpg/",
    "a.jpg/.",
    "x/../a.jpg",
    "../store/a.jpg",
    "x//b.jpg",
    "x/./b.jpg",
    "",
    ".",
    "..",
    "a.jpg\x00",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(str(root), SETTINGS)


def test_an_object_is_a_file(root: Path, store: LocalStore) -> None:
    store.put("a/b.jpg", b"one")
    assert (root / "a/b.jpg").read_bytes() == b"one"


def test_a_file_is_an_object(root: Path, store: LocalStore) -> None:
    (root / "a").mkdir()
    (root / "a/b.jpg").write_bytes(b"one")
    assert [(item.key, item.size) for item in store.list()] == [("a/b.jpg", 3)]


@pytest.mark.parametrize("key", CLIMBING)
def test_a_key_never_answers_with_the_file_of_another(
    root: Path, store: LocalStore, key: str
) -> None:
    store.put("a.jpg", b"secret")
    store.put("x/b.jpg", b"secret")
    for ask in (store.get, store.head, lambda key: list(store.blocks(key))):
        with pytest.raises(ObjectNotFound):
            ask(key)


def test_a_key_that_climbs_out_of_the_directory_is_not_found(
    tmp_path: Path, store: LocalStore
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ObjectNotFound, match="names no file below"):
        store.get("../secret")


@pytest.mark.parametrize("key", ["control\x01.jpg", "new\nline.jpg", "\x7f", "carriage\r", "a\tb"])
def test_file_names_may_hold_control_characters(root: Path, store: LocalStore, key: str) -> None:
    (root / key).write_bytes(b"one")
    assert [item.key for item in store.list()] == [key]
    assert store.get(key, if_match=store.head(key).etag) == b"one"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_not_utf8_is_listed_with_its_bytes_spelled_out(
    root: Path, store: LocalStore
) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.jpg")).write_bytes(b"one")
    (item,) = store.list()
    assert item.key == "caf\\xe9.jpg"
    with pytest.raises(ObjectNotFound):
        store.get(item.key)


def test_a_directory_that_is_not_there_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="is not a directory"):
        list(LocalStore(str(tmp_path / "nowhere"), SETTINGS).list())


def test_a_file_cannot_be_listed(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(ObjectNotFound, match="is not a directory"):
        list(LocalStore(str(root / "file"), SETTINGS).list())


def test_writing_makes_the_directories_it_needs(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "new" / "store"), SETTINGS)
    store.create("a/b/c", b"one")
    assert store.get("a/b/c") == b"one"


def test_reading_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        LocalStore(str(tmp_path / "nowhere"), SETTINGS).get("a")
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_is_no_object(root: Path, store: LocalStore) -> None:
    (root / "folder").mkdir()
    with pytest.raises(ObjectNotFound):
        store.get("folder")
    with pytest.raises(ObjectNotFound):
        store.head("folder")
    store.delete("folder")
    assert list(store.list()) == []
    assert os.listdir(root) == ["folder"]


@pytest.fixture
def endless(root: Path) -> Iterator[list[str]]:
    """Names of what is no file: to wait for it or to read it to its end would take for ever."""
    os.mkfifo(root / "fifo")
    (root / "link to a fifo").symlink_to(root / "fifo")
    (root / "zeros").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(root / "socket"))
        yield ["fifo", "link to a fifo", "zeros", "socket"]


def test_what_is_no_file_is_no_object(store: LocalStore, endless: list[str]) -> None:
    asks: list[Callable[[str], object]] = [store.get, store.head, lambda key: [*store.blocks(key)]]
    for ask in asks:
        for key in endless:
            with pytest.raises(ObjectNotFound, match=f"{key} is not a file"):
                ask(key)
    assert [*store.list()] == []


@pytest.mark.skipif(sys.platform != "linux", reason="files that hold more than they say")
def test_no_more_is_read_than_a_file_says_it_holds(root: Path, store: LocalStore) -> None:
    (root / "a").symlink_to("/proc/self/maps")
    assert store.get("a", max_bytes=10) == b""
    assert [*store.blocks("a")] == []


@pytest.mark.parametrize("key", ["a//b", "file/x", "../beside", "x" * 300])
def test_deleting_what_names_no_object_is_no_error(
    root: Path, tmp_path: Path, store: LocalStore, key: str
) -> None:
    (root / "file").touch()
    (tmp_path / "beside").touch()
    store.delete(key)
    assert (root / "file").is_file()
    assert (tmp_path / "beside").is_file()


@pytest.mark.parametrize(
    "prefix", ["../", "../bes", "/", "/etc/", "./", "a/../../", "file/", "\x00/"]
)
def test_a_listing_stays_below_the_directory(
    root: Path, tmp_path: Path, store: LocalStore, prefix: str
) -> None:
    (root / "file").touch()
    (tmp_path / "beside").touch()
    assert list(store.list(prefix)) == []


def test_a_name_longer_than_a_file_system_takes_is_not_found(store: LocalStore) -> None:
    for ask in (store.get, store.head, lambda key: list(store.blocks(key))):
        with pytest.raises(ObjectNotFound):
            ask("x" * 300)


def test_an_error_names_the_place(root: Path, store: LocalStore) -> None:
    with pytest.raises(ObjectNotFound, match=re.escape(str(root / "a.jpg"))):
        store.get("a.jpg")


def test_a_linked_file_is_listed_and_a_linked_directory_is_not(
    root: Path, tmp_path: Path, store: LocalStore
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.jpg").write_bytes(b"one")
    (root / "file.jpg").symlink_to(tmp_path / "elsewhere/a.jpg")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "broken.jpg").symlink_to(tmp_path / "gone")
    assert [item.key for item in store.list()] == ["file.jpg"]


def test_a_link_may_lead_anywhere_within_the_directory(
    root: Path, tmp_path: Path, store: LocalStore
) -> None:
    (tmp_path / "name").symlink_to(root)
    for folder in ("a", "b"):
        (root / folder).mkdir()
    (root / "a/photo.jpg").write_bytes(b"one")
    (root / "b/photo.jpg").symlink_to("../a/photo.jpg")
    (root / "c").symlink_to("a")
    for place in (store, LocalStore(str(tmp_path / "name"), StorageSettings())):
        assert place.get("b/photo.jpg") == place.get("c/photo.jpg") == b"one"
        place.put("c/new.jpg", b"two")
        assert place.get("a/new.jpg") == b"two"


def test_a_link_that_leads_out_is_read_but_not_written_through(
    root: Path, tmp_path: Path, store: LocalStore
) -> None:
    theirs = tmp_path / f"{root.name}-of-others"
    theirs.mkdir()
    (theirs / "a.jpg").write_bytes(b"theirs")
    (root / "file.jpg").symlink_to(theirs / "a.jpg")
    (root / "folder").symlink_to(theirs)
    for key in ("file.jpg", "folder/a.jpg"):
        assert store.get(key) == b"theirs"
    for write in (store.put, store.create):
        with pytest.raises(OutsideRoot):
            write("folder/b.jpg", b"ours")
    with pytest.raises(OutsideRoot):
        store.delete("folder/a.jpg")
    # The link itself may be replaced; what it led to stays.
    store.put("file.jpg", b"ours")
    assert store.get("file.jpg") == b"ours"
    assert [*theirs.iterdir()] == [theirs / "a.jpg"]
    assert (theirs / "a.jpg").read_bytes() == b"theirs"


def test_a_touched_file_has_another_etag(root: Path, store: LocalStore) -> None:
    store.put("a", b"one")
    listed = store.head("a").etag
    os.utime(root / "a", ns=(1, 1))
    with pytest.raises(SourceChanged):
        store.get("a", if_match=listed)


def test_a_file_changed_while_it_is_read_in_blocks_is_noticed(
    root: Path, store: LocalStore
) -> None:
    (root / "a").write_bytes(bytes(2 * BLOCK_BYTES))
    blocks = store.blocks("a")
    next(blocks)
    with (root / "a").open("ab") as file:
        file.write(b"more")
    with pytest.raises(SourceChanged):
        list(blocks)


def test_a_file_that_vanishes_during_the_listing_is_passed_over(
    root: Path, store: LocalStore
) -> None:
    for folder in ("x", "y"):
        (root / folder).mkdir()
        (root / folder / "a").touch()
    listing = store.list()
    first = next(listing)
    other = "y" if first.key == "x/a" else "x"
    (root / other / "a").unlink()
    (root / other).rmdir()
    assert list(listing) == []


def test_nothing_but_the_object_is_left_in_the_directory(root: Path, store: LocalStore) -> None:
    store.create("a", b"one")
    with pytest.raises(AlreadyExists):
        store.create("a", b"two")
    store.put("a", [b"three"] * 3)
    assert os.listdir(root) == ["a"]


def test_a_stream_that_fails_leaves_no_file_aside(root: Path, store: LocalStore) -> None:
    def lines() -> Iterator[bytes]:
        yield bytes(12_000_000)
        raise CorruptRecord("midway")

    with pytest.raises(CorruptRecord):
        store.put("errors.jsonl", lines())
    assert os.listdir(root) == []


def test_deleting_all_leaves_no_empty_directories(root: Path, store: LocalStore) -> None:
    for key in ("job/results/part-0/chunk-0", "job/manifest/part-0", "job2/a"):
        store.put(key, b"x")
    (root / "job/empty/deep").mkdir(parents=True)
    assert store.delete_all("job/") == 2
    assert os.listdir(root) == ["job2"]


def test_deleting_everything_removes_the_directory_itself(root: Path, store: LocalStore) -> None:
    store.put("a/b", b"x")
    assert store.delete_all("") == 1
    assert not root.exists()


def test_what_a_link_leads_to_is_not_deleted(tmp_path: Path, root: Path, store: LocalStore) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/photo.jpg").touch()
    (root / "job").mkdir()
    (root / "job/folder").symlink_to(tmp_path / "theirs")
    (root / "job/photo.jpg").symlink_to(tmp_path / "theirs/photo.jpg")
    store.delete_all("job/")
    assert (tmp_path / "theirs/photo.jpg").exists()
