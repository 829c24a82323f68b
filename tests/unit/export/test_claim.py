"""Several at one version's place: one of them writes, and nobody takes another's files away."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from millrace.core.errors import Conflict, StorageUnavailable
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository, claim_name
from millrace.core.storage import Location, Stores
from millrace.export.publish import publish
from millrace.export.transfer import remove
from tests.unit.export.publishing import (
    FILES,
    WatchedStores,
    content,
    is_whole,
    local_copy,
    names,
    names_or_none,
    replacement,
    write_bundle,
)


@pytest.mark.parametrize("library", ["file"], indirect=True)
def test_of_two_publishers_one_wins_whole(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path
) -> None:
    """The second tries to publish while the first is halfway."""
    other = write_bundle(tmp_path / "other", weights=b"other")
    overtaken = threading.Event()

    def be_overtaken(key: str) -> None:
        if key.endswith("variables.data") and not overtaken.is_set():
            overtaken.set()
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
    turned_away = threading.Event()

    def come(key: str) -> None:
        if key.endswith("variables.data") and not turned_away.is_set():
            turned_away.set()
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
            home, version = place.split()
            stores.open(home).delete(home.prefix + claim_name(version))

    with pytest.raises(Conflict, match="was removed while"):
        publish(WatchedStores(remove_the_claim), bundle, place)
    assert "saved_model.pb" not in names(stores, place)
    remove(stores, ModelRef("tiny", "1"), Repository(stores, library))
    assert names_or_none(stores, place) == []


@pytest.mark.parametrize("broken", [False, True])
def test_whoever_claimed_a_version_since_keeps_every_file(
    broken: bool, stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    """The claim is removed and another publishes, whole, while the first is at its last file but
    the graph, or fails there."""
    other = write_bundle(tmp_path / "other", weights=b"other")

    def come_between(key: str) -> None:
        if key.endswith("variables.index"):
            remove(stores, ModelRef("tiny", "1"), Repository(stores, library))
            publish(stores, other, place)
            if broken:
                raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable if broken else Conflict):
        publish(WatchedStores(come_between), bundle, place)
    assert names(stores, place) == FILES
    theirs = content(stores, place)
    theirs.pop("variables/variables.index")  # which the first may have overwritten by then
    assert all((other / name).read_bytes() == data for name, data in theirs.items())


@pytest.mark.parametrize("at", ["variables.index", "saved_model.pb"])
def test_the_same_bundle_published_twice_at_once_stays_whole(
    at: str, stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    """Their files are equal, and their claims are not."""

    def come_between(key: str) -> None:
        if key.endswith(at):
            remove(stores, ModelRef("tiny", "1"), Repository(stores, library))
            publish(stores, bundle, place)
            raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable, match="the line was cut"):
        publish(WatchedStores(come_between), bundle, place)
    assert is_whole(local_copy(stores, place, tmp_path / "copy"))


@pytest.mark.parametrize("at", ["variables.index", "saved_model.pb"])
def test_who_removed_what_is_being_replaced_and_published_since_keeps_every_file(
    at: str, stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    """Nor does the old version come back on top of it."""
    publish(stores, bundle, place)
    other = write_bundle(tmp_path / "other", weights=b"other")

    def come_between(key: str) -> None:
        if key.endswith(at):
            remove(stores, ModelRef("tiny", "1"), Repository(stores, library))
            publish(stores, other, place)
            raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable, match="the line was cut"):
        publish(WatchedStores(come_between), replacement(tmp_path), place, force=True)
    assert content(stores, place) == content(stores, Location.parse(str(other)))


def test_a_replaced_version_stands_when_its_claim_cannot_be_removed(
    stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    publish(stores, bundle, place)

    def fail(key: str) -> None:
        if key.endswith(".claim"):
            raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable):
        publish(WatchedStores(before_delete=fail), replacement(tmp_path), place, force=True)
    assert is_whole(local_copy(stores, place, tmp_path / "copy"))
    with pytest.raises(Conflict, match="is being published") as caught:
        publish(stores, bundle, place, force=True)
    # What the hint says makes room.
    assert f"millrace models rm tiny:1 --models {library.uri}" in (caught.value.hint or "")
    remove(stores, ModelRef("tiny", "1"), Repository(stores, library))
    publish(stores, bundle, place)


def test_a_claim_alone_is_removed_as_an_unfinished_version_is(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """One is left by who is killed at the very first."""
    home, version = place.split()
    stores.open(home).put(home.prefix + claim_name(version), [b"of one who was killed"])
    with pytest.raises(Conflict, match="left unfinished"):
        publish(stores, bundle, place)
    assert remove(stores, ModelRef("tiny", "1"), Repository(stores, library)) == 1
    publish(stores, bundle, place)
    assert names(stores, place) == FILES
    assert names_or_none(stores, home) == [f"1/{name}" for name in FILES]


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


def test_nobody_comes_in_while_a_version_is_removed(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    publish(stores, bundle, place)
    turned_away: list[str] = []

    def come(key: str) -> None:
        if key.startswith(place.prefix) and not key.endswith(".claim"):
            with pytest.raises(Conflict, match="is being published"):
                publish(stores, bundle, place, force=True)
            turned_away.append(key)

    watched = WatchedStores(before_delete=come)
    assert remove(watched, ModelRef("tiny", "1"), Repository(stores, library)) == len(FILES)
    assert turned_away
    publish(stores, bundle, place)
