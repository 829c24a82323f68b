"""`millrace verify-model`: a bundle beside its source, on the same pixels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.core.bundle import compute_digest, read_bundle
from millrace.core.card import CARD_FILE, Card
from millrace.core.errors import ExitCode
from millrace.core.settings import Settings
from millrace.core.storage import Location, ObjectInfo, Stores
from millrace.core.storage.s3 import S3Store
from tests.support import write_pngs
from tests.unit.cli.conftest import Invoke


@pytest.fixture
def tiny(repository: Path, tmp_path: Path) -> Path:
    """A copy of `tiny:1` to change."""
    return Path(shutil.copytree(repository / "tiny" / "1", tmp_path / "tiny"))


def verified(run: Invoke, *arguments: str, code: int = 0) -> dict[str, Any]:
    said = run("verify-model", *arguments, "--json")
    assert said.code == code, said
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_freezing_changed_nothing(run: Invoke, repository: Path) -> None:
    found = verified(run, "tiny", "--models", str(repository))
    assert (found["model"], found["version"], found["images"]) == ("tiny", "1", 32)
    assert found["max_abs_difference"] < 1e-5
    assert (found["top_1_agreement"], found["agrees"], found["intact"]) == (1.0, True, True)


def test_people_see_lines(run: Invoke, tiny: Path) -> None:
    said = run("verify-model", str(tiny), "--count", "3")
    assert said.code == 0
    assert "3 images (generated)" in said.out
    assert said.out.endswith("agrees\n")


def test_pictures_of_a_directory_are_decoded_as_a_worker_does(
    run: Invoke, tiny: Path, tmp_path: Path
) -> None:
    folder = write_pngs(tmp_path / "photos", 5)
    (folder / "note.txt").write_text("no picture")
    found = verified(run, str(tiny), "--images", str(folder))
    assert (found["images"], found["agrees"]) == (5, True)
    assert verified(run, str(tiny), "--images", str(folder), "--count", "2")["images"] == 2


def test_of_a_bucket_no_more_is_listed_than_is_looked_at(
    run: Invoke, tiny: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Location.parse(f"s3://{bucket}/photos")
    store = Stores(Settings.load()).open(place)
    store.put(f"{place.prefix}0.txt", b"no picture")
    for picture in write_pngs(tmp_path / "photos", 5).iterdir():
        store.put(place.prefix + picture.name, picture.read_bytes())
    listed: list[str] = []
    whole = S3Store.list

    def counted(self: S3Store, prefix: str = "", **how: str) -> Iterator[ObjectInfo]:
        for item in whole(self, prefix, **how):
            listed.append(item.key)
            yield item

    monkeypatch.setattr(S3Store, "list", counted)
    assert verified(run, str(tiny), "--images", place.uri, "--count", "2")["images"] == 2
    assert [key.removeprefix(place.prefix) for key in listed] == ["0.png", "0.txt", "1.png"]


@pytest.mark.parametrize("what", ["nothing in it", "nowhere"])
def test_a_directory_without_pictures_is_not_found(
    what: str, run: Invoke, tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    if what == "nothing in it":
        folder.mkdir()
    said = run("verify-model", str(tiny), "--images", str(folder))
    assert said.code == ExitCode.NOT_FOUND


def test_real_photographs_are_compared(run: Invoke, tiny: Path, real: Path) -> None:
    found = verified(run, str(tiny), "--images", str(real / "images"))
    assert found["images"] == 31
    assert found["agrees"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Keras model that `tiny:1` was made of, and another of its kind."""
    from millrace.core.load_tensorflow import load_tensorflow

    load_tensorflow()
    import keras

    path = tmp_path_factory.mktemp("source")
    for name, seed in (("tiny", 7), ("other", 8)):
        keras.utils.set_random_seed(seed)
        keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(4, activation="softmax"),
            ]
        ).save(path / f"{name}.keras")
    return path


def test_it_agrees_with_the_model_it_was_made_of(run: Invoke, tiny: Path, source: Path) -> None:
    found = verified(run, str(tiny), "--against", str(source / "tiny.keras"))
    assert found["max_abs_difference"] < 1e-5
    assert found["agrees"]


def test_another_model_is_told_apart(run: Invoke, tiny: Path, source: Path) -> None:
    against = str(source / "other.keras")
    found = verified(run, str(tiny), "--against", against, code=ExitCode.CHECK_FAILED)
    assert found["max_abs_difference"] > 1e-3
    assert not found["agrees"]
    said = run("verify-model", str(tiny), "--against", against)
    assert said.out.endswith("does not agree\n")


@pytest.mark.parametrize("name", ["larger", "coloured", "of-two"])
def test_a_model_of_other_inputs_is_one_line(
    name: str, run: Invoke, tiny: Path, tmp_path: Path
) -> None:
    import keras

    shape = {"larger": (9, 9, 1), "coloured": (8, 8, 3)}.get(name, (8, 8, 1))
    image = keras.Input(shape)
    inputs = [image, keras.Input(shape)] if name == "of-two" else image
    scores = keras.layers.Dense(4)(keras.layers.Flatten()(image))
    keras.Model(inputs, scores, name="theirs").save(tmp_path / f"{name}.keras")
    said = run("verify-model", str(tiny), "--against", str(tmp_path / f"{name}.keras"))
    assert said.code == ExitCode.MODEL, said
    assert said.err.startswith("millrace: theirs does not take what tiny takes: ")
    assert said.err.count("\n") == 1


def test_a_card_of_another_scale_is_told(run: Invoke, tiny: Path, source: Path) -> None:
    card = Card.read((tiny / CARD_FILE).read_bytes(), "").model_dump()
    wrong = Card.make(**(card | {"normalisation": {"mode": "none"}, "digest": None}))
    wrong = wrong.model_copy(update={"digest": compute_digest(tiny, wrong)})
    (tiny / CARD_FILE).write_text(wrong.model_dump_json())
    # It is normalised by the card on both sides, and so the card is taken at its word.
    assert verified(run, str(tiny), "--against", str(source / "tiny.keras"))["agrees"]


def test_files_that_are_not_those_of_the_digest_are_told(run: Invoke, tiny: Path) -> None:
    with (tiny / "assets.extra" / "labels.txt").open("a") as labels:
        labels.write("more\n")
    found = verified(run, str(tiny), code=ExitCode.CHECK_FAILED)
    assert (found["agrees"], found["intact"]) == (True, False)
    assert read_bundle(tiny).card.digest == found["digest"]


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda path: (path / CARD_FILE).unlink(), ExitCode.MODEL),
        (lambda path: (path / "saved_model.pb").unlink(), ExitCode.NOT_FOUND),
        (lambda path: (path / "saved_model.pb").write_bytes(b"cut"), ExitCode.MODEL),
    ],
    ids=["no card", "no model", "a damaged model"],
)
def test_what_is_no_bundle_is_an_error(damage: Any, code: int, run: Invoke, tiny: Path) -> None:
    damage(tiny)
    assert run("verify-model", str(tiny)).code == code


def test_a_source_that_is_none_is_an_error(run: Invoke, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.keras").write_bytes(b"torn")
    for file, code in (("nowhere.keras", ExitCode.NOT_FOUND), ("torn.keras", ExitCode.MODEL)):
        assert run("verify-model", str(tiny), "--against", str(tmp_path / file)).code == code
