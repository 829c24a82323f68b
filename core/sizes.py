"""How large what is read back may be: nothing of a stranger's making fills the memory.

Each is far above what millrace writes, and is checked before the body is read.
"""

from __future__ import annotations

KIB, MIB = 1024, 1024 * 1024

MAX_SPEC_BYTES = MIB
"""`job.json`: some URLs and numbers, and as many patterns as a command line holds."""

MAX_LINE_BYTES = 64 * KIB
"""A manifest line, the user's or ours: a key has 1024 bytes in S3 and 4096 in a file system,
each up to six characters of JSON."""

MAX_PART_BYTES = 64 * MIB
"""A manifest part: 8192 lines, of which real ones have some hundred bytes."""

MAX_CHUNK_BYTES = 256 * MIB
"""A chunk's outcome: 128 images with all of 10,000 labels each are half of it."""

MAX_ERROR_LINE_BYTES = 4 * MIB
"""A line of `errors.jsonl`: an image's key, and a message that may quote a library."""

MAX_SUMMARY_BYTES = 8 * MIB
"""`summary.json`: counts, and ten error lines."""

MAX_COMPLETE_BYTES = 4 * KIB
"""`manifest/complete.json`: two numbers."""

MAX_MODEL_BYTES = 4 * KIB
"""`model.json` of a job: a version and a digest."""

MAX_CARD_BYTES = MIB
"""A bundle's `millrace.json`: names and numbers."""

MAX_LABELS_BYTES = 16 * MIB
"""`labels.txt`: the largest label sets have some 20,000 lines."""

MAX_KERAS_CONFIG_BYTES = 64 * MIB
"""`config.json` of a Keras model: a thousand layers are one or two megabytes."""


def shown_bytes(count: int) -> str:
    """A size for people: `512 bytes`, `1.9 MB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
