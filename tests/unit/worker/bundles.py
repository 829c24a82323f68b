"""Bundles on disk that nobody loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from millrace.core.bundle import compute_digest
from millrace.core.card import CARD_FILE, LABELS_FILE, Card


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
