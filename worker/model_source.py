"""Where a worker's model comes from: the repository, or a SavedModel and stated facts."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from pathlib import Path

from millrace.core.bundle import Bundle, compute_digest, is_saved_model, read_bundle, read_labels
from millrace.core.card import CARD_FILE, Card
from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.log import get_logger
from millrace.core.model_ref import ModelRef
from millrace.core.repository import Repository, StoredBundle, local_path
from millrace.core.services import Services
from millrace.worker.options import WorkerOptions

log = get_logger(__name__)


def find_model(services: Services, options: WorkerOptions) -> Bundle:
    """The bundle a worker is told to serve, on this machine's disk.

    Raises ModelNotFound, ModelError, UsageError and the store's errors.
    """
    if options.saved_model is not None:
        return _from_saved_model(Path(options.saved_model).expanduser(), options)
    repository = services.repository()
    stored = repository.resolve(ModelRef.parse(options.model or ""))
    path = local_path(stored.location)
    bundle = read_bundle(path or _download(services, repository, stored, Path(options.cache)))
    return _named(bundle, stored)


def check_saved_model(options: WorkerOptions) -> None:
    """Whether the saved model of the options, if any, is there and has a card.

    Raises ModelNotFound, ModelError, UsageError.
    """
    if options.saved_model is not None:
        _stated(Path(options.saved_model).expanduser(), options)


def _stated(path: Path, options: WorkerOptions) -> tuple[Bundle | None, Card]:
    """What a SavedModel brings along, and the card it is served with."""
    if not is_saved_model(path):
        raise ModelNotFound(f"{path} holds no SavedModel (saved_model.pb)")
    bundled = read_bundle(path) if (path / CARD_FILE).is_file() else None
    return bundled, options.card(bundled.card if bundled else None)


def _from_saved_model(path: Path, options: WorkerOptions) -> Bundle:
    bundled, card = _stated(path, options)
    labels = bundled.labels if bundled else ()
    if options.labels is not None:
        labels = read_labels(Path(options.labels).expanduser())
    if bundled is None or options.facts() or options.labels is not None:
        # Other facts, other answers: the bundle's own digest no longer names them.
        card = card.model_copy(update={"digest": compute_digest(path, card, labels)})
    return Bundle(path, card, labels)


def _named(bundle: Bundle, stored: StoredBundle) -> Bundle:
    """The bundle under the name and version of its place, which must be its card's."""
    if bundle.card.name != stored.name:
        raise ModelError(f"{stored.location}: the card is of {bundle.card.name!r}")
    return Bundle(
        bundle.path, bundle.card.model_copy(update={"version": stored.version}), bundle.labels
    )


def _download(
    services: Services, repository: Repository, stored: StoredBundle, cache: Path
) -> Path:
    """Fetch a bundle once per machine, whole or not at all, and check its digest."""
    identity = stored.card.digest or hashlib.sha256(stored.location.uri.encode()).hexdigest()
    target = cache / "models" / identity.removeprefix("sha256:")
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_saved_model(target):
            return target
        log.info("fetching the model", model=stored.name, version=stored.version)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".fetching-"))
        try:
            _fetch_files(services, repository, stored, scratch)
            card = read_bundle(scratch).card
            if card.digest and compute_digest(scratch, card) != identity:
                raise ModelError(f"{stored.location}: its files do not match the card's digest")
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return target


def _fetch_files(
    services: Services, repository: Repository, stored: StoredBundle, into: Path
) -> None:
    store = services.stores.open(stored.location)
    for item in repository.files(stored):
        name = item.key[len(stored.location.prefix) :]
        if not name or name.endswith("/"):
            continue  # an object that stands for a folder
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise ModelError(f"{stored.location}: {name!r} is no path within a bundle")
        file = into / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            for block in store.blocks(item.key):
                out.write(block)
