"""Version numbers, and facts as they come together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millrace.core.bundle import read_bundle
from millrace.core.card import CARD_FILE, Card, Normalisation
from millrace.core.errors import Conflict, ModelError, ModelNotFound, UsageError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.repository import Repository
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.export import Facts, bundle, export_keras
from millrace.export.bundle import Destination, check_version, export_source
from millrace.export.publish import publish
from millrace.export.source import Source, Written


@pytest.fixture(scope="module")
def model() -> Any:
    load_tensorflow()
    import keras

    return keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def export(model: Any, into: Path, **facts: Any) -> str:
    """The version it became."""
    place = export_keras(model, name="m", repository=str(into), channels="L", **facts)
    version = read_bundle(Path(place.root)).card.version
    assert version == Path(place.root).name
    return version or ""


def test_the_next_version_is_one_more_than_the_highest(model: Any, tmp_path: Path) -> None:
    assert export(model, tmp_path) == "1"
    assert export(model, tmp_path) == "2"
    assert export(model, tmp_path, version="9") == "9"
    assert export(model, tmp_path) == "10"
    assert export(model, tmp_path, version="3") == "3"
    assert export(model, tmp_path) == "11"


def test_versions_of_others_that_are_no_numbers_are_passed_over(model: Any, tmp_path: Path) -> None:
    export(model, tmp_path)
    (tmp_path / "m" / "1").rename(tmp_path / "m" / "beta")
    assert export(model, tmp_path) == "1"


def test_a_version_that_another_is_taking_is_stepped_over(model: Any, tmp_path: Path) -> None:
    """It has no graph yet, so the repository does not list it."""
    card = tmp_path / "m" / "1" / "assets.extra" / "millrace.json"
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    assert export(model, tmp_path) == "2"
    stores, place = Stores(Settings.load()), Location.parse(str(tmp_path))
    assert Repository(stores, place).versions("m") == ["2"]


def test_any_number_that_were_left_unfinished_are_stepped_over(model: Any, tmp_path: Path) -> None:
    for version in range(1, 8):
        card = tmp_path / "m" / str(version) / CARD_FILE
        card.parent.mkdir(parents=True)
        card.write_text("{}")
    assert export(model, tmp_path) == "8"
    assert export(model, tmp_path) == "9"


def test_a_version_that_is_said_is_never_another(model: Any, tmp_path: Path) -> None:
    export(model, tmp_path, version="4")
    with pytest.raises(Conflict, match="stands already"):
        export(model, tmp_path, version="4")
    assert export(model, tmp_path, version="4", force=True, scale="tf") == "4"
    assert read_bundle(tmp_path / "m" / "4").card.normalisation.mode == "tf"


def test_a_version_that_stands_is_told_before_the_work(model: Any, tmp_path: Path) -> None:
    class Laborious(Source):
        facts = Facts()

        def write(self, path: Path, facts: Facts) -> Written:
            raise AssertionError("it works in vain")

    export(model, tmp_path, version="4")
    with pytest.raises(Conflict, match="stands already"):
        export_source(Laborious(), Facts(name="m", version="4"), Destination(str(tmp_path)))


def test_force_replaces_no_version_that_was_worked_out(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another works out the same number, and is there first."""
    real = publish

    def overtaken(stores: Stores, path: Path, target: Location, *, force: bool) -> None:
        monkeypatch.setattr(bundle, "publish", real)
        real(stores, path, target)
        real(stores, path, target, force=force)

    monkeypatch.setattr(bundle, "publish", overtaken)
    assert export(model, tmp_path, force=True) == "2"


def test_bytes_are_not_scaled(tmp_path: Path) -> None:
    load_tensorflow()
    import keras

    image = keras.Input((2, 2, 1), dtype="uint8")
    scores = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    of_bytes = keras.Model(image, scores)
    with pytest.raises(UsageError, match="takes bytes, which are not scaled"):
        export(of_bytes, tmp_path, scale="tf")
    assert export(of_bytes, tmp_path, scale="none") == "1"


@pytest.mark.parametrize("version", ["v2", "1.0", "01", "-1", "1/2", "..", "٣", "1٣", "1" * 19])
def test_other_versions_are_refused(version: str, model: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="version"):
        export(model, tmp_path, version=version)
    assert not [*tmp_path.iterdir()]


def test_what_is_said_goes_before_what_is_known() -> None:
    base = Facts(name="a", height=8, width=8, channels="L", top_k=3)
    assert Facts(name="b", top_k=1).over(base) == Facts(
        name="b", height=8, width=8, channels="L", top_k=1
    )


def test_a_signature_and_operations_put_each_other_aside() -> None:
    by_names = Facts(input_op="a", output_op="b")
    signed = Facts(signature="s")
    assert by_names.over(signed) == by_names
    assert signed.over(by_names) == signed
    assert Facts(output_op="c").over(by_names) == Facts(input_op="a", output_op="c")


def test_facts_of_a_card_are_those_of_the_card() -> None:
    card = Card.make(
        name="m",
        version="7",
        tags=("a", "b"),
        input_op="x",
        output_op="y",
        height=4,
        width=5,
        channels="BGR",
        normalisation=Normalisation(mode="caffe"),
        resize="pad",
        filter="box",
        scores="logits",
        label_offset=1,
        top_k=2,
    )
    facts = Facts.of_card(card, ("one",))
    assert facts == Facts(
        name="m",
        tags=("a", "b"),
        input_op="x",
        output_op="y",
        height=4,
        width=5,
        channels="BGR",
        scale=Normalisation(mode="caffe"),
        resize="pad",
        filter="box",
        logits=True,
        label_offset=1,
        labels=("one",),
        top_k=2,
    )


@pytest.mark.parametrize(
    ("scale", "channels", "depth", "order"),
    [
        ("tf", None, 3, "RGB"),
        ("tf", None, 1, "L"),
        ("tf", None, None, "RGB"),
        ("tf", "BGR", 3, "BGR"),
        ("caffe", None, 3, "BGR"),
        ("caffe", "RGB", 3, "BGR"),
    ],
)
def test_channels_follow_from_the_input(
    scale: str, channels: str | None, depth: int | None, order: str
) -> None:
    facts = Facts(scale=Normalisation.parse(scale), channels=channels)
    assert facts.order(depth) == order


@pytest.mark.parametrize(("channels", "depth"), [("L", 3), ("RGB", 1), (None, 4)])
def test_channels_that_do_not_fit_are_refused(channels: str | None, depth: int) -> None:
    with pytest.raises(ModelError, match=f"{depth} channels"):
        Facts(channels=channels).order(depth)


@pytest.mark.parametrize(
    "said",
    [
        {"name": "../up"},
        {"name": "a/b"},
        {"name": ".hidden"},
        {"name": ""},
        {"name": None},
        {"resize": "squeeze"},
        {"filter": "best"},
        {"channels": "CMYK"},
        {"tags": ("",)},
        {"tags": ("a", "")},
        {"output_op": "a b"},
    ],
    ids=str,
)
def test_facts_that_make_no_sense_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Facts(**({"name": "m"} | said)).check()


def test_a_label_says_something() -> None:
    """An empty one at the end would be lost where labels are read again."""
    with pytest.raises(ModelError, match="not empty"):
        Facts(name="m", labels=("cat", "dog", "")).check()


def test_a_label_is_one_line() -> None:
    with pytest.raises(ModelError, match="one line"):
        Facts(name="m", labels=("a\nb",)).check()


@pytest.mark.parametrize("what", ["file", "bucket"])
def test_where_no_repository_can_be_is_told_before_the_work(
    what: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / "file")
    if what == "bucket":
        place = f"s3://not-{request.getfixturevalue('bucket')}/models"
    stores = Stores(Settings.load())
    with pytest.raises(ModelNotFound, match="no model repository"):
        check_version(Repository(stores, Location.parse(place)), "m", None)
