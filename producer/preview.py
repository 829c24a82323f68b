"""The dry run: what a job would do, found out without enqueuing anything."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from millrace.core.errors import AlreadyExists, MillraceError, ObjectNotFound
from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.core.storage import Location, Store
from millrace.producer.enqueue import ListingProgress
from millrace.producer.source import image_references

FIRST_KEYS = 10
MOST_STANDING = 1000


@dataclass(frozen=True, slots=True)
class Preview:
    """Counts in images and bytes; `types` by file extension; `standing` counts the objects
    already in the job's directory, `MOST_STANDING` at most; `output_problem` is None if the output
    can be written."""

    job_id: str
    images: int
    bytes: int
    chunks: int
    types: dict[str, int]
    first_keys: list[str]
    model: dict[str, Any]
    output: str
    standing: int
    output_problem: str | None
    complete: bool = True
    """False if the listing was left off: there are more images than that."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def preview(
    services: Services,
    spec: JobSpec,
    progress: Callable[[ListingProgress], None] = lambda _: None,
    enough: Callable[[int], bool] = lambda _: False,
) -> Preview:
    """List the input and try the output. Raises what listing raises.

    The listing is left off where more is looked at, images of the job or not, than is `enough`.
    """
    images = size = looked_at = 0
    types: Counter[str] = Counter()
    first: list[str] = []
    complete = True

    def look() -> None:
        nonlocal looked_at
        if enough(looked_at):
            raise _Enough
        looked_at += 1

    rows = image_references(services.stores, spec.input, Location.parse(spec.output), look=look)
    try:
        for row in rows:
            images += 1
            size += row.size or 0
            types[_extension(row.key)] += 1
            if len(first) < FIRST_KEYS:
                first.append(row.key)
            if images % 10_000 == 0:
                progress(ListingProgress(images, size, 0))
    except _Enough:
        complete = False
    full, rest = divmod(images, spec.plan.rows_per_part)
    return Preview(
        job_id=spec.job_id,
        images=images,
        bytes=size,
        chunks=full * spec.plan.chunks_per_part + spec.plan.chunks_in(rest),
        types=dict(types.most_common()),
        first_keys=first,
        model=spec.model.model_dump(),
        output=spec.directory.uri,
        standing=_standing(services, spec.directory),
        output_problem=write_problem(services, Location.parse(spec.output))
        or create_only_problem(services, Location.parse(spec.output)),
        complete=complete,
    )


class _Enough(Exception):
    """No error: the listing is left off."""


def write_problem(services: Services, location: Location) -> str | None:
    """Write, read and remove a small object; None if that works, else what does not."""
    store = services.stores.open(location)
    name = f"{location.prefix}.millrace-probe-{secrets.token_hex(6)}"
    try:
        store.put(name, b"probe")
        try:
            return None if store.get(name) == b"probe" else "what was written is not what is read"
        finally:
            _remove(store, name)
    except MillraceError as error:
        return error.message


def create_only_problem(services: Services, location: Location) -> str | None:
    """Write an object twice, create-only; None if the first one stays, else what is wrong.

    With `storage_overwrite` there is nothing to find out.
    """
    if services.settings.storage_overwrite:
        return None
    store = services.stores.open(location)
    name = f"{location.prefix}.millrace-probe-{secrets.token_hex(6)}"
    try:
        store.create(name, b"first")
        try:
            store.create(name, b"second")
        except AlreadyExists:
            if store.get(name) == b"first":
                return None
        finally:
            _remove(store, name)
    except MillraceError as error:
        return f"the store refuses If-None-Match: {error.message}"
    return "the store ignores If-None-Match: a second writer replaced the first"


def _remove(store: Store, name: str) -> None:
    """Nobody needs the right to delete to run a job, so a probe may have to stay."""
    with suppress(MillraceError):
        store.delete(name)


def _standing(services: Services, directory: Location) -> int:
    try:
        found = services.stores.open(directory).list(directory.prefix)
        return sum(1 for _ in islice(found, MOST_STANDING))
    except ObjectNotFound:
        return 0


def _extension(key: str) -> str:
    name = key.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem else "(none)"
