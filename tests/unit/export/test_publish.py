"""Publishing a bundle: visible all at once, and never over another."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.bundle import read_bundle
from millrace.core.card import CARD_FILE
from millrace.core.errors import Conflict, ModelNotFound, ObjectNotFound, StorageUnavailable
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.export.publish import publish
from millrace.export.transfer import remove
from tests.unit.export.publishing import (
    FILES,
    WatchedStores,
    content,
    interrupted_at,
    is_whole,
    local_copy,
    names,
    write_bundle,
)


def test_every_file_is_published_as_it_is(
    stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    publish(stores, bundle, place)
    assert names(stores, place) == FILES
    copy = local_copy(stores, place, tmp_path / "copy")
    assert all((copy / name).read_bytes() == (bundle / name).read_bytes() for name in FILES)
    assert Repository(stores, library).versions("tiny") == ["1"]


def test_a_version_that_stands_is_a_conflict_and_stays(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path
) -> None:
    publish(stores, bundle, place)
    with pytest.raises(Conflict) as caught:
        publish(stores, write_bundle(tmp_path / "other", weights=b"other"), place)
    assert "version" in (caught.value.hint or "")
    copy = local_copy(stores, place, tmp_path / "copy")
    assert (copy / "variables" / "variables.data").read_bytes() == b"weights"
    assert is_whole(copy)


@pytest.mark.parametrize("library", ["file"], indirect=True)
def test_the_next_version_is_no_conflict(stores: Stores, library: Location, bundle: Path) -> None:
    publish(stores, bundle, library.child("tiny").child("1"))
    publish(stores, bundle, library.child("tiny").child("2"))
    assert Repository(stores, library).versions("tiny") == ["1", "2"]


def test_the_graph_is_written_last(place: Location, bundle: Path) -> None:
    written: list[str] = []
    publish(WatchedStores(written.append), bundle, place)
    assert written[-1] == place.prefix + "saved_model.pb"
    assert len(written) == len(FILES)


@pytest.mark.parametrize("name", ["variables.data", "saved_model.pb"])
def test_what_was_interrupted_is_no_version(
    name: str, stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    # Some version stands, so that the repository itself is there to be listed.
    publish(stores, bundle, library.child("tiny").child("0"))
    with pytest.raises(StorageUnavailable):
        publish(interrupted_at(name), bundle, place)
    assert Repository(stores, library).versions("tiny") == ["0"]
    publish(stores, bundle, place)
    assert Repository(stores, library).versions("tiny") == ["0", "1"]
    assert names(stores, place) == FILES


@pytest.mark.parametrize("name", ["variables.data", "saved_model.pb"])
def test_what_was_written_when_ctrl_c_came_is_taken_away(
    name: str, stores: Stores, place: Location, bundle: Path
) -> None:
    """It comes when the store has answered, and before anyone has taken note of that."""

    def press(key: str) -> None:
        if key.endswith(name):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(WatchedStores(after_write=press), bundle, place)
    assert names(stores, place) == []


@pytest.mark.parametrize("library", ["file"], indirect=True)
def test_what_an_interrupted_one_left_is_no_part_of_the_next(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(StorageUnavailable):
        publish(interrupted_at("saved_model.pb"), bundle, place)
    publish(stores, write_bundle(tmp_path / "other", weights=b"other", labels=None), place)
    copy = local_copy(stores, place, tmp_path / "copy")
    assert read_bundle(copy).labels == ()
    assert is_whole(copy)


@pytest.mark.parametrize("library", ["file"], indirect=True)
def test_what_is_left_unfinished_is_not_replaced(
    stores: Stores, place: Location, bundle: Path
) -> None:
    """Its publisher may still be at it, and their files would mix."""
    stores.open(place).create(place.prefix + CARD_FILE, b"{}")
    with pytest.raises(Conflict, match="unfinished") as caught:
        publish(stores, bundle, place, force=True)
    remove = f"millrace models rm tiny:1 --models {place.uri.removesuffix('/tiny/1')}"
    assert remove in (caught.value.hint or "")


def test_a_bucket_that_is_not_there_is_told(bundle: Path, bucket: str) -> None:
    nowhere = Location.parse(f"s3://{bucket}-not/models/tiny/1")
    with pytest.raises(ObjectNotFound, match="there is no such bucket"):
        publish(Stores(Settings.load()), bundle, nowhere)


def test_one_without_a_card_is_a_conflict_and_stays(
    stores: Stores, place: Location, bundle: Path, theirs: dict[str, bytes]
) -> None:
    with pytest.raises(Conflict, match="stands already"):
        publish(stores, bundle, place)
    assert content(stores, place) == theirs


def test_what_comes_between_is_not_overwritten(
    stores: Stores, place: Location, bundle: Path
) -> None:
    """Another tool puts its graph there when ours has looked, and is about to claim the place."""

    def come(key: str, data: bytes) -> None:
        if key.endswith(".claim"):
            stores.open(place).put(place.prefix + "saved_model.pb", b"their graph")

    with pytest.raises(Conflict, match="stands already"):
        publish(WatchedStores(before_create=come), bundle, place)
    assert content(stores, place) == {"saved_model.pb": b"their graph"}


@pytest.mark.parametrize("force", [False, True])
def test_what_lies_there_without_a_graph_is_not_overwritten(
    force: bool, stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    stores.open(place).put(place.prefix + "variables/variables.data", b"on its way")
    with pytest.raises(Conflict, match="unfinished") as caught:
        publish(stores, bundle, place, force=force)
    assert content(stores, place) == {"variables/variables.data": b"on its way"}
    # What the hint says makes room.
    assert f"millrace models rm tiny:1 --models {library.uri}" in (caught.value.hint or "")
    assert remove(stores, ModelRef("tiny", "1"), Repository(stores, library)) == 1
    publish(stores, bundle, place)
    assert names(stores, place) == FILES


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_model_s_is_named_and_left(
    force: bool, stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """`models rm` removes models, and not any folder two levels down."""
    stores.open(place).put(place.prefix + ".DS_Store", b"of a Mac")
    with pytest.raises(Conflict) as caught:
        publish(stores, bundle, place, force=force)
    assert (caught.value.hint or "").endswith(f"remove {place}/.DS_Store")
    assert content(stores, place) == {".DS_Store": b"of a Mac"}
    with pytest.raises(ModelNotFound):
        remove(stores, ModelRef("tiny", "1"), Repository(stores, library))
    stores.open(place).delete(place.prefix + ".DS_Store")
    publish(stores, bundle, place)
