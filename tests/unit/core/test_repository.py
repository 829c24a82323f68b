"""The model repository, in a directory and in a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.errors import ModelError, ModelNotFound, StorageUnavailable, UsageError
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository, claim_name, local_path
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores


class Shelf:
    """A repository to put bundles into."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.stores = Stores(StorageSettings.load())
        self.store = self.stores.open(location)
        self.repository = Repository(self.stores, location)

    def put(self, name: str, version: str, card: bytes | None = None) -> None:
        prefix = f"{self.location.prefix}{name}/{version}/"
        self.store.put(f"{prefix}saved_model.pb", b"graph")
        self.store.put(f"{prefix}variables/variables.index", b"weights")
        made = Card.make(name=name, version=version, height=8, width=8, signature="serve")
        self.store.put(prefix + CARD_FILE, card or made.model_dump_json().encode())


@pytest.fixture(params=["directory", "memory", "prefix"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    places = {
        "directory": str(tmp_path / "models"),
        "memory": "memory://models",
        "prefix": "memory://bucket/all/models",
    }
    return Shelf(Location.parse(places[request.param]))


def test_names_are_the_folders_that_hold_a_model(shelf: Shelf) -> None:
    shelf.put("zebra", "1")
    shelf.put("ant", "1")
    shelf.put("ant", "2")
    shelf.store.put(f"{shelf.location.prefix}notes/1/readme.txt", b"")
    shelf.store.put(f"{shelf.location.prefix}deep/a/b/saved_model.pb", b"")
    assert shelf.repository.names() == ["ant", "zebra"]


def test_versions_that_are_numbers_sort_as_numbers_and_after_names(shelf: Shelf) -> None:
    for version in ("10", "9", "beta", "100", "alpha", "1"):
        shelf.put("m", version)
    assert shelf.repository.versions("m") == ["alpha", "beta", "1", "9", "10", "100"]


def test_a_folder_whose_name_is_no_version_is_none(shelf: Shelf) -> None:
    shelf.put("m", "1")
    for folder in ("²", ".hidden", "a b"):  # "²".isdigit() is true, and int("²") an error
        shelf.store.put(f"{shelf.location.prefix}m/{folder}/saved_model.pb", b"graph")
    assert shelf.repository.versions("m") == ["1"]


def test_a_name_alone_is_its_highest_version(shelf: Shelf) -> None:
    for version in ("9", "10", "rc"):
        shelf.put("m", version)
    found = shelf.repository.resolve(ModelRef("m"))
    assert (found.name, found.version) == ("m", "10")
    assert found.location == shelf.location.child("m").child("10")
    assert found.card.version == "10"


def test_a_pinned_version_is_found(shelf: Shelf) -> None:
    for version in ("1", "2"):
        shelf.put("m", version)
    assert shelf.repository.resolve(ModelRef("m", "1")).version == "1"


def test_a_model_is_not_found_under_the_start_of_its_name(shelf: Shelf) -> None:
    shelf.put("resnet50", "1")
    with pytest.raises(ModelNotFound):
        shelf.repository.resolve(ModelRef("resnet"))


def test_a_missing_model_hints_at_what_there_is(shelf: Shelf) -> None:
    shelf.put("ant", "1")
    shelf.put("bee", "1")
    with pytest.raises(ModelNotFound, match="there is no model 'cat'") as caught:
        shelf.repository.resolve(ModelRef("cat"))
    assert caught.value.hint == "it holds ant, bee"


def test_a_missing_version_hints_at_those_there_are(shelf: Shelf) -> None:
    shelf.put("ant", "1")
    shelf.put("ant", "2")
    with pytest.raises(ModelNotFound, match="no version 3 of 'ant'") as caught:
        shelf.repository.resolve(ModelRef("ant", "3"))
    assert caught.value.hint == "it holds 1, 2"


def test_a_saved_model_without_a_card_is_no_bundle(shelf: Shelf) -> None:
    shelf.store.put(f"{shelf.location.prefix}m/1/saved_model.pb", b"graph")
    with pytest.raises(ModelError, match="not a millrace bundle"):
        shelf.repository.resolve(ModelRef("m"))


def test_a_card_that_cannot_be_read_says_where_it_lies(shelf: Shelf) -> None:
    shelf.put("m", "1", card=b"{}")
    with pytest.raises(ModelError, match=r"m/1/assets\.extra/millrace\.json: "):
        shelf.repository.resolve(ModelRef("m"))


def test_the_files_of_a_bundle_are_its_own_alone(shelf: Shelf) -> None:
    for version in ("1", "10"):
        shelf.put("m", version)
    bundle = shelf.repository.resolve(ModelRef("m", "1"))
    names = {
        item.key.removeprefix(bundle.location.prefix) for item in shelf.repository.files(bundle)
    }
    assert names == {"saved_model.pb", "variables/variables.index", CARD_FILE}


def test_every_version_s_place_is_told_also_of_what_is_no_bundle_yet(shelf: Shelf) -> None:
    for version in ("10", "9"):
        shelf.put("m", version)
    prefix = shelf.location.prefix
    shelf.store.put(f"{prefix}a/1/{CARD_FILE}", b"{}")
    shelf.store.put(f"{prefix}z/1/saved_model.pbtxt", b"graph")
    shelf.store.put(f"{prefix}half/1/variables/variables.index", b"on its way")
    for nothing in ("notes/1/readme.txt", "m/readme.txt", ".m/1/saved_model.pb"):
        shelf.store.put(prefix + nothing, b"")
    found = shelf.repository.shelves()
    assert [(each.name, each.version, each.complete) for each in found] == [
        ("a", "1", False),
        ("half", "1", False),
        ("m", "9", True),
        ("m", "10", True),
        ("z", "1", True),
    ]
    whole = found[2]
    assert {item.key for item in whole.files} == {
        "saved_model.pb",
        "variables/variables.index",
        CARD_FILE,
    }
    files = shelf.repository.files(shelf.repository.resolve(ModelRef("m", "9")))
    assert whole.bytes == sum(item.size for item in files)


def test_a_claim_keeps_a_version_s_place(shelf: Shelf) -> None:
    shelf.put("m", "1")
    for path in (
        "m/.1.claim",
        "m/.2.claim",
        "m/..claim",
        "m/.a b.claim",
        ".n/.1.claim",
        ".1.claim",
    ):
        shelf.store.put(shelf.location.prefix + path, b"")
    found = shelf.repository.shelves()
    assert [(each.version, each.claimed, each.complete) for each in found] == [
        ("1", True, True),
        ("2", True, False),
    ]
    assert found[1].files == []
    assert shelf.repository.versions("m") == ["1"]
    assert claim_name("1") == ".1.claim"


def test_a_bundle_is_fetched_as_it_is(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("m", "1")
    bundle = shelf.repository.resolve(ModelRef("m"))
    shelf.repository.fetch(bundle, tmp_path / "copy")
    assert (tmp_path / "copy" / "saved_model.pb").read_bytes() == b"graph"
    assert (tmp_path / "copy" / "variables" / "variables.index").read_bytes() == b"weights"


def test_a_full_disk_is_told_where_a_bundle_is_fetched(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("m", "1")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "saved_model.pb").symlink_to("/dev/full")
    with pytest.raises(StorageUnavailable, match=r"saved_model\.pb cannot be written: No space"):
        shelf.repository.fetch(shelf.repository.resolve(ModelRef("m")), tmp_path / "copy")


def test_labels_are_read_where_there_are_any(shelf: Shelf) -> None:
    for version in ("1", "2", "3"):
        shelf.put("m", version)
    shelf.store.put(f"{shelf.location.prefix}m/2/{LABELS_FILE}", "été\r\nhiver\n".encode())
    shelf.store.put(f"{shelf.location.prefix}m/3/{LABELS_FILE}", b"\xff\xfe")
    none, two, broken = shelf.repository.shelves()
    assert shelf.repository.labels(none) == ()
    assert shelf.repository.labels(two) == ("été", "hiver")
    with pytest.raises(ModelError, match=r"labels\.txt"):
        shelf.repository.labels(broken)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    repository = Shelf(Location.parse(str(tmp_path / "nowhere"))).repository
    with pytest.raises(ModelNotFound, match="there is no model repository at"):
        repository.names()


def test_only_a_file_location_has_a_local_path() -> None:
    assert local_path(Location.parse("/models")) == Path("/models")
    assert local_path(Location.parse("s3://models")) is None


@pytest.mark.parametrize("place", ["memory://bucket/../models", "s3://bucket/a/./b", "s3://b/.."])
def test_a_place_that_leads_elsewhere_is_no_repository(place: str) -> None:
    with pytest.raises(UsageError, match="a repository's name"):
        Repository(Stores(StorageSettings.load()), Location.parse(place))
