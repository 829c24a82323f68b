"""What the input holds: listed from storage, or named by the user's manifest."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.core.errors import UsageError
from millrace.core.job import InputSpec
from millrace.core.manifest import ManifestRow
from millrace.core.storage import Location, Stores
from millrace.producer.failed import failed_rows
from millrace.producer.globs import key_filter
from millrace.producer.user_manifest import read_user_manifest


def image_references(stores: Stores, spec: InputSpec, output: Location) -> Iterator[ManifestRow]:
    """Stream the images a job is about. Raises the store's errors, UsageError, BadManifest.

    Patterns see keys relative to the input. Of what is listed, neither what lies under the
    output is input, nor are the empty `…/` objects that stand for folders.
    """
    source = Location.parse(spec.uri)
    if output == source:
        raise UsageError(
            "the output cannot be the input itself", hint=f"for example {source}/predictions"
        )
    accepts = key_filter(spec.include, spec.exclude)
    if spec.failed_of is not None:
        rows = failed_rows(stores, output.child(spec.failed_of), spec.codes)
    elif spec.manifest is not None:
        rows = read_user_manifest(stores, spec.manifest, source)
    else:
        rows = _listed(stores, source, output)
    start = len(source.prefix)
    return (row for row in rows if accepts(row.key[start:]))


def _listed(stores: Stores, source: Location, output: Location) -> Iterator[ManifestRow]:
    ours = _key_prefix(source, output)
    for key, size, etag in stores.open(source).list(source.prefix):
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
