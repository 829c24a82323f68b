"""Where a model comes from: a repository, a cache of one in a bucket, or a plain SavedModel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from millrace.core.bundle import Bundle, compute_digest, read_bundle
from millrace.core.card import CARD_FILE, Normalisation
from millrace.core.errors import ModelError, ModelNotFound, UsageError
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.worker.model_source import check_saved_model, find_model
from millrace.worker.options import WorkerOptions
from tests.unit.worker.bundles import write_bundle
from tests.unit.worker.saved_models import SIDE, Workshop

pytestmark = pytest.mark.usefixtures("no_environment")


def found(models: str | None = None, **options: Any) -> Bundle:
    return find_model(Services(Settings.load(models=models)), WorkerOptions.load(**options))


# --- a repository in a directory ---


def test_a_bundle_of_a_directory_is_used_where_it_lies(repository: Path) -> None:
    bundle = found(str(repository), model="tiny")
    assert bundle.path == repository / "tiny" / "1"
    assert (bundle.card.name, bundle.card.version) == ("tiny", "1")
    assert bundle.labels == ("north", "east", "south", "west")
    assert bundle.digest == compute_digest(bundle.path, read_bundle(bundle.path).card)


def test_the_highest_version_is_taken_unless_one_is_pinned(tmp_path: Path) -> None:
    for version in ("9", "10"):
        write_bundle(tmp_path / "tiny" / version, version=version)
    assert found(str(tmp_path), model="tiny").card.version == "10"
    assert found(str(tmp_path), model="tiny:9").card.version == "9"


def test_a_version_is_that_of_its_place(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny" / "7", version="1")
    assert found(str(tmp_path), model="tiny").card.version == "7"


def test_a_card_of_another_model_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "tiny" / "1", name="large")
    with pytest.raises(ModelError, match="'large'"):
        found(str(tmp_path), model="tiny")


def test_what_is_not_there_is_answered_with_what_is(repository: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        found(str(repository), model="huge")
    assert "tiny" in (caught.value.hint or "")
    with pytest.raises(ModelNotFound) as caught:
        found(str(repository), model="tiny:2")
    assert "1" in (caught.value.hint or "")


def test_a_repository_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model repository"):
        found(str(tmp_path / "nowhere"), model="tiny")


def test_without_a_repository_there_is_no_model() -> None:
    with pytest.raises(UsageError, match="repository"):
        found(None, model="tiny")


def test_a_saved_model_in_a_repository_needs_a_card(tmp_path: Path) -> None:
    (write_bundle(tmp_path / "tiny" / "1") / CARD_FILE).unlink()
    with pytest.raises(ModelError, match=r"millrace\.json"):
        found(str(tmp_path), model="tiny")


@pytest.mark.parametrize("card", ["{}", "nonsense", '{"name": "tiny", "surprise": 1}'])
def test_a_card_that_cannot_be_read_is_refused(card: str, tmp_path: Path) -> None:
    (write_bundle(tmp_path / "tiny" / "1") / CARD_FILE).write_text(card)
    with pytest.raises(ModelError, match=r"millrace\.json"):
        found(str(tmp_path), model="tiny")


@pytest.mark.parametrize("model", ["..", "../tiny", "tiny:../1", "", "tiny:"])
def test_a_reference_that_climbs_is_no_model(model: str, repository: Path) -> None:
    with pytest.raises(UsageError):
        found(str(repository), model=model)


# --- a SavedModel and stated facts ---


def test_a_plain_saved_model_is_described_by_options(made: Workshop, tmp_path: Path) -> None:
    model = made("by_operations")
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    bundle = found(
        saved_model=str(model.path),
        name="plain",
        tags="myTag",
        input_op="input_1",
        output_op="inferenceLayer/Softmax",
        size=str(SIDE),
        labels=str(labels),
    )
    assert bundle.path == model.path
    assert (bundle.card.name, bundle.card.version) == ("plain", None)
    assert bundle.labels == ("a", "b", "c", "d", "e")
    assert bundle.digest.startswith("sha256:")


def test_other_facts_or_labels_are_another_digest(made: Workshop, tmp_path: Path) -> None:
    path = str(made("scaled_by_tf").path)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    facts: list[dict[str, str]] = [{}, {"scale": "tf"}, {"resize": "pad"}, {"labels": str(labels)}]
    digests = {
        found(saved_model=path, name="plain", size=str(SIDE), **given).digest for given in facts
    }
    assert len(digests) == len(facts)
    again = found(saved_model=path, name="plain", size=str(SIDE)).digest
    assert again in digests


def test_a_saved_model_that_has_a_card_needs_no_options(repository: Path) -> None:
    bundle = found(saved_model=str(repository / "tiny" / "1"), name="mine")
    assert (bundle.card.name, bundle.card.version) == ("mine", None)
    assert bundle.card.height == 8
    assert bundle.labels == ("north", "east", "south", "west")


@pytest.mark.parametrize("name", ["my model", "../up", "a:b:c", ""])
def test_a_saved_model_that_has_a_card_needs_a_proper_name_too(name: str, repository: Path) -> None:
    with pytest.raises(UsageError):
        found(saved_model=str(repository / "tiny" / "1"), name=name)


def test_a_saved_model_without_a_card_needs_its_size(made: Workshop) -> None:
    with pytest.raises(UsageError, match="size"):
        found(saved_model=str(made("scaled_by_tf").path), name="plain")


@pytest.mark.parametrize("content", [None, "saved_model.txt"])
def test_a_directory_without_a_saved_model_is_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / content).write_text("no")
    with pytest.raises(ModelNotFound, match="holds no SavedModel"):
        found(saved_model=str(tmp_path), name="plain", size="8")


def test_a_labels_file_that_is_not_there_is_said_so(made: Workshop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no labels file"):
        found(
            saved_model=str(made("scaled_by_tf").path),
            name="plain",
            size="8",
            labels=str(tmp_path / "nowhere.txt"),
        )


def test_labels_that_are_no_text_are_refused(made: Workshop, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="labels"):
        found(
            saved_model=str(made("scaled_by_tf").path),
            name="plain",
            size="8",
            labels=str(tmp_path / "labels.txt"),
        )


def test_nothing_given_keeps_the_digest_of_the_card(repository: Path) -> None:
    path = repository / "tiny" / "1"
    assert found(saved_model=str(path), name="mine").digest == read_bundle(path).digest


def test_labels_given_beside_a_card_are_not_passed_over(repository: Path, tmp_path: Path) -> None:
    path, labels = repository / "tiny" / "1", tmp_path / "labels.txt"
    labels.write_text("n\ne\ns\nw\n")
    bundle = found(saved_model=str(path), name="mine", labels=str(labels))
    assert bundle.labels == ("n", "e", "s", "w")
    assert bundle.card.height == 8
    assert bundle.digest != read_bundle(path).digest


@pytest.mark.parametrize(
    ("given", "fact", "value"),
    [
        ({"size": "4"}, "height", 4),
        ({"scale": "none"}, "normalisation", Normalisation()),
        ({"resize": "pad"}, "resize", "pad"),
        ({"label_offset": 1}, "label_offset", 1),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_facts_given_beside_a_card_win_and_are_another_digest(
    given: dict[str, Any], fact: str, value: object, repository: Path
) -> None:
    path = repository / "tiny" / "1"
    bundle = found(saved_model=str(path), name="mine", **given)
    assert getattr(bundle.card, fact) == value
    assert bundle.labels == ("north", "east", "south", "west")
    assert bundle.digest != read_bundle(path).digest
    assert bundle.digest == found(saved_model=str(path), name="mine", **given).digest


def test_a_tilde_is_the_home_directory(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(repository / "tiny" / "1", tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found(saved_model="~/model", name="mine").path == tmp_path / "model"


# --- the same, checked before there is a job ---


def check(path: Path, **options: Any) -> None:
    check_saved_model(WorkerOptions.load(saved_model=str(path), name="mine", **options))


def test_a_saved_model_that_can_be_served_passes_the_check(
    made: Workshop, repository: Path
) -> None:
    check(repository / "tiny" / "1")
    check(repository / "tiny" / "1", scale="tf", size="16")
    check(made("scaled_by_tf").path, size=str(SIDE))


def test_a_model_of_the_repository_is_not_looked_for_by_the_check() -> None:
    check_saved_model(WorkerOptions.load(model="nobody-has-it"))


def test_what_finding_a_saved_model_would_refuse_the_check_does(
    made: Workshop, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFound, match="holds no SavedModel"):
        check(tmp_path / "nowhere", size="8")
    with pytest.raises(UsageError, match="size"):
        check(made("scaled_by_tf").path)
    write_bundle(tmp_path / "caffe", normalisation={"mode": "caffe"}, channels="BGR")
    with pytest.raises(UsageError, match="BGR"):
        check(tmp_path / "caffe", channels="RGB")
    (tmp_path / "caffe" / CARD_FILE).write_text("{")
    with pytest.raises(ModelError):
        check(tmp_path / "caffe")
