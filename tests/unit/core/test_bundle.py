"""Bundles on disk: what makes one, its labels, and a digest that tells any two apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.bundle import Bundle, compute_digest, is_saved_model, read_bundle, read_labels
from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.sizes import MAX_CARD_BYTES


def a_card(**facts: object) -> Card:
    return Card.make(**{"name": "m", "height": 8, "width": 8, "signature": "serve", **facts})


def a_bundle(path: Path, card: Card | None = None, labels: str | None = "cat\ndog\n") -> Path:
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"graph")
    (path / "variables" / "variables.index").write_bytes(b"weights")
    (path / "assets.extra").mkdir()
    (path / CARD_FILE).write_text((card or a_card()).model_dump_json())
    if labels is not None:
        (path / LABELS_FILE).write_text(labels)
    return path


def test_a_bundle_is_its_path_its_card_and_its_labels(tmp_path: Path) -> None:
    path = a_bundle(tmp_path / "1")
    assert read_bundle(path) == Bundle(path, a_card(), ("cat", "dog"))


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_a_saved_model_is_binary_or_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert is_saved_model(tmp_path)


def test_a_directory_without_a_graph_is_no_saved_model(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").mkdir()
    assert not is_saved_model(tmp_path)
    with pytest.raises(ModelNotFound, match="holds no SavedModel"):
        read_bundle(tmp_path)


def test_a_saved_model_without_a_card_says_how_to_use_it(tmp_path: Path) -> None:
    path = a_bundle(tmp_path / "1")
    (path / CARD_FILE).unlink()
    with pytest.raises(ModelError, match="without a card") as caught:
        read_bundle(path)
    assert "--saved-model" in (caught.value.hint or "")


def test_a_card_of_a_megabyte_is_refused_unread(tmp_path: Path) -> None:
    path = a_bundle(tmp_path / "1")
    (path / CARD_FILE).write_bytes(b" " * (MAX_CARD_BYTES + 1))
    with pytest.raises(ModelError, match="is larger than"):
        read_bundle(path)


def test_labels_are_lines_and_their_number_is_the_index(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("background\r\nchat tigré\n\nlast".encode())
    assert read_labels(file) == ("background", "chat tigré", "", "last")


def test_a_byte_order_mark_is_no_part_of_a_label(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(b"\xef\xbb\xbfcat\ndog\n")
    assert read_labels(file) == ("cat", "dog")


def test_an_empty_labels_file_is_no_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").touch()
    assert read_labels(tmp_path / "labels.txt") == ()


def test_no_labels_file_is_no_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path / "labels.txt") == ()


def test_labels_that_are_not_utf8_are_a_model_error(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"labels\.txt"):
        read_labels(file)


def test_the_digest_of_the_same_files_and_facts_is_the_same(tmp_path: Path) -> None:
    one, other = a_bundle(tmp_path / "one"), a_bundle(tmp_path / "other")
    assert compute_digest(one, a_card()) == compute_digest(other, a_card())


def test_the_digest_does_not_contain_itself(tmp_path: Path) -> None:
    path = a_bundle(tmp_path / "1")
    digest = compute_digest(path, a_card())
    (path / CARD_FILE).write_text(a_card(digest=digest).model_dump_json())
    assert compute_digest(path, a_card(digest=digest)) == digest
    assert read_bundle(path).digest == digest


def test_a_card_without_a_digest_has_its_files_hashed(tmp_path: Path) -> None:
    path = a_bundle(tmp_path / "1")
    assert read_bundle(path).digest == compute_digest(path, a_card())


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "saved_model.pb").write_bytes(b"grapH"),
        lambda path: (path / "variables/variables.index").write_bytes(b"weights2"),
        lambda path: (path / "variables/more").touch(),
        lambda path: (path / "variables/variables.index").rename(path / "variables/v.index"),
        lambda path: (path / "variables/variables.index").unlink(),
        lambda path: (path / LABELS_FILE).write_text("dog\ncat\n"),
    ],
    ids=["graph", "weights", "file added", "file renamed", "file removed", "labels"],
)
def test_a_changed_file_changes_the_digest(tmp_path: Path, change: object) -> None:
    path = a_bundle(tmp_path / "1")
    before = compute_digest(path, a_card())
    assert callable(change)
    change(path)
    assert compute_digest(path, a_card()) != before


@pytest.mark.parametrize(
    "fact",
    [
        {"name": "n"},
        {"version": "2"},
        {"height": 9},
        {"channels": "BGR"},
        {"normalisation": {"mode": "tf"}},
        {"resize": "pad"},
        {"filter": "box"},
        {"signature": "other"},
        {"scores": "logits"},
        {"label_offset": 1},
        {"top_k": 1},
        {"tags": ("train",)},
    ],
    ids=lambda fact: next(iter(fact)),
)
def test_a_changed_fact_changes_the_digest(tmp_path: Path, fact: dict[str, object]) -> None:
    path = a_bundle(tmp_path / "1")
    assert compute_digest(path, a_card(**fact)) != compute_digest(path, a_card())


def test_labels_given_beside_the_bundle_change_the_digest(tmp_path: Path) -> None:
    path = a_bundle(tmp_path / "1", labels=None)
    digests = {compute_digest(path, a_card(), labels) for labels in ((), ("a", "b"), ("b", "a"))}
    assert len(digests) == 3
