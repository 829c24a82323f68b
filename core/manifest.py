"""Manifest rows: the snapshot of the input, one JSON line per image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from millrace.core.errors import CorruptRecord
from millrace.core.sizes import MAX_LINE_BYTES


class ManifestRow(NamedTuple):
    """One image as it was when listed. `etag` and `size` (bytes) are None if the user's
    own manifest did not say."""

    key: str
    etag: str | None = None
    size: int | None = None


def encode_rows(rows: Iterable[ManifestRow]) -> bytes:
    """JSON Lines `{"key","etag","size"}`."""
    dumps = orjson.dumps
    lines = [dumps({"key": key, "etag": etag, "size": size}) for key, etag, size in rows]
    lines.append(b"")
    return b"\n".join(lines)


def decode_row(line: bytes) -> ManifestRow:
    """One manifest line. Raises CorruptRecord."""
    if len(line) > MAX_LINE_BYTES:
        raise CorruptRecord(f"a manifest line of {len(line)} bytes, over {MAX_LINE_BYTES}")
    try:
        fields = orjson.loads(line)
        row = ManifestRow(fields["key"], fields["etag"], fields["size"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CorruptRecord(f"not a manifest line: {line[:120]!r}") from error
    if not (
        isinstance(row.key, str)
        and isinstance(row.etag, str | None)
        and isinstance(row.size, int | None)
    ):
        raise CorruptRecord(f"not a manifest line: {line[:120]!r}")
    return row
