"""Bundles between repositories: whole, verified, and never over another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from millrace.core.bundle import compute_digest, read_bundle
from millrace.core.card import CARD_FILE
from millrace.core.errors import Conflict, ModelError, ModelNotFound, UsageError
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.export.transfer import copy, remove
from tests.unit.worker.bundles import write_bundle

pytestmark = pytest.mark.usefixtures("no_environment")

TINY = ModelRef("tiny")


@pytest.fixture
def stores() -> Stores:
    return Stores(Settings.load())


@pytest.fixture
def here(stores: Stores, tmp_path: Path) -> Repository:
    """Versions 1, 9 and 10 of `tiny`."""
    for version in ("1", "9", "10"):
        write_bundle(tmp_path / "here" / "tiny" / version, version=version, labels="a\nb\n")
    return Repository(stores, Location.parse(str(tmp_path / "here")))


@pytest.fixture(params=["file", "s3"])
def there(request: pytest.FixtureRequest, stores: Stores, tmp_path: Path) -> Repository:
    """Another one, empty: a directory that is not there yet, then a bucket."""
    place = str(tmp_path / "there")
    if request.param == "s3":
        place = f"s3://{request.getfixturevalue('bucket')}/models"
    return Repository(stores, Location.parse(place))


@pytest.fixture
def beside(stores: Stores, tmp_path: Path) -> Repository:
    return Repository(stores, Location.parse(str(tmp_path / "beside")))


def names(stores: Stores, repository: Repository) -> set[str]:
    prefix = repository.location.prefix
    listed = stores.open(repository.location).list(prefix)
    return {item.key.removeprefix(prefix) for item in listed}


def test_a_copy_is_what_it_was_copied_from(
    stores: Stores, here: Repository, there: Repository, tmp_path: Path
) -> None:
    copied = copy(stores, ModelRef("tiny", "9"), here, there)
    original = read_bundle(tmp_path / "here" / "tiny" / "9")
    assert (copied.version, copied.digest, copied.new) == ("9", original.digest, True)
    there.fetch(there.resolve(TINY), tmp_path / "fetched")
    fetched = read_bundle(tmp_path / "fetched")
    assert (fetched.card, fetched.labels) == (original.card, original.labels)
    assert compute_digest(fetched.path, fetched.card) == original.digest


def test_a_name_alone_is_its_highest_version(
    stores: Stores, here: Repository, there: Repository
) -> None:
    assert copy(stores, TINY, here, there).version == "10"
    assert there.versions("tiny") == ["10"]


def test_it_may_go_back_and_forth(
    stores: Stores, here: Repository, there: Repository, beside: Repository
) -> None:
    digest = copy(stores, TINY, here, there).digest
    assert copy(stores, TINY, there, beside).digest == digest


def test_the_same_that_stands_is_left_and_no_other_is_overwritten(
    stores: Stores, here: Repository, there: Repository, tmp_path: Path
) -> None:
    copy(stores, TINY, here, there)
    before = names(stores, there)
    again = copy(stores, TINY, here, there)
    assert not again.new
    write_bundle(tmp_path / "other" / "tiny" / "10", version="10", labels="c\nd\n")
    other = Repository(stores, Location.parse(str(tmp_path / "other")))
    with pytest.raises(Conflict, match="stands already"):
        copy(stores, TINY, other, there)
    assert names(stores, there) == before
    assert there.resolve(TINY).card.digest == again.digest


def test_what_stands_under_the_same_digest_and_is_damaged_is_a_conflict(
    stores: Stores, here: Repository, beside: Repository, tmp_path: Path
) -> None:
    copy(stores, TINY, here, beside)
    (tmp_path / "beside" / "tiny" / "10" / "variables" / "variables.data").write_bytes(b"other")
    with pytest.raises(Conflict):
        copy(stores, TINY, here, beside)


@pytest.mark.parametrize("card", [None, b"{", b"\xff"])
def test_what_stands_without_a_card_that_can_be_read_is_a_conflict(
    card: bytes | None, stores: Stores, here: Repository, beside: Repository, tmp_path: Path
) -> None:
    copy(stores, TINY, here, beside)
    file = tmp_path / "beside" / "tiny" / "10" / CARD_FILE
    file.unlink() if card is None else file.write_bytes(card)
    with pytest.raises(Conflict, match="stands already") as caught:
        copy(stores, TINY, here, beside)
    where = f"millrace models rm tiny:10 --models {beside.location}"
    assert caught.value.hint == f"to replace it, first:  {where}"
    remove(stores, ModelRef("tiny", "10"), beside)
    assert copy(stores, TINY, here, beside).new


def test_who_is_turned_away_by_a_claim_is_not_told_to_remove_what_stands(
    stores: Stores, here: Repository, beside: Repository, tmp_path: Path
) -> None:
    """It may be somebody else's, whole in a moment."""
    write_bundle(tmp_path / "beside" / "tiny" / "10", version="10", labels="c\nd\n")
    (tmp_path / "beside" / "tiny" / "10" / "saved_model.pb").unlink()
    (tmp_path / "beside" / "tiny" / ".10.claim").touch()
    with pytest.raises(Conflict, match="is being published") as caught:
        copy(stores, TINY, here, beside)
    assert (caught.value.hint or "").startswith("publish under the next version; if nobody")


def test_where_files_of_no_model_lie_is_said_which(
    stores: Stores, here: Repository, beside: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "beside" / "tiny" / "10" / ".DS_Store"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(Conflict) as caught:
        copy(stores, TINY, here, beside)
    assert (caught.value.hint or "").endswith(f"remove {file.as_uri()}")
    file.unlink()
    assert copy(stores, TINY, here, beside).new


def test_files_that_are_not_those_of_the_digest_are_not_copied(
    stores: Stores, here: Repository, there: Repository, tmp_path: Path
) -> None:
    (tmp_path / "here" / "tiny" / "10" / "variables" / "variables.data").write_bytes(b"cut")
    with pytest.raises(ModelError, match="do not match the card's digest"):
        copy(stores, TINY, here, there)
    assert names_or_none(stores, there) == set()


def names_or_none(stores: Stores, repository: Repository) -> set[str]:
    if repository.location.scheme == "file" and not Path(repository.location.root).exists():
        return set()
    return names(stores, repository)


def test_a_card_of_another_name_is_not_copied(
    stores: Stores, here: Repository, there: Repository, tmp_path: Path
) -> None:
    (tmp_path / "here" / "tiny").rename(tmp_path / "here" / "huge")
    with pytest.raises(ModelError, match="the card is of 'tiny'"):
        copy(stores, ModelRef("huge"), here, there)


def test_a_card_without_a_digest_is_copied_as_it_is(
    stores: Stores, here: Repository, there: Repository, tmp_path: Path
) -> None:
    file = tmp_path / "here" / "tiny" / "10" / CARD_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"digest": None}))
    copied = copy(stores, TINY, here, there)
    assert copied.digest.startswith("sha256:")
    assert there.resolve(TINY).card.digest is None
    assert not copy(stores, TINY, here, there).new


def test_a_model_in_text_is_refused(
    stores: Stores, here: Repository, there: Repository, tmp_path: Path
) -> None:
    folder = tmp_path / "here" / "tiny" / "10"
    (folder / "saved_model.pb").rename(folder / "saved_model.pbtxt")
    with pytest.raises(ModelError, match="in text"):
        copy(stores, TINY, here, there)


def test_what_is_not_there_is_not_found(
    stores: Stores, here: Repository, there: Repository
) -> None:
    for ref in (ModelRef("tiny", "2"), ModelRef("huge")):
        with pytest.raises(ModelNotFound):
            copy(stores, ref, here, there)


def test_one_version_is_removed_and_the_others_stay(
    stores: Stores, here: Repository, there: Repository
) -> None:
    for version in ("1", "9", "10"):
        copy(stores, ModelRef("tiny", version), here, there)
    assert remove(stores, ModelRef("tiny", "1"), there) == 4
    assert there.versions("tiny") == ["9", "10"]
    assert {name.split("/")[1] for name in names(stores, there)} == {"9", "10"}
    copy(stores, ModelRef("tiny", "1"), here, there)


def test_what_was_left_unfinished_is_removed_too(
    stores: Stores, beside: Repository, here: Repository, tmp_path: Path
) -> None:
    copy(stores, TINY, here, beside)
    (tmp_path / "beside" / "tiny" / "10" / "saved_model.pb").unlink()
    with pytest.raises(Conflict, match="left unfinished"):
        copy(stores, TINY, here, beside)
    assert remove(stores, ModelRef("tiny", "10"), beside) == 3
    assert not (tmp_path / "beside" / "tiny" / "10").exists()
    assert copy(stores, TINY, here, beside).new


def test_only_a_version_is_removed(stores: Stores, here: Repository) -> None:
    with pytest.raises(UsageError, match="which version of tiny") as caught:
        remove(stores, TINY, here)
    assert (caught.value.hint or "").endswith("holds 1, 9, 10")
    with pytest.raises(ModelNotFound, match="there is no tiny:2") as missing:
        remove(stores, ModelRef("tiny", "2"), here)
    assert missing.value.hint == "of tiny it holds 1, 9, 10"
    assert here.versions("tiny") == ["1", "9", "10"]
