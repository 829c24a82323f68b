"""Outcomes as CSV: one row per image, its best class or its error."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

CSV_COLUMNS = (
    "key", "etag", "label", "index", "score", "error_stage", "error_code", "error_message",
)  # fmt: skip

BLOCK_CHARACTERS = 64 * 1024


def csv_blocks(outcomes: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """The table, its header first, in blocks of some size."""
    buffer = io.StringIO(newline="")
    # RFC 4180 line ends: with bare newlines, Python does not quote a key with a \r in it.
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for outcome in outcomes:
        best = (outcome.get("predictions") or [{}])[0]
        best = best if isinstance(best, dict) else {}  # objects may be made by others
        error = outcome.get("error", {})
        writer.writerow(
            {
                "key": outcome["key"],
                "etag": outcome["etag"],
                **{name: best.get(name) for name in ("label", "index", "score")},
                **{f"error_{name}": error.get(name) for name in ("stage", "code", "message")},
            }
        )
        if buffer.tell() > BLOCK_CHARACTERS:
            yield _drain(buffer)
    yield _drain(buffer)


def _drain(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()
