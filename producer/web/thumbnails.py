"""Images of a job, small: read within limits, encoded anew, and kept for a while.

Nothing of the original bytes is passed on, and no URL of the storage is: a picture that is no
picture, or too large, is a drawing that says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from threading import Semaphore

from millrace.core.errors import ItemError, MillraceError, Unavailable
from millrace.core.job import JobSpec
from millrace.core.manifest import ManifestRow
from millrace.core.record import to_ms
from millrace.core.sizes import MIB
from millrace.producer.web.job_files import JobFiles
from millrace.producer.web.thumbnail_cache import ThumbnailCache

MAX_BYTES = 32 * MIB
MAX_PIXELS = 50_000_000
"""Decoding takes 10 bytes of memory for each, at worst: 500 MB."""
AT_ONCE = 2
"""Of those that are decoded."""
SIDES = (192, 512)
"""Pixels of the longer side: in a gallery, and alone."""

WEBP = b"RIFF"

WORDS = {
    "object_not_found": "gone",
    "access_denied": "access denied",
    "outside_root": "outside the input",
    "source_changed": "changed since",
    "too_large": "too large to show",
    "unavailable": "storage is away",
    "empty": "empty",
    "not_an_image": "not a picture",
    "decompression_bomb": "too many pixels",
    "truncated": "cut off",
    "corrupt": "damaged",
}


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """`problem` is empty, or a word for why there is no picture; then `data` is. It is also if the
    asker has it."""

    data: bytes
    problem: str
    etag: str
    lasting: bool
    """The image it shows is known by its ETag and can never be another."""


class Thumbnails:
    """Makes them; a few at a time are decoded, for that takes a core and memory."""

    def __init__(self, files: JobFiles, cache: ThumbnailCache) -> None:
        self._files = files
        self._cache = cache
        self._turn = Semaphore(AT_ONCE)

    def kept(self, spec: JobSpec, number: int, side: int, known: str = "") -> Thumbnail | None:
        """That of a manifest row, if it is here or the asker's `known` ETag stands for it already;
        no storage is asked."""
        row = self._files.row_at_hand(spec, number)
        if row is None or row.etag is None:  # which may have become another
            return None
        name = _name(spec, row, side)
        if known == name:
            return Thumbnail(b"", "", name, lasting=True)
        made = self._cache.get(name)
        return _shown(made, name, lasting=True) if made else None

    def of(self, spec: JobSpec, number: int, side: int, known: str = "") -> Thumbnail:
        """The same, or a new one. Raises ObjectNotFound if the manifest has no such row, and what
        the job's directory raises."""
        row = self._files.row(spec, number)  # which is at hand from now on
        kept = self.kept(spec, number, side, known)
        if kept is not None:
            return kept
        name, lasting = _name(spec, row, side), row.etag is not None
        return _shown(self._make(spec, row, side, name if lasting else ""), name, lasting)

    def _make(self, spec: JobSpec, row: ManifestRow, side: int, name: str) -> bytes:
        """A picture, or the word for why there is none; kept under `name`, if it has one and this
        can never become anything else."""
        try:
            # Not in its turn: an object that is slow to come would hold up all the others.
            store = self._files.source(spec, row)
            data = store.get(row.key, if_match=row.etag, max_bytes=MAX_BYTES)
        except Unavailable:
            return b"unavailable"
        except MillraceError as error:
            return error.code.encode()
        with self._turn:
            # Another may have made it while this one waited.
            made = (self._cache.get(name) if name else None) or _decoded(data, side)
            if name:
                self._cache.put(name, made)
        return made


def _decoded(data: bytes, side: int) -> bytes:
    from millrace.core.pictures import thumbnail

    try:
        return thumbnail(data, side=side, max_pixels=MAX_PIXELS)
    except ItemError as error:
        return error.code.encode()


def _shown(made: bytes, name: str, lasting: bool) -> Thumbnail:
    if made.startswith(WEBP):
        return Thumbnail(made, "", name, lasting)
    return Thumbnail(b"", made.decode(errors="replace"), "", lasting=False)


def said(problem: str) -> str:
    """A problem as people read it."""
    return WORDS.get(problem, problem.replace("_", " "))


def version_of(spec: JobSpec) -> str:
    """Tells a job from one that had its id before, in the addresses of its thumbnails."""
    return f"{to_ms(spec.created_at):x}"


def _name(spec: JobSpec, row: ManifestRow, side: int) -> str:
    """Stands for one state of one object, at one size: the file's name, and the HTTP ETag."""
    made_of = "\0".join((spec.input.uri, row.key, row.etag or "", str(side)))
    return hashlib.blake2b(made_of.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
