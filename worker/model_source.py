"""Where a worker's model comes from: the repository, or a SavedModel and stated facts."""

from __future__ import annotations

from pathlib import Path

from millrace.core.bundle import Bundle, compute_digest, is_saved_model, read_bundle, read_labels
from millrace.core.card import CARD_FILE, Card
from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.model_ref import ModelRef
from millrace.core.repository import StoredBundle, local_path
from millrace.core.services import Services
from millrace.worker.model_cache import cached_bundle
from millrace.worker.options import CacheOptions, WorkerOptions


def find_model(services: Services, options: WorkerOptions) -> Bundle:
    """The bundle a worker is told to serve, on this machine's disk.

    Raises ModelNotFound, ModelError, UsageError and the store's errors.
    """
    if options.saved_model is not None:
        return _from_saved_model(Path(options.saved_model).expanduser(), options)
    return find_stored(services, ModelRef.parse(options.model or ""), options)


def find_stored(services: Services, ref: ModelRef, options: CacheOptions) -> Bundle:
    """The repository's bundle on this machine's disk. Raises as `find_model` does."""
    repository = services.repository()
    stored = repository.resolve(ref)
    path = local_path(stored.location)
    if path is None:
        path = cached_bundle(repository, stored, Path(options.cache))
    return _named(read_bundle(path), stored)


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
