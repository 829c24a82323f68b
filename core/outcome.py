"""Outcome lines: what became of one manifest row, and the tally of a chunk of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from millrace.core.errors import CorruptRecord, ItemError
from millrace.core.manifest import ManifestRow

SAMPLES_PER_CHUNK = 3


def prediction_line(row: ManifestRow, predictions: list[dict[str, Any]]) -> bytes:
    """`{"key","etag","predictions":[…]}`; NumPy floats keep their shortest exact form."""
    return orjson.dumps(
        {"key": row.key, "etag": row.etag, "predictions": predictions},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def error_line(row: ManifestRow, error: ItemError, attempts: int) -> bytes:
    """`{"key","etag","error":{"stage","code","message","retryable","attempts"}}`"""
    return orjson.dumps(
        {
            "key": row.key,
            "etag": row.etag,
            "error": {
                "stage": error.stage,
                "code": error.code,
                "message": error.message,
                "retryable": error.retryable,
                "attempts": attempts,
            },
        }
    )


@dataclass(slots=True)
class Tally:
    """What a chunk's object holds: the numbers `FINISH` moves the job's counters by."""

    succeeded: int = 0
    failed: int = 0
    by_code: Counter[str] = field(default_factory=Counter)
    """`stage/code` → images."""
    samples: list[bytes] = field(default_factory=list)
    """The first error lines."""

    @property
    def rows(self) -> int:
        return self.succeeded + self.failed


def encode_lines(lines: Iterable[bytes]) -> bytes:
    """The body of a chunk's object."""
    return b"\n".join([*lines, b""])


def decode_outcome(line: bytes) -> dict[str, Any]:
    """One outcome line as a dictionary, checked as far as whoever counts relies on it.

    Raises CorruptRecord.
    """
    try:
        outcome: dict[str, Any] = orjson.loads(line)
        known = isinstance(outcome["key"], str) and isinstance(outcome["etag"], str | None)
        if "error" in outcome:
            error = outcome["error"]
            known &= "predictions" not in outcome
            known &= isinstance(error["stage"], str) and isinstance(error["code"], str)
        else:
            known &= isinstance(outcome["predictions"], list)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        known = False
    if not known:
        raise CorruptRecord(f"not an outcome line: {line[:120]!r}")
    return outcome


def tally(
    body: bytes,
    rows: list[ManifestRow],
    decode: Callable[[bytes], dict[str, Any]] = decode_outcome,
) -> Tally:
    """Count a chunk's object and check that it answers `rows`, in order.

    Counting what stands in storage, whoever wrote it, is what keeps the counters exact.
    Raises CorruptRecord if the object is not this chunk's outcome.
    """
    lines = body.splitlines()
    if len(lines) != len(rows):
        raise CorruptRecord(f"{len(lines)} outcome lines for {len(rows)} manifest rows")
    result = Tally()
    for line, row in zip(lines, rows, strict=True):
        outcome = decode(line)
        if (outcome["key"], outcome["etag"]) != (row.key, row.etag):
            raise CorruptRecord(f"outcome of {outcome['key']!r} where {row.key!r} was due")
        if "predictions" in outcome:
            result.succeeded += 1
            continue
        result.failed += 1
        error = outcome["error"]
        result.by_code[f"{error['stage']}/{error['code']}"] += 1
        if len(result.samples) < SAMPLES_PER_CHUNK:
            result.samples.append(line)
    return result
