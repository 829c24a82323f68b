"""Where a model comes from: a repository, a cache of one in a bucket, or a plain SavedModel."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.bundle import Bundle, compute_digest, read_bundle
from millrace.core.card import CARD_FILE, LABELS_FILE, Card, Normalisation
from millrace.core.errors import ModelError, ModelNotFound, UsageError
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.export.publish import publish
from millrace.worker.model_source import check_saved_model, find_model
from millrace.worker.options import WorkerOptions
from tests.support import ROOT, capture_logs
from tests.unit.worker.saved_models import SIDE, Workshop

pytestmark = pytest.mark.usefixtures("no_environment")

FETCHING = "fetching the model"


def found(models: str | None = None, **options: Any) -> Bundle:
    return find_model(Services(Settings.load(models=models)), WorkerOptions.load(**options))


def write_bundle(path: Path, *, labels: str | None = None, **facts: Any) -> Path:
    """A bundle whose graph is never loaded: finding a model reads no graph."""
    (path / "variables").mkdir(parents=True)
    (path / "assets.extra").mkdir()
    (path / "saved_model.pb").write_bytes(b"graph")
    (path / "variables" / "variables.data").write_bytes(b"weights" * 1000)
    if labels is not None:
        (path / LABELS_FILE).write_text(labels)
    basic = {"name": "tiny", "version": "1", "signature": "s", "height": 8, "width": 8}
    card = Card.make(**(basic | facts))
    if card.digest is None:
        card = card.model_copy(update={"digest": compute_digest(path, card)})
    (path / CARD_FILE).write_text(card.model_dump_json())
    return path


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


# --- a repository in a bucket ---


@dataclass
class Shelf:
    """One model's place in a repository in a bucket, and a cache for what comes from there."""

    services: Services
    client: Any
    bucket: str
    name: str
    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def found(self) -> Bundle:
        """As a worker that starts finds it."""
        return find_model(self.services, WorkerOptions.load(model=self.name, cache=str(self.cache)))

    def fill(self, **facts: Any) -> Path:
        """Publish a bundle there as version 1."""
        made = write_bundle(self.root / "made", **({"name": self.name} | facts))
        place = Location.parse(f"s3://{self.bucket}/models/{self.name}/1")
        publish(self.services.stores, made, place)
        return made

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=data)

    def get(self, name: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read()
        return data

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.key(name))

    def key(self, name: str) -> str:
        return f"models/{self.name}/1/{name}"


@pytest.fixture(scope="module")
def library(s3_server: EmbeddedS3, s3_client: Any) -> Iterator[tuple[Services, Any, str]]:
    """One bucket and the services for all these tests: a store's clients take long to make."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_server.environment.items():
            environment.setenv(name, value)
        bucket = f"library-{secrets.token_hex(4)}"
        s3_client.create_bucket(Bucket=bucket)
        services = Services(Settings.load(models=f"s3://{bucket}/models"))
        yield services, s3_client, bucket
        services.redis.close()


@pytest.fixture
def shelf(library: tuple[Services, Any, str], tmp_path: Path) -> Shelf:
    services, client, bucket = library
    return Shelf(services, client, bucket, f"tiny-{secrets.token_hex(4)}", tmp_path)


def content(path: Path) -> dict[str, bytes]:
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def test_a_bundle_of_a_bucket_is_fetched_whole(shelf: Shelf) -> None:
    made = shelf.fill(labels="a\nb\n")
    bundle = shelf.found()
    assert bundle.path.is_relative_to(shelf.cache)
    assert content(bundle.path) == content(made)
    assert bundle.labels == ("a", "b")
    assert bundle.digest == read_bundle(made).digest


def test_the_second_start_downloads_nothing(shelf: Shelf) -> None:
    shelf.fill()
    first = shelf.found()
    shelf.delete("variables/variables.data")
    with capture_logs() as logs:
        second = shelf.found()
    assert second == first
    assert (second.path / "variables" / "variables.data").is_file()
    assert FETCHING not in [entry["event"] for entry in logs]


def test_another_build_of_the_same_version_is_fetched_anew(shelf: Shelf) -> None:
    shelf.fill()
    first = shelf.found()
    other = write_bundle(shelf.root / "other", name=shelf.name, top_k=3)
    for name, data in content(other).items():
        shelf.put(name, data)
    second = shelf.found()
    assert second.card.top_k == 3
    assert second.path != first.path


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data"])
def test_files_that_do_not_match_the_digest_are_refused(name: str, shelf: Shelf) -> None:
    shelf.fill()
    good = shelf.get(name)
    shelf.put(name, b"tampered")
    with pytest.raises(ModelError, match="digest"):
        shelf.found()
    left = [path for path in shelf.cache.rglob("*") if path.suffix != ".lock"]
    assert left == [shelf.cache / "models"]
    shelf.put(name, good)
    assert shelf.found().card.name == shelf.name


def test_a_bundle_whose_file_is_missing_is_refused(shelf: Shelf) -> None:
    shelf.fill()
    shelf.delete("variables/variables.data")
    with pytest.raises(ModelError, match="digest"):
        shelf.found()


@pytest.mark.parametrize(
    "name", ["../escaped", "assets/../../escaped", "a/..", "..", "./escaped", "a//escaped"]
)
def test_a_file_that_climbs_out_of_the_bundle_is_refused(name: str, shelf: Shelf) -> None:
    shelf.fill()
    shelf.put(name, b"climbed")
    with pytest.raises(ModelError, match="is no path within a bundle"):
        shelf.found()
    assert not list(shelf.root.rglob("escaped"))


def test_a_file_named_by_an_absolute_path_is_refused(shelf: Shelf) -> None:
    shelf.fill()
    target = shelf.root / "elsewhere"
    shelf.put(str(target), b"climbed")
    with pytest.raises(ModelError, match="is no path within a bundle"):
        shelf.found()
    assert not target.exists()


def test_a_digest_that_is_a_path_leads_nowhere(shelf: Shelf) -> None:
    write_bundle(shelf.root / "elsewhere", name=shelf.name)
    shelf.fill()
    card = json.loads(shelf.get(CARD_FILE))
    shelf.put(CARD_FILE, json.dumps(card | {"digest": "sha256:../../elsewhere"}).encode())
    with pytest.raises(ModelError, match=r"millrace\.json: digest: "):
        shelf.found()
    assert not (shelf.root / "elsewhere.lock").exists()
    assert not shelf.cache.exists()


@pytest.mark.parametrize("marker", ["", "variables/", "assets.extra/"])
def test_the_empty_objects_that_stand_for_folders_do_no_harm(marker: str, shelf: Shelf) -> None:
    shelf.fill()
    shelf.put(marker, b"")
    assert (shelf.found().path / "variables" / "variables.data").is_file()


def test_threads_that_start_at_once_download_once(shelf: Shelf) -> None:
    shelf.fill()
    together = threading.Barrier(6)
    bundles: list[Bundle] = []

    def start() -> None:
        together.wait(20)
        bundles.append(shelf.found())

    threads = [threading.Thread(target=start) for _ in range(6)]
    with capture_logs() as logs:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(bundles) == 6
    assert len({bundle.path for bundle in bundles}) == 1
    assert [entry["event"] for entry in logs].count(FETCHING) == 1


def test_processes_that_start_at_once_download_once(shelf: Shelf) -> None:
    shelf.fill()
    program = (
        "import sys; from millrace.core.log import configure; configure()\n"
        "from millrace.core.services import Services; from millrace.core.settings import Settings\n"
        "from millrace.worker.model_source import find_model\n"
        "from millrace.worker.options import WorkerOptions\n"
        "services = Services(Settings.load(models=sys.argv[1]))\n"
        "options = WorkerOptions.load(model=sys.argv[2], cache=sys.argv[3])\n"
        "sys.stdin.read(1)\n"
        "print(find_model(services, options).path)\n"
    )
    arguments = [f"s3://{shelf.bucket}/models", shelf.name, str(shelf.cache)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        for _ in range(2)
    ]
    ends = [process.communicate("go", timeout=60) for process in processes]
    paths = {out.strip() for out, _ in ends}
    assert len(paths) == 1, ends
    assert Path(paths.pop()).is_dir()
    assert sum(log.count(FETCHING) for _, log in ends) == 1


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
