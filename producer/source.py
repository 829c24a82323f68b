"""What the input holds: listed from storage, or named by the user's manifest."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from millrace.core.errors import JobConflict, UsageError
from millrace.core.job import InputSpec
from millrace.core.manifest import ManifestRow
from millrace.core.storage import Location, Stores
from millrace.producer.failed import failed_rows
from millrace.producer.globs import key_filter
from millrace.producer.user_manifest import read_user_manifest


def image_references(
    stores: Stores,
    spec: InputSpec,
    output: Location,
    *,
    after: str = "",
    look: Callable[[], None] = lambda: None,
) -> Iterator[ManifestRow]:
    """Stream the images a job is about, of an ordered listing those after a key; `look` is called
    for every object and line that is looked at, an image of the job or not. Raises the store's
    errors, UsageError, BadManifest, and what `look` raises.

    Patterns see keys relative to the input. Of what is listed, neither what lies under the
    output is input, nor are the empty `…/` objects that stand for folders.
    """
    source = Location.parse(spec.uri)
    _refuse_same(source, output)
    accepts = key_filter(spec.include, spec.exclude)
    if spec.failed_of is not None:
        rows = failed_rows(stores, output.child(spec.failed_of), spec.codes)
    elif spec.manifest is not None:
        rows = _looked_at(read_user_manifest(stores, spec.manifest, source), look)
    else:
        rows = _listed(stores, source, output, after, look)
    start = len(source.prefix)
    return (row for row in rows if accepts(row.key[start:]))


def check_input(stores: Stores, spec: InputSpec, output: Location) -> None:
    """Raise what listing would raise at once, found out by a request or two."""
    source = Location.parse(spec.uri)
    _refuse_same(source, output)
    key_filter(spec.include, spec.exclude)
    if spec.failed_of is None and spec.manifest is not None:
        next(read_user_manifest(stores, spec.manifest, source), None)
    elif spec.failed_of is None:
        next(stores.open(source).list(source.prefix), None)


def remaining_references(
    stores: Stores, spec: InputSpec, output: Location, known: Iterable[ManifestRow]
) -> Iterator[ManifestRow]:
    """The images that are not `known` yet, which are the first ones of the same input.

    An ordered listing goes on after the last known key. Another one begins anew and passes over
    the known keys, held as 16 bytes each. A manifest is read again: raises JobConflict if it does
    not begin with the known images any more. Otherwise raises what `image_references` does.
    """
    if spec.manifest is not None or spec.failed_of is not None:
        return _past_beginning(image_references(stores, spec, output), known)
    if stores.open(Location.parse(spec.uri)).ordered:
        last = deque(known, maxlen=1)
        return image_references(stores, spec, output, after=last[0].key if last else "")
    seen = {_short(row.key) for row in known}
    return (r for r in image_references(stores, spec, output) if _short(r.key) not in seen)


def _refuse_same(source: Location, output: Location) -> None:
    if output == source:
        raise UsageError(
            "the output cannot be the input itself", hint=f"for example {source}/predictions"
        )


def _past_beginning(
    rows: Iterator[ManifestRow], known: Iterable[ManifestRow]
) -> Iterator[ManifestRow]:
    for number, row in enumerate(known, 1):
        if next(rows, None) != row:
            raise JobConflict(f"the manifest has changed: image {number} is no longer {row.key!r}")
    yield from rows


def _short(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _looked_at(rows: Iterator[ManifestRow], look: Callable[[], None]) -> Iterator[ManifestRow]:
    for row in rows:
        look()
        yield row


def _listed(
    stores: Stores, source: Location, output: Location, after: str, look: Callable[[], None]
) -> Iterator[ManifestRow]:
    ours = _key_prefix(source, output)
    for key, size, etag in stores.open(source).list(source.prefix, after=after):
        look()
        if (size == 0 and key.endswith("/")) or (ours is not None and key.startswith(ours)):
            continue
        yield ManifestRow(key, etag, size)


def _key_prefix(source: Location, output: Location) -> str | None:
    """The key prefix of the output within the source's store, if it lies inside it."""
    if not source.contains(output):
        return None
    if source.scheme == "file":
        return output.root[len(source.root) :].lstrip("/") + "/"
    return output.prefix
