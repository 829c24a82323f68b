"""Replacing a version: the new one whole, or the old one back."""

from __future__ import annotations

import threading
from itertools import groupby
from pathlib import Path

import pytest

from millrace.core.bundle import read_bundle
from millrace.core.errors import StorageUnavailable
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository
from millrace.core.storage import Location, Stores
from millrace.export.publish import publish
from millrace.export.transfer import copy, remove
from tests.unit.export.publishing import (
    FILES,
    WatchedStores,
    content,
    failing_once,
    is_whole,
    local_copy,
    names,
    replacement,
)


def test_by_force_a_version_is_replaced_whole(
    stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    publish(stores, bundle, place)
    publish(stores, replacement(tmp_path), place, force=True)
    copy = local_copy(stores, place, tmp_path / "copy")
    assert is_whole(copy)
    assert read_bundle(copy).labels == ()
    assert (copy / "variables" / "variables.data").read_bytes() == b"new weights"
    home = library.child("tiny")
    left = [item.key[len(home.prefix) :] for item in stores.open(home).list(home.prefix)]
    assert all(name.startswith("1/") for name in left)


def test_force_is_nothing_to_a_version_that_is_not_there(
    stores: Stores, place: Location, bundle: Path
) -> None:
    publish(stores, bundle, place, force=True)
    assert names(stores, place) == FILES


def test_no_one_sees_a_mixture_while_a_version_is_replaced(
    stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    """Before each write and delete there is the old version, none, or the new one."""
    publish(stores, bundle, place)
    new = replacement(tmp_path)
    seen: list[bytes | None] = []

    def look(key: str) -> None:
        stands = Repository(stores, library).versions("tiny") == ["1"]
        if stands:
            copy = local_copy(stores, place, tmp_path / f"copy-{len(seen)}")
            assert is_whole(copy)
            seen.append((copy / "variables" / "variables.data").read_bytes())
        else:
            seen.append(None)

    publish(WatchedStores(look, before_delete=look), new, place, force=True)
    assert [found for found, _ in groupby(seen)] == [b"weights", None, b"new weights"]


@pytest.mark.parametrize("at", ["millrace.json", "variables.data", "saved_model.pb"])
def test_if_replacing_fails_the_old_version_is_back(
    at: str, stores: Stores, library: Location, place: Location, bundle: Path, tmp_path: Path
) -> None:
    publish(stores, bundle, place)
    before = content(stores, place)
    with pytest.raises(StorageUnavailable):
        publish(failing_once(at), replacement(tmp_path), place, force=True)
    assert content(stores, place) == before
    assert Repository(stores, library).versions("tiny") == ["1"]
    publish(stores, tmp_path / "new", place, force=True)
    assert is_whole(local_copy(stores, place, tmp_path / "copy"))


def failing_for_good(at: str, also: str = "") -> WatchedStores:
    """Stores that never write one file of a version that is to be replaced, and that, from the
    first try on, write no file whose name ends in `also`."""
    failed = threading.Event()

    def fail(key: str) -> None:
        if key.endswith(at) or (also and failed.is_set() and key.endswith(also)):
            failed.set()
            raise StorageUnavailable(f"no space left for {key}")

    return WatchedStores(fail)


def test_if_there_is_no_room_for_the_new_files_the_old_version_is_back(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path, temporary: Path
) -> None:
    """Nor is there for the old ones beside themselves: they are left as they are."""
    publish(stores, bundle, place)
    before = content(stores, place)
    with pytest.raises(StorageUnavailable, match="no space left"):
        publish(failing_for_good("variables.data"), replacement(tmp_path), place, force=True)
    assert content(stores, place) == before
    assert not [*temporary.iterdir()]


def test_what_cannot_be_put_back_is_kept(
    stores: Stores,
    library: Location,
    place: Location,
    bundle: Path,
    tmp_path: Path,
    temporary: Path,
) -> None:
    publish(stores, bundle, place)
    before = content(stores, place)
    failing = failing_for_good("variables.data", also="saved_model.pb")
    with pytest.raises(StorageUnavailable, match="neither replaced nor put back") as caught:
        publish(failing, replacement(tmp_path), place, force=True)
    (kept,) = temporary.iterdir()
    old = kept / "tiny" / "1"
    assert {name: (old / name).read_bytes() for name in before} == before
    # What the hint says brings it back.
    repository = library.uri
    assert (caught.value.hint or "").startswith(f"its old files are kept in {old}; ")
    assert f"millrace models rm tiny:1 --models {repository}" in (caught.value.hint or "")
    assert f"models push tiny:1 --from {kept} --to {repository}" in (caught.value.hint or "")
    source, target = Repository(stores, Location.parse(str(kept))), Repository(stores, library)
    remove(stores, ModelRef("tiny", "1"), target)
    copy(stores, ModelRef("tiny", "1"), source, target)
    assert content(stores, place) == before


def test_a_damaged_version_that_is_kept_is_not_to_be_pushed(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path, temporary: Path
) -> None:
    """It would be refused."""
    (bundle / "variables" / "variables.data").write_bytes(b"damaged")
    publish(stores, bundle, place)
    failing = failing_for_good("variables.data", also="saved_model.pb")
    with pytest.raises(StorageUnavailable) as caught:
        publish(failing, replacement(tmp_path), place, force=True)
    assert (caught.value.hint or "").endswith(f"copy them to {place}")
    assert [*temporary.iterdir()]


def test_a_second_signal_while_it_is_put_back_loses_nothing(
    stores: Stores, place: Location, bundle: Path, tmp_path: Path, temporary: Path
) -> None:
    publish(stores, bundle, place)
    before = content(stores, place)
    pressed = threading.Event()

    def press(key: str) -> None:
        if pressed.is_set() or key.endswith("variables.data"):
            pressed.set()
            raise KeyboardInterrupt

    with pytest.raises(StorageUnavailable, match="interrupted") as caught:
        publish(WatchedStores(press), replacement(tmp_path), place, force=True)
    (kept,) = temporary.iterdir()
    assert str(kept) in (caught.value.hint or "")
    assert {name: (kept / "tiny" / "1" / name).read_bytes() for name in before} == before


def test_by_force_one_without_a_card_is_replaced_whole(
    stores: Stores, place: Location, bundle: Path, theirs: dict[str, bytes], tmp_path: Path
) -> None:
    publish(stores, bundle, place, force=True)
    assert names(stores, place) == FILES
    assert is_whole(local_copy(stores, place, tmp_path / "copy"))


@pytest.mark.parametrize("at", ["millrace.json", "variables.data", "saved_model.pb"])
def test_if_replacing_one_without_a_card_fails_it_is_back(
    at: str, stores: Stores, place: Location, bundle: Path, theirs: dict[str, bytes]
) -> None:
    with pytest.raises(StorageUnavailable):
        publish(failing_once(at), bundle, place, force=True)
    assert content(stores, place) == theirs
