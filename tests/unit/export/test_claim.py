"""Several at one version's place: one of them writes, and nobody takes another's files away."""

from __future__ import annotations

import re
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from millrace.core.errors import AccessDenied, Conflict, ModelNotFound, StorageUnavailable
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository
from millrace.core.storage import Location, Stores
from millrace.export.publish import publish
from millrace.export.transfer import claimant, remove, remove_claim
from tests.unit.export.publishing import (
    FILES,
    Watched,
    WatchedStores,
    claim_beside,
    content,
    is_whole,
    local_copy,
    names,
    names_or_none,
    once,
    replacement,
    write_bundle,
)

pytestmark = pytest.mark.usefixtures("temporary")

TINY = ModelRef("tiny", "1")


@pytest.mark.parametrize("library", ["file"], indirect=True)
def test_of_two_publishers_one_wins_whole(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path
) -> None:
    """The second tries to publish while the first is halfway."""
    other = write_bundle(tmp_path / "other", weights=b"other")

    @once("variables.data")
    def be_overtaken() -> None:
        with pytest.raises(Conflict, match="is being published"):
            publish(stores, other, place)

    publish(WatchedStores(be_overtaken), bundle, place)
    copy = local_copy(stores, place, tmp_path / "copy")
    assert (copy / "saved_model.pb").read_bytes() == (bundle / "saved_model.pb").read_bytes()
    assert is_whole(copy)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("library", ["file"], indirect=True)
def test_who_comes_while_a_version_is_replaced_is_turned_away(
    force: bool, stores: Stores, place: Location, bundle: Path, tmp_path: Path
) -> None:
    publish(stores, bundle, place)
    third = write_bundle(tmp_path / "third", weights=b"third")

    @once("variables.data")
    def come() -> None:
        with pytest.raises(Conflict):
            publish(stores, third, place, force=force)

    publish(WatchedStores(come), replacement(tmp_path), place, force=True)
    copy = local_copy(stores, place, tmp_path / "copy")
    assert is_whole(copy)
    assert (copy / "variables" / "variables.data").read_bytes() == b"new weights"


def test_whose_claim_was_removed_publishes_nothing(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    def remove_the_claim(key: str) -> None:
        if key.endswith("variables.data"):
            store, claim = claim_beside(stores, place)
            store.delete(claim)

    with pytest.raises(Conflict, match="claimed by another"):
        publish(WatchedStores(remove_the_claim), bundle, place)
    assert "saved_model.pb" not in names(stores, place)
    remove(stores, TINY, Repository(stores, library))
    assert names_or_none(stores, place) == []


def test_a_version_that_is_removed_while_its_graph_is_written_is_not_published(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    def come(key: str) -> None:
        if key.endswith("saved_model.pb"):
            remove(stores, TINY, Repository(stores, library))

    with pytest.raises(Conflict, match="claimed by another"):
        publish(WatchedStores(come), bundle, place)
    remove(stores, TINY, Repository(stores, library))
    assert names_or_none(stores, place) == []


@pytest.mark.parametrize("library", ["file"], indirect=True)
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("at", FILES)
def test_whoever_claimed_a_version_since_keeps_every_other_file(
    at: str,
    force: bool,
    same: bool,
    cut: bool,
    stores: Stores,
    library: Location,
    place: Location,
    bundle: Path,
    tmp_path: Path,
) -> None:
    """The version is removed and another publishes, whole, while the first writes one file, or
    fails there. That one file alone may be the first's."""
    theirs = bundle if same else write_bundle(tmp_path / "theirs", weights=b"others")
    if force:
        publish(stores, write_bundle(tmp_path / "old", weights=b"old"), place)

    @once(at)
    def come_between() -> None:
        remove(stores, TINY, Repository(stores, library))
        publish(stores, theirs, place)
        if cut:
            raise StorageUnavailable("the line was cut")

    with pytest.raises((StorageUnavailable, Conflict)):
        publish(WatchedStores(come_between), bundle, place, force=force)
    found, whole = content(stores, place), content(stores, Location.parse(str(theirs)))
    assert found.keys() == whole.keys()
    assert {name for name in whole if found[name] != whole[name]} <= (
        {at} - ({at} if cut else set())
    )


@pytest.mark.parametrize("at", ["saved_model.pb", "variables.index"])
def test_whoever_published_since_keeps_what_one_who_replaces_would_delete(
    at: str, stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    publish(stores, bundle, place)
    theirs = write_bundle(tmp_path / "theirs", weights=b"others")
    came = threading.Event()

    def come_between(key: str) -> None:
        if not key.endswith(".claim") and not came.is_set():
            came.set()
            remove(stores, TINY, Repository(stores, library))
            publish(stores, theirs, place)

    with pytest.raises(Conflict, match="claimed by another") as caught:
        publish(WatchedStores(before_delete=come_between), replacement(tmp_path), place, force=True)
    assert "its old files are kept in" in (caught.value.hint or "")
    found, whole = content(stores, place), content(stores, Location.parse(str(theirs)))
    assert {name for name in whole if found.get(name) != whole[name]} <= {"saved_model.pb"}


@pytest.mark.parametrize("force", [False, True])
def test_a_version_stands_when_its_claim_cannot_be_removed(
    force: bool,
    stores: Stores,
    library: Location,
    place: Location,
    bundle: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if force:
        publish(stores, replacement(tmp_path), place)

    def fail(key: str) -> None:
        if key.endswith(".claim"):
            raise StorageUnavailable("nothing may be deleted")

    publish(WatchedStores(before_delete=fail), bundle, place, force=force)
    assert "a claim could not be removed" in caplog.text
    assert is_whole(local_copy(stores, place, tmp_path / "copy"))
    with pytest.raises(Conflict, match=r"is being \w+ by process \d+ on") as caught:
        publish(stores, bundle, place, force=True)
    # What the hint says makes room, and leaves the version that stands until then.
    hint = f"millrace models rm tiny:1 --claim --models {library.uri}"
    assert hint in (caught.value.hint or "")
    remove_claim(stores, TINY, Repository(stores, library))
    assert names(stores, place) == FILES
    publish(stores, bundle, place, force=True)
    with pytest.raises(ModelNotFound, match="nobody claims"):
        remove_claim(stores, TINY, Repository(stores, library))


def test_a_claim_alone_is_removed_as_an_unfinished_version_is(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """One is left by who is killed at the very first."""
    store, claim = claim_beside(stores, place)
    store.put(claim, [b"of one who was killed"])
    with pytest.raises(Conflict, match="left unfinished"):
        publish(stores, bundle, place)
    assert remove(stores, TINY, Repository(stores, library)) == 1
    publish(stores, bundle, place)
    assert names(stores, place) == FILES
    assert names_or_none(stores, place.split()[0]) == [f"1/{name}" for name in FILES]


def test_a_claim_is_met_as_one_s_own_when_its_answer_was_lost(
    stores: Stores, place: Location, bundle: Path
) -> None:
    """The store's client tries again, and finds what it has written."""
    home, _ = place.split()
    made: list[bytes] = []

    def create(key: str, data: bytes) -> None:
        stores.open(home).put(key, data)
        made.append(data)

    publish(WatchedStores(before_create=create), bundle, place)
    assert len(made) == 1
    assert names_or_none(stores, home) == [f"1/{name}" for name in FILES]


def test_of_two_who_remove_a_version_the_first_stops(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """And who publishes after the second has all but the file that the first was at."""
    publish(stores, bundle, place)

    @once("labels.txt")
    def come() -> None:
        remove(stores, TINY, Repository(stores, library))
        publish(stores, bundle, place)

    with pytest.raises(Conflict, match="claimed by another"):
        remove(WatchedStores(before_delete=come), TINY, Repository(stores, library))
    assert {*FILES} - {*names(stores, place)} == {"assets.extra/labels.txt"}


def test_what_a_remover_could_not_remove_is_removed_by_the_next(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """Also a file that, alone, is no model's."""
    (bundle / "assets").mkdir()
    (bundle / "assets" / "vocabulary.txt").touch()
    publish(stores, bundle, place)

    def fail(key: str) -> None:
        if key.endswith("vocabulary.txt"):
            for name in FILES:
                stores.open(place).delete(place.prefix + name)
            raise StorageUnavailable("the line was cut")

    for _ in range(2):  # the second time at its very first file
        with pytest.raises(StorageUnavailable):
            remove(WatchedStores(before_delete=fail), TINY, Repository(stores, library))
    assert names(stores, place) == ["assets/vocabulary.txt"]
    with pytest.raises(Conflict, match="is being removed by process") as caught:
        publish(stores, bundle, place)
    assert (caught.value.hint or "").endswith(f"millrace models rm tiny:1 --models {library.uri}")
    with pytest.raises(Conflict, match="unfinished"):
        remove_claim(stores, TINY, Repository(stores, library))
    remove(stores, TINY, Repository(stores, library))
    publish(stores, bundle, place)


def test_what_a_publisher_could_not_take_away_is_removed_by_a_remover(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """Also a file that, alone, is no model's."""
    (bundle / "assets").mkdir()
    (bundle / "assets" / "vocabulary.txt").touch()

    def fail(key: str) -> None:
        if key.endswith(("vocabulary.txt", "variables.index")):
            raise StorageUnavailable("the line was cut")

    def fail_to_write(key: str) -> None:
        if key.endswith("variables.index"):
            raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable):
        publish(WatchedStores(fail_to_write, before_delete=fail), bundle, place)
    assert names(stores, place) == ["assets/vocabulary.txt"]
    remove(stores, TINY, Repository(stores, library))
    publish(stores, bundle, place)


def test_a_remover_who_may_not_delete_leaves_no_claim(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    publish(stores, bundle, place)

    def fail(key: str) -> None:
        if not key.endswith(".claim"):
            raise AccessDenied("nothing may be deleted")

    with pytest.raises(AccessDenied):
        remove(WatchedStores(before_delete=fail), TINY, Repository(stores, library))
    publish(stores, bundle, place, force=True)


def test_a_claim_that_cannot_be_removed_is_told(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    publish(stores, bundle, place)
    store, claim = claim_beside(stores, place)
    store.put(claim, b"of one who was killed")

    def fail(key: str) -> None:
        raise StorageUnavailable("nothing may be deleted")

    with pytest.raises(StorageUnavailable):
        remove_claim(WatchedStores(before_delete=fail), TINY, Repository(stores, library))


def test_a_version_whose_claim_cannot_be_read_again_at_last_is_published(
    stores: Stores, place: Location, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    get = Watched.get

    def fail(self: Watched, key: str, **options: Any) -> bytes:
        if key.endswith(".claim") and "saved_model.pb" in names_or_none(stores, place):
            asked.append(key)
            raise StorageUnavailable("the line was cut")
        return get(self, key, **options)

    monkeypatch.setattr(Watched, "get", fail)
    publish(WatchedStores(), bundle, place)
    assert asked
    assert names(stores, place) == FILES


def test_who_was_killed_while_he_replaced_a_version_tells_where_it_is(
    stores: Stores, library: Location, place: Location, bundle: Path, temporary: Path
) -> None:
    publish(stores, bundle, place)
    before = content(stores, place)
    store, claim = claim_beside(stores, place)
    claims: list[bytes] = []

    def note(key: str) -> None:
        if key.endswith("variables.data"):
            claims.append(store.get(claim))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(WatchedStores(note), bundle, place, force=True)
    assert content(stores, place) == before
    store.put(claim, claims)
    said = claimant(stores, TINY, Repository(stores, library))
    kept = r"if it is gone, its old files are in (.+)"
    assert re.fullmatch(rf"being replaced by process \d+ on .+; {kept}", said)
    assert str(temporary) in said
    with pytest.raises(Conflict, match=re.escape(said)):
        publish(stores, bundle, place, force=True)

    # Nor is it lost with the claim, if that is taken over.
    def fail(key: str) -> None:
        raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable):
        remove(WatchedStores(before_delete=fail), TINY, Repository(stores, library))
    said = claimant(stores, TINY, Repository(stores, library))
    assert re.fullmatch(rf"being removed by process \d+ on .+; {kept}", said)


def test_where_old_files_are_is_readable_in_any_language(
    stores: Stores,
    library: Location,
    place: Location,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "temporär ファイル"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    publish(stores, bundle, place)
    seen: list[str] = []

    def look(key: str) -> None:
        seen.append(claimant(stores, TINY, Repository(stores, library)))

    publish(WatchedStores(look), bundle, place, force=True)
    assert all(str(folder) in said for said in seen)


def test_what_claims_hold_is_nobody_s_word(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """They are shown in terminals."""
    store, claim = claim_beside(stores, place)
    for text in (b"\xff", b"0" * 32 + b" being \x1b[2J by process 1 on x", b"x" * 10_000):
        store.put(claim, [text])
        assert claimant(stores, TINY, Repository(stores, library)) == ""
        with pytest.raises(Conflict, match=r"1 was left unfinished, or is being published$"):
            publish(stores, bundle, place)


def overwriting(stores: Stores, place: Location) -> WatchedStores:
    """Stores without conditional writes, whose user saw no claim a moment ago."""
    return WatchedStores(before_create=lambda key, _: stores.open(place.split()[0]).delete(key))


def test_where_stores_know_no_conditional_writes_the_last_claim_counts(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path
) -> None:
    theirs = write_bundle(tmp_path / "theirs", weights=b"others")

    @once("variables.data")
    def come() -> None:
        with pytest.raises(Conflict, match="unfinished"):
            publish(overwriting(stores, place), theirs, place)

    with pytest.raises(Conflict, match="claimed by another"):
        publish(WatchedStores(come), bundle, place)
    assert "saved_model.pb" not in names(stores, place)


def test_where_stores_know_no_conditional_writes_a_replaced_version_is_kept(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path, temporary: Path
) -> None:
    """The second, who finds no version, leaves none; nor may the first put the old one back."""
    publish(stores, bundle, place)
    old = content(stores, place)
    theirs = write_bundle(tmp_path / "theirs", weights=b"others")

    @once("variables.data")
    def come() -> None:
        with pytest.raises(Conflict, match="unfinished"):
            publish(overwriting(stores, place), replacement(tmp_path), place, force=True)

    with pytest.raises(Conflict, match="claimed by another") as caught:
        publish(WatchedStores(come), theirs, place, force=True)
    (kept,) = temporary.iterdir()
    assert f"its old files are kept in {kept}" in (caught.value.hint or "")
    assert {name: (kept / "tiny" / "1" / name).read_bytes() for name in old} == old


def test_nobody_comes_in_while_a_version_is_removed(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    publish(stores, bundle, place)
    turned_away: list[str] = []

    def come(key: str) -> None:
        if key.startswith(place.prefix) and not key.endswith(".claim"):
            with pytest.raises(Conflict, match="is being removed"):
                publish(stores, bundle, place, force=True)
            turned_away.append(key)

    watched = WatchedStores(before_delete=come)
    assert remove(watched, TINY, Repository(stores, library)) == len(FILES)
    assert turned_away
    publish(stores, bundle, place)
