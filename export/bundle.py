"""Any source → a finished bundle: written, carded, looked at, and only then published."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from millrace.core.bundle import Bundle, compute_digest
from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.disk import scratch, writing
from millrace.core.engine_errors import as_model_errors
from millrace.core.errors import Conflict, ModelError, ModelNotFound, UsageError
from millrace.core.repository import Repository, Shelved, local_path
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.export.check import refuse_disagreement
from millrace.export.facts import Facts
from millrace.export.predict import Check, pixels_predict
from millrace.export.publish import publish, stands_already
from millrace.export.source import Source, Written

TRIES = 5
"""Of finding a version number that nobody else takes at the same time."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The repository, and how a bundle gets into it."""

    repository: str
    force: bool = False
    """Replace a version that stands; only one that is said, never one that was worked out."""
    settings: Settings | None = None
    check: Check | None = refuse_disagreement
    """Looks at the bundle before it is published."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle that lies in a repository."""

    location: Location
    card: Card
    labels: tuple[str, ...]
    input_op: str
    output_op: str
    takes_bytes: bool


def check_version(
    repository: Repository, name: str, version: str | None, *, force: bool = False
) -> None:
    """What can be told before there is a bundle, for it may be long in the making.

    Raises Conflict if the version stands, and the store's errors.
    """
    stand = {shelf.version for shelf in _held(repository, name) if shelf.complete}
    if version in stand and not force:
        raise stands_already(repository.location.child(name).child(version or ""))


def export_source(source: Source, said: Facts, destination: Destination) -> Exported:
    """Write `source` as a bundle and publish it.

    What is said goes before what the source says of itself. Raises UsageError, ModelError,
    Conflict and the store's errors; then nothing is published.
    """
    facts = said.over(source.facts)
    facts.check()
    name = facts.name or ""
    stores = Stores(destination.settings or Settings.load())
    repository = Repository(stores, Location.parse(destination.repository))
    check_version(repository, name, facts.version, force=destination.force)
    home = repository.location.child(name)
    with scratch("export") as own:
        path = own / "bundle"
        written = source.write(path, facts)
        card = _card(source, facts, written)
        classes = _classes(written, card)
        labels = _labels(facts, classes)
        card = card.model_copy(update={"top_k": min(card.top_k, classes)})
        with writing(path):
            (path / LABELS_FILE).parent.mkdir(exist_ok=True)
            if labels:
                (path / LABELS_FILE).write_text("\n".join(labels) + "\n", encoding="utf-8")
        number = facts.version or _next(repository, name)
        bundle = _carded(path, card, number, labels)
        if destination.check is not None:
            predict = pixels_predict(written.raw, bundle.card, takes_bytes=written.takes_bytes)
            destination.check(bundle, predict)
        force = destination.force and facts.version is not None
        for tries_left in reversed(range(TRIES)):
            try:
                publish(stores, path, home.child(number), force=force)
                break
            except Conflict:
                if facts.version is not None or not tries_left:
                    raise
                number = str(int(number) + 1)
                bundle = _carded(path, card, number, labels)
    return Exported(
        home.child(number),
        bundle.card,
        labels,
        written.input_op,
        written.output_op,
        written.takes_bytes,
    )


def _card(source: Source, facts: Facts, written: Written) -> Card:
    """The card but for version, digest and what the output's width bounds."""
    height, width, depth = written.shape
    for name, have, want in (("high", height, facts.height), ("wide", width, facts.width)):
        if have is not None and want is not None and have != want:
            raise ModelError(f"the input is {have} {name}, not {want}")
    height, width = height or facts.height, width or facts.width
    if height is None or width is None:
        raise UsageError("the model does not say its input's size", hint="for example --size 224")
    if facts.logits and written.output_type == "Softmax":
        raise UsageError(f"{written.output_op} is a softmax already", hint="leave --logits out")
    if written.takes_bytes and facts.scale is not None and facts.scale.mode != "none":
        raise UsageError(
            f"{written.input_op} takes bytes, which are not scaled", hint="--scale none"
        )
    by_operations = written.signature is None
    said: dict[str, Any] = {
        "normalisation": facts.scale,
        "resize": facts.resize,
        "filter": facts.filter,
        "label_offset": facts.label_offset,
        "top_k": facts.top_k,
    }
    return Card.make(
        name=facts.name,
        tags=written.tags,
        signature=written.signature,
        input_op=written.input_op if by_operations else None,
        output_op=written.output_op if by_operations else None,
        height=height,
        width=width,
        channels=facts.order(depth),
        scores="logits" if facts.logits else "probabilities",
        frameworks={package: installed(package) for package in source.packages},
        **{name: value for name, value in said.items() if value is not None},
    )


def _classes(written: Written, card: Card) -> int:
    """How many scores an image gets, found by trying. Raises ModelError if they are no vector."""
    dtype = np.uint8 if written.takes_bytes else np.float32
    with as_model_errors(f"{card.name} does not run"):
        black = np.zeros((1, card.height, card.width, card.channels.depth), dtype)
        shape = np.shape(written.raw(black))
    sides = [side for side in shape[1:] if side != 1]
    if len(shape) < 2 or len(sides) > 1 or 0 in sides:
        raise ModelError(f"expected one output of [n, classes], not {list(shape)}")
    return sides[0] if sides else 1


def _labels(facts: Facts, classes: int) -> tuple[str, ...]:
    """The labels, which name every class from the offset on. Raises ModelError."""
    labels, offset = facts.labels or (), facts.label_offset or 0
    if labels and offset + len(labels) != classes:
        after = f" from index {offset}" if offset else ""
        raise ModelError(
            f"{len(labels)} labels{after} for {classes} classes",
            hint="one label a class; --label-offset N if the first N have none",
        )
    return labels


def _next(repository: Repository, name: str) -> str:
    """One more than the highest number in the repository, also of what was left unfinished."""
    numbers = (shelf.version for shelf in _held(repository, name))
    return str(max((int(each) for each in numbers if each.isdecimal()), default=0) + 1)


def _held(repository: Repository, name: str) -> list[Shelved]:
    """What there is; nothing in a directory that is yet to be made, which a bucket is not."""
    try:
        return repository.shelves(name)
    except ModelNotFound:
        place = local_path(repository.location)
        if place is None or place.exists():
            raise
        return []


def _carded(path: Path, card: Card, version: str, labels: tuple[str, ...]) -> Bundle:
    """The bundle with its card written, as that version."""
    card = card.model_copy(update={"version": version, "digest": None})
    card = card.model_copy(update={"digest": compute_digest(path, card)})
    with writing(path):
        (path / CARD_FILE).write_text(card.model_dump_json(indent=2), encoding="utf-8")
    return Bundle(path, card, labels)
