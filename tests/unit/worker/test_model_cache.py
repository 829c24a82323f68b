"""Models of a bucket, on this machine's disk: fetched once, whole, and verified at each start."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from millrace.cli.embedded_s3 import EmbeddedS3
from millrace.core.bundle import Bundle, read_bundle
from millrace.core.card import CARD_FILE
from millrace.core.errors import ModelError, StorageUnavailable
from millrace.core.services import Services
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.export.publish import publish
from millrace.worker.model_source import find_model
from millrace.worker.options import WorkerOptions
from tests.faults.s3_proxy import Asked, Cut, Fault, s3_proxy
from tests.support import ROOT, capture_logs
from tests.unit.worker.bundles import write_bundle

pytestmark = pytest.mark.usefixtures("no_environment")

FETCHING = "fetching the model"
WEIGHTS = "variables/variables.data"


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
        "print('ready', flush=True)\n"
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
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("!")
        process.stdin.flush()
    ends = [process.communicate(timeout=120) for process in processes]
    paths = {out.strip() for out, _ in ends}
    assert len(paths) == 1, ends
    assert Path(paths.pop()).is_dir()
    assert sum(log.count(FETCHING) for _, log in ends) == 1


# --- what can happen to a cache ---


def without_digest(shelf: Shelf) -> None:
    """Take the digest out of the card in the bucket."""
    card = json.loads(shelf.get(CARD_FILE))
    shelf.put(CARD_FILE, json.dumps(card | {"digest": None}).encode())


def fetched(shelf: Shelf) -> tuple[Bundle, bool]:
    """As a worker that starts finds the model, and whether it was fetched for that."""
    with capture_logs() as logs:
        bundle = shelf.found()
    return bundle, FETCHING in [entry["event"] for entry in logs]


def change_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("has_digest", [True, False])
@pytest.mark.parametrize("name", [WEIGHTS, "saved_model.pb", CARD_FILE])
@pytest.mark.parametrize("damage", [change_a_byte, cut_off, Path.unlink])
def test_what_was_damaged_on_disk_is_fetched_again(
    damage: Callable[[Path], None], name: str, has_digest: bool, shelf: Shelf
) -> None:
    shelf.fill(labels="a\nb\n")
    if not has_digest:
        without_digest(shelf)
    first, _ = fetched(shelf)
    whole = content(first.path)
    damage(first.path / name)
    assert content(first.path) != whole
    second, again = fetched(shelf)
    assert again
    assert second == first
    assert content(second.path) == whole
    assert fetched(shelf) == (second, False)


def test_a_card_that_says_another_digest_is_damage(shelf: Shelf) -> None:
    shelf.fill()
    first, _ = fetched(shelf)
    card = json.loads((first.path / CARD_FILE).read_bytes())
    (first.path / CARD_FILE).write_text(json.dumps(card | {"digest": "sha256:" + 64 * "0"}))
    assert fetched(shelf) == (first, True)


def test_a_file_too_many_is_damage(shelf: Shelf) -> None:
    shelf.fill()
    first, _ = fetched(shelf)
    (first.path / "assets").mkdir()
    (first.path / "assets" / "vocabulary").write_text("not the model's")
    assert fetched(shelf) == (first, True)
    assert not (first.path / "assets").exists()


def test_without_a_digest_what_is_listed_names_the_bundle(shelf: Shelf) -> None:
    shelf.fill()
    without_digest(shelf)
    first, _ = fetched(shelf)
    assert fetched(shelf) == (first, False)
    shelf.put(WEIGHTS, b"other weights")
    second, again = fetched(shelf)
    assert again
    assert second.path != first.path
    assert (second.path / WEIGHTS).read_bytes() == b"other weights"


def test_what_a_killed_process_left_half_fetched_is_cleared_away(shelf: Shelf) -> None:
    shelf.fill()
    first, _ = fetched(shelf)
    left = first.path.with_name(f".{first.path.name}-killed")
    first.path.rename(left)
    (left / WEIGHTS).unlink()
    assert fetched(shelf) == (first, True)
    assert not left.exists()


@pytest.mark.parametrize("has_digest", [True, False])
def test_a_download_that_breaks_off_leaves_nothing_behind(
    has_digest: bool, shelf: Shelf, s3_server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.fill()
    if not has_digest:
        without_digest(shelf)
    broken = True

    def break_off(asked: Asked) -> Fault | None:
        ours = asked.method == "GET" and asked.path.endswith(WEIGHTS)
        return Cut(after_bytes=1000) if broken and ours else None

    with s3_proxy(s3_server.endpoint, afterwards=break_off) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        models = f"s3://{shelf.bucket}/models"
        settings = Settings.load(models=models, storage_max_retries=1, storage_retry_timeout_s=2)
        shelf.services = Services(settings)
        with pytest.raises(StorageUnavailable):
            shelf.found()
        left = [path for path in shelf.cache.rglob("*") if path.suffix != ".lock"]
        assert left == [shelf.cache / "models"]
        broken = False
        bundle, _ = fetched(shelf)
    assert (bundle.path / WEIGHTS).read_bytes() == shelf.get(WEIGHTS)
