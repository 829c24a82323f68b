"""Publishing a bundle: visible all at once, and never over another."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from millrace.core.bundle import compute_digest, read_bundle
from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.errors import Conflict, ModelNotFound, ObjectNotFound, StorageUnavailable
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository
from millrace.core.settings import Settings
from millrace.core.storage import Location, ObjectInfo, Store, Stores
from millrace.export.publish import publish
from millrace.export.transfer import copy, remove

FILES = [
    "assets.extra/labels.txt",
    "assets.extra/millrace.json",
    "saved_model.pb",
    "variables/variables.data",
    "variables/variables.index",
]


def write_bundle(path: Path, *, weights: bytes = b"weights", labels: str | None = "a\nb\n") -> Path:
    """A bundle whose graph is never loaded: publishing reads none."""
    (path / "variables").mkdir(parents=True)
    (path / "assets.extra").mkdir()
    (path / "saved_model.pb").write_bytes(b"graph of " + weights)
    (path / "variables" / "variables.data").write_bytes(weights)
    (path / "variables" / "variables.index").write_bytes(b"index of " + weights)
    if labels is not None:
        (path / LABELS_FILE).write_text(labels)
    card = Card.make(name="tiny", version="1", signature="s", height=8, width=8)
    card = card.model_copy(update={"digest": compute_digest(path, card)})
    (path / CARD_FILE).write_text(card.model_dump_json())
    return path


class Watched(Store):
    """A real store, and what happens before each write of it, and after, and before a delete."""

    def __init__(
        self,
        store: Store,
        before_write: Callable[[str], None],
        after_write: Callable[[str], None],
        before_delete: Callable[[str], None],
    ) -> None:
        self._store, self._before_write, self._after_write = store, before_write, after_write
        self._before_delete = before_delete

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix, after=after)

    def head(self, key: str) -> ObjectInfo:
        return self._store.head(key)

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        return self._store.get(key, if_match=if_match, max_bytes=max_bytes)

    def blocks(self, key: str) -> Iterator[bytes]:
        return self._store.blocks(key)

    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        self._before_write(key)
        self._store.put(key, data)
        self._after_write(key)

    def create(self, key: str, data: bytes) -> None:
        self._before_write(key)
        self._store.create(key, data)

    def delete(self, key: str) -> None:
        self._before_delete(key)
        self._store.delete(key)


class WatchedStores(Stores):
    """Stores whose writes are watched."""

    def __init__(
        self,
        before_write: Callable[[str], None] = lambda key: None,
        after_write: Callable[[str], None] = lambda key: None,
        before_delete: Callable[[str], None] = lambda key: None,
    ) -> None:
        super().__init__(Settings.load())
        self._watching = before_write, after_write, before_delete

    def open(self, location: Location) -> Store:
        return Watched(super().open(location), *self._watching)


@pytest.fixture
def stores() -> Stores:
    return Stores(Settings.load())


@pytest.fixture(params=["file", "s3"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty repository: a directory, then a bucket."""
    if request.param == "file":
        return Location.parse(str(tmp_path / "library"))
    return Location.parse(f"s3://{request.getfixturevalue('bucket')}/models")


@pytest.fixture
def place(library: Location) -> Location:
    return library.child("tiny").child("1")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def names(stores: Stores, place: Location) -> list[str]:
    return sorted(item.key[len(place.prefix) :] for item in stores.open(place).list(place.prefix))


def names_or_none(stores: Stores, place: Location) -> list[str]:
    """A directory that is empty is none."""
    try:
        return names(stores, place)
    except ObjectNotFound:
        return []


def local_copy(stores: Stores, place: Location, into: Path) -> Path:
    """The published bundle on this disk."""
    for name in names(stores, place):
        file = into / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stores.open(place).get(place.prefix + name))
    return into


def is_whole(path: Path) -> bool:
    """Whether a bundle's files are those its card's digest was made of."""
    card = read_bundle(path).card
    return compute_digest(path, card) == card.digest


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


def interrupted_at(name: str) -> WatchedStores:
    """Stores that fail from the writing of one file on."""

    def fail(key: str) -> None:
        if key.endswith(name):
            raise StorageUnavailable(f"the line was cut at {key}")

    return WatchedStores(fail)


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


def replacement(tmp_path: Path) -> Path:
    """Another bundle, without labels."""
    return write_bundle(tmp_path / "new", weights=b"new weights", labels=None)


def content(stores: Stores, place: Location) -> dict[str, bytes]:
    store = stores.open(place)
    return {name: store.get(place.prefix + name) for name in names(stores, place)}


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
    """Before each write there is the old version, none, or the new one."""
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

    publish(WatchedStores(look), new, place, force=True)
    look("")
    assert seen[0] == b"weights"
    assert seen[-1] == b"new weights"
    assert set(seen[2:-1]) == {None}


def failing_once(at: str) -> WatchedStores:
    """Stores that fail to write one file of a version that is to be replaced, the first time."""
    failed = threading.Event()
    keys: list[str] = []

    def fail_once(key: str) -> None:
        keys.append(key)
        # The first write of the card is the attempt to claim a version that is not there.
        claim = at == "millrace.json" and keys.count(key) == 1
        if key.endswith(at) and not claim and not failed.is_set():
            failed.set()
            raise StorageUnavailable(f"the line was cut at {key}")

    return WatchedStores(fail_once)


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


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps what it needs for a moment."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


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


# --- a SavedModel of others, which has no card, and so no claim ---


@pytest.fixture(params=["saved_model.pb", "saved_model.pbtxt"])
def theirs(request: pytest.FixtureRequest, stores: Stores, place: Location) -> dict[str, bytes]:
    files = {request.param: b"their graph", "variables/variables.data": b"their weights"}
    files["variables/more.data"] = b"which we do not have"
    for name, data in files.items():
        stores.open(place).put(place.prefix + name, data)
    return files


def test_one_without_a_card_is_a_conflict_and_stays(
    stores: Stores, place: Location, bundle: Path, theirs: dict[str, bytes]
) -> None:
    with pytest.raises(Conflict, match="stands already"):
        publish(stores, bundle, place)
    assert content(stores, place) == theirs


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


def test_what_comes_between_is_not_overwritten(
    stores: Stores, place: Location, bundle: Path
) -> None:
    """Another tool puts its graph there when ours has looked, and is about to claim the place."""

    def come(key: str) -> None:
        if key.endswith(CARD_FILE):
            stores.open(place).put(place.prefix + "saved_model.pb", b"their graph")

    with pytest.raises(Conflict, match="stands already"):
        publish(WatchedStores(come), bundle, place)
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


def test_whose_claim_was_removed_publishes_nothing(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    def remove_the_claim(key: str) -> None:
        if key.endswith("variables.data"):
            stores.open(place).delete(place.prefix + CARD_FILE)

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


def test_the_same_bundle_published_twice_at_once_stays_whole(
    stores: Stores, library: Location, place: Location, bundle: Path
) -> None:
    """The cards are equal: whose claim it is, only what was written since can tell."""

    def come_between(key: str) -> None:
        if key.endswith("variables.index"):
            remove(stores, ModelRef("tiny", "1"), Repository(stores, library))
            publish(stores, bundle, place)
            raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable, match="the line was cut"):
        publish(WatchedStores(come_between), bundle, place)
    assert names(stores, place) == FILES


def test_a_version_without_a_card_keeps_the_new_one_when_the_mark_cannot_be_removed(
    stores: Stores, place: Location, bundle: Path
) -> None:
    stores.open(place).put(place.prefix + "saved_model.pb", [b"of others"])

    def fail(key: str) -> None:
        if key.endswith(".replacing"):
            raise StorageUnavailable("the line was cut")

    with pytest.raises(StorageUnavailable):
        publish(WatchedStores(before_delete=fail), bundle, place, force=True)
    assert names(stores, place) == FILES
