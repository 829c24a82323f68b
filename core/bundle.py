"""A bundle on disk: a SavedModel directory with its card, labels and digest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from millrace.core.card import CARD_FILE, LABELS_FILE, Card
from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.sizes import MAX_CARD_BYTES, MAX_LABELS_BYTES

SAVED_MODEL = "saved_model.pb"
SAVED_MODELS = (SAVED_MODEL, "saved_model.pbtxt")
"""Binary and text: TensorFlow loads both."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A SavedModel at `path` and how to use it. `labels` is empty if it has none."""

    path: Path
    card: Card
    labels: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The card's digest; only a card that lacks one has its files hashed."""
        return self.card.digest or compute_digest(self.path, self.card)


def is_saved_model(path: Path) -> bool:
    """Whether a directory holds a SavedModel (binary or text)."""
    return any((path / name).is_file() for name in SAVED_MODELS)


def read_bundle(path: Path) -> Bundle:
    """The bundle in a directory. Raises ModelNotFound or ModelError."""
    if not is_saved_model(path):
        raise ModelNotFound(f"{path} holds no SavedModel ({SAVED_MODEL})")
    card_file = path / CARD_FILE
    if not card_file.is_file():
        raise ModelError(
            f"{path} is a SavedModel without a card",
            hint="use --saved-model PATH --name NAME with --size, --scale, … to say how to use it",
        )
    _refuse_larger(card_file, MAX_CARD_BYTES)
    card = Card.read(card_file.read_bytes(), str(card_file))
    return Bundle(path, card, read_labels(path / LABELS_FILE))


def read_labels(path: Path) -> tuple[str, ...]:
    """The lines of a labels file; empty if there is none. Raises ModelError."""
    if not path.exists():
        return ()
    _refuse_larger(path, MAX_LABELS_BYTES)
    try:
        return parse_labels(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelError(f"{path}: {error}") from error


def parse_labels(text: bytes, where: str) -> tuple[str, ...]:
    """The lines of a labels file. Raises ModelError."""
    try:
        lines = io.TextIOWrapper(io.BytesIO(text), "utf-8-sig").read().rstrip("\n")
    except UnicodeDecodeError as error:
        raise ModelError(f"{where}: {error}") from error
    return tuple(lines.split("\n")) if lines else ()


def _refuse_larger(path: Path, limit: int) -> None:
    if path.stat().st_size > limit:
        raise ModelError(f"{path} is larger than {limit} bytes")


def compute_digest(path: Path, card: Card, labels: Sequence[str] = ()) -> str:
    """SHA-256 over the model's files and the card's facts: equal digests, equal answers.

    `labels` are those that do not lie in the bundle itself.
    """
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        if name != CARD_FILE:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(f"{name}\0{content}\n".encode())
    whole.update("\n".join(labels).encode())
    whole.update(card.model_dump_json(exclude={"digest"}).encode())
    return f"sha256:{whole.hexdigest()}"
