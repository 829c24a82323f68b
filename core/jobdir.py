"""The job directory in object storage: the truth Redis is an index over."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import Any

import orjson

from millrace.core.chunks import PART_ROWS, ChunkPlan
from millrace.core.claims import ModelIdentity
from millrace.core.errors import (
    AlreadyExists,
    CorruptRecord,
    ObjectNotFound,
    ObjectTooLarge,
    SpecMismatch,
    StorageUnavailable,
)
from millrace.core.job import JobSpec
from millrace.core.lines import split_lines
from millrace.core.manifest import ManifestRow, decode_row, encode_rows
from millrace.core.outcome import decode_outcome
from millrace.core.read_ahead import read_ahead
from millrace.core.sizes import (
    MAX_CHUNK_BYTES,
    MAX_COMPLETE_BYTES,
    MAX_ERROR_LINE_BYTES,
    MAX_MODEL_BYTES,
    MAX_PART_BYTES,
    MAX_SPEC_BYTES,
    MAX_SUMMARY_BYTES,
)
from millrace.core.storage import Location, Store, Stores
from millrace.core.storage.base import refuse_larger
from millrace.core.topology import (
    BY_KEY_PREFIX,
    ERRORS_FILE,
    JOB_FILE,
    MANIFEST_COMPLETE,
    MANIFEST_PREFIX,
    MODEL_FILE,
    RESULTS_PREFIX,
    SUCCESS_FILE,
    SUMMARY_FILE,
    by_key_digest,
    by_key_object,
    chunk_object,
    is_unfinished_chunk,
    manifest_part,
    parse_chunk_object,
    parse_manifest_part,
)

PUT_AT_ONCE = 8
CONFLICTS = 5


class JobDirectory:
    """Typed access to `<output>/<job_id>/`. Raises the store's errors."""

    def __init__(self, stores: Stores, location: Location) -> None:
        self.location = location
        self._allowed = stores.allowed
        self._store: Store = stores.open(location)
        self._prefix = location.prefix

    def uri(self, name: str) -> str:
        """The URL of one of its objects."""
        return f"{self.location.uri.removesuffix('/')}/{name}"

    # --- the spec ---

    def create_spec(self, spec: JobSpec) -> None:
        """Write `job.json`; raise AlreadyExists if another one stands."""
        self._create(JOB_FILE, spec.model_dump_json(indent=2).encode())

    def read_spec(self) -> JobSpec:
        return JobSpec.from_json(self._get(JOB_FILE, MAX_SPEC_BYTES))

    def is_littered(self) -> bool:
        """Whether anything stands there that follows a `job.json`: parts of a manifest, outcomes,
        their copies. Of a directory that is empty, as it is for a new job, one request tells."""
        after = (MODEL_FILE, MANIFEST_PREFIX, RESULTS_PREFIX, BY_KEY_PREFIX)
        theirs = tuple(self._prefix + name for name in after)
        try:
            return any(item.key.startswith(theirs) for item in self._store.list(self._prefix))
        except ObjectNotFound:
            return False

    def confirm(self, spec: JobSpec) -> None:
        """Check a spec that came from Redis against what the producer wrote into storage.

        Redis is easier to write to. But the spec itself says where `job.json` is looked for:
        somebody who may also write one anywhere this process reads is stopped by the setting
        alone. Raises LocationNotAllowed before anything is read, SpecMismatch.
        """
        self._allowed.check(spec.input.uri, spec.output)
        if self.read_spec() != spec:
            raise SpecMismatch(
                f"the record of job {spec.job_id} in Redis is not what {self.uri(JOB_FILE)} says"
            )

    # --- the model it began with, of a job whose spec does not pin one ---

    def pin_model(self, model: ModelIdentity) -> ModelIdentity:
        """Write `model.json` and return what stands: `model`, or what came first."""
        body = orjson.dumps({"version": model.version, "digest": model.digest})
        return self._model(self._commit(MODEL_FILE, body, MAX_MODEL_BYTES))

    def pinned_model(self) -> ModelIdentity | None:
        """What `model.json` says; None while no worker has begun. Raises CorruptRecord."""
        try:
            return self._model(self._get(MODEL_FILE, MAX_MODEL_BYTES))
        except ObjectNotFound:
            return None

    def _model(self, text: bytes) -> ModelIdentity:
        try:
            said = orjson.loads(text)
            return ModelIdentity(str(said["version"]), str(said["digest"]))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise CorruptRecord(f"{self.uri(MODEL_FILE)}: {error!r}") from None

    # --- the manifest ---

    def create_part(self, part: int, rows: Iterable[ManifestRow]) -> None:
        """Write a part, once. Raises AlreadyExists if another one stands, ObjectTooLarge."""
        name, body = manifest_part(part), encode_rows(rows)
        refuse_larger(name, len(body), MAX_PART_BYTES)  # nobody would read it
        self._create(name, body)

    def complete_manifest(self, parts: int, images: int) -> None:
        """Say that the manifest is whole. Saying it again is harmless."""
        body = orjson.dumps({"parts": parts, "images": images})
        self._store.put(self._prefix + MANIFEST_COMPLETE, body)

    def manifest_size(self) -> tuple[int, int] | None:
        """Parts and images of a whole manifest; None while more may come. Raises CorruptRecord."""
        try:
            text = self._get(MANIFEST_COMPLETE, MAX_COMPLETE_BYTES)
        except ObjectNotFound:
            return None
        try:
            said = orjson.loads(text)
            return int(said["parts"]), int(said["images"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise CorruptRecord(f"{self.uri(MANIFEST_COMPLETE)}: {error!r}") from None

    def part_lines(self, part: int) -> list[bytes]:
        """The undecoded lines of a manifest part. Raises CorruptRecord if there are too many."""
        name = manifest_part(part)
        lines = self._get(name, MAX_PART_BYTES).splitlines()
        if len(lines) > PART_ROWS:
            raise CorruptRecord(f"{self.uri(name)}: {len(lines)} rows, over {PART_ROWS}")
        return lines

    def delete_part(self, part: int) -> None:
        """Remove a part that never became one of the job's."""
        self._store.delete(self._prefix + manifest_part(part))

    def parts(self) -> list[int]:
        """The numbers of the manifest's parts, ascending."""
        names = (item.key for item in self._store.list(self._prefix + MANIFEST_PREFIX))
        return sorted(part for name in names if (part := parse_manifest_part(name)) is not None)

    def remove(self) -> int:
        """Delete every object of the job; returns how many.

        `job.json` goes last: while it stands, what was interrupted can be done again.
        """
        return self._store.delete_all(self._prefix, last=self._prefix + JOB_FILE)

    # --- chunk objects ---

    def create_chunk(self, plan: ChunkPlan, chunk: int, body: bytes) -> bytes:
        """Commit a chunk's outcome and return what stands: `body`, or what came first."""
        name = chunk_object(plan.part_of(chunk), chunk)
        refuse_larger(name, len(body), MAX_CHUNK_BYTES)  # nobody would read it
        return self._commit(name, body, MAX_CHUNK_BYTES)

    def _create(self, name: str, body: bytes) -> None:
        """A retry of a write whose answer was lost meets its own object."""
        with suppress(ObjectTooLarge):  # longer than ours: another one, which need not be read
            if self._commit(name, body, len(body)) == body:
                return
        raise AlreadyExists(f"{self.uri(name)} already exists")

    def _commit(self, name: str, body: bytes, max_bytes: int) -> bytes:
        """Create an object and return what stands: `body`, or what came first."""
        for _ in range(CONFLICTS):
            try:
                self._store.create(self._prefix + name, body)
            except AlreadyExists:
                # S3 says so, too, to writers that are in each other's way: none may have won.
                with suppress(ObjectNotFound):
                    return self._get(name, max_bytes)
            else:
                return body
        raise StorageUnavailable(f"{self.uri(name)} can neither be written nor read")

    def delete_chunk(self, plan: ChunkPlan, chunk: int) -> None:
        """Remove a chunk's object, which is not this chunk's outcome, so that it can run again."""
        self._store.delete(self._prefix + chunk_object(plan.part_of(chunk), chunk))

    def delete_stray(self, name: str) -> None:
        """Remove what lies under the results and is no chunk's."""
        self._store.delete(self._prefix + name)

    def read_chunk(
        self, plan: ChunkPlan, chunk: int, max_bytes: int = MAX_CHUNK_BYTES
    ) -> bytes | None:
        """A chunk's committed outcome, or None. Raises ObjectTooLarge."""
        try:
            return self._get(chunk_object(plan.part_of(chunk), chunk), max_bytes)
        except ObjectNotFound:
            return None

    def read_chunks(self, plan: ChunkPlan, chunks: Iterable[int]) -> Iterator[bytes | None]:
        """`read_chunk` of each of these chunks, in their order; some are read ahead."""
        return read_ahead(lambda chunk: self.read_chunk(plan, chunk), chunks)

    def error_lines(self, plan: ChunkPlan, chunks: Iterable[int]) -> Iterator[bytes]:
        """The error lines among the outcomes of these chunks."""
        for body in self.read_chunks(plan, chunks):
            for line in (body or b"").splitlines():
                if "error" in decode_outcome(line):
                    yield line

    def results(self, plan: ChunkPlan) -> Iterator[tuple[str, int | None]]:
        """The names of all that lies under the results, in the store's order, and the number of
        the chunk each belongs to; None for what is not ours. Unfinished writes are passed over."""
        for item in self._store.list(self._prefix + RESULTS_PREFIX):
            if self.location.scheme == "file" and is_unfinished_chunk(item.key):
                continue
            named = parse_chunk_object(item.key)
            ours = named is not None and named[0] == plan.part_of(named[1])
            yield item.key[len(self._prefix) :], named[1] if named and ours else None

    def strays(self, plan: ChunkPlan, chunks: int) -> Iterator[tuple[str, int | None]]:
        """Those of the results that belong to none of the job's first `chunks` chunks."""
        return (
            (name, chunk) for name, chunk in self.results(plan) if chunk is None or chunk >= chunks
        )

    def committed_chunks(self, plan: ChunkPlan) -> Iterator[int]:
        """The numbers of the chunks whose objects stand, in the store's order."""
        return (chunk for _, chunk in self.results(plan) if chunk is not None)

    def put_by_key(self, key: str, outcome: bytes) -> None:
        """The one-JSON-per-image copy of an outcome line."""
        self._store.put(self._prefix + by_key_object(key), outcome)

    def put_missing_by_key(
        self, rows: Iterable[ManifestRow], body: bytes, standing: Set[bytes]
    ) -> None:
        """The copies of a chunk's outcome lines, but for those that are `standing`."""
        missing = [
            (row.key, line)
            for row, line in zip(rows, body.splitlines(), strict=True)
            if by_key_digest(by_key_object(row.key)) not in standing
        ]
        if missing:
            with ThreadPoolExecutor(PUT_AT_ONCE, thread_name_prefix="by-key") as pool:
                deque(pool.map(lambda copy: self.put_by_key(*copy), missing), maxlen=0)

    def standing_by_key(self) -> Iterator[bytes]:
        """The `by_key_digest` of each copy there is."""
        for item in self._store.list(self._prefix + BY_KEY_PREFIX):
            yield by_key_digest(item.key[len(self._prefix) :])

    # --- what the finalizer writes ---

    def put_errors(self, lines: Iterable[bytes]) -> None:
        self._store.put(self._prefix + ERRORS_FILE, lines)

    def published_errors(self) -> Iterator[bytes] | None:
        """The lines of `errors.jsonl`, or None while it does not stand."""
        blocks = self._store.blocks(self._prefix + ERRORS_FILE)
        try:
            first = next(blocks, b"")
        except ObjectNotFound:
            return None
        return split_lines(chain((first,), blocks), MAX_ERROR_LINE_BYTES, _too_long)

    def put_summary(self, summary: dict[str, object]) -> None:
        self._store.put(
            self._prefix + SUMMARY_FILE, orjson.dumps(summary, option=orjson.OPT_INDENT_2)
        )

    def read_summary(self) -> dict[str, Any] | None:
        """What the finalizer wrote, or None while it has not. Raises CorruptRecord."""
        try:
            text = self._get(SUMMARY_FILE, MAX_SUMMARY_BYTES)
        except ObjectNotFound:
            return None
        try:
            summary = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise CorruptRecord(f"{self.uri(SUMMARY_FILE)}: {error}") from None
        if not isinstance(summary, dict):
            raise CorruptRecord(f"{self.uri(SUMMARY_FILE)} is no summary")
        return summary

    def has_success(self) -> bool:
        try:
            self._store.head(self._prefix + SUCCESS_FILE)
        except ObjectNotFound:
            return False
        return True

    def delete_success(self) -> None:
        self._store.delete(self._prefix + SUCCESS_FILE)

    def put_success(self) -> None:
        self._store.put(self._prefix + SUCCESS_FILE, b"")

    def _get(self, name: str, max_bytes: int) -> bytes:
        """One of its objects, if it is no larger than that. Raises ObjectTooLarge."""
        return self._store.get(self._prefix + name, max_bytes=max_bytes)


def _too_long(number: int) -> CorruptRecord:
    return CorruptRecord(f"{ERRORS_FILE}, line {number}: over {MAX_ERROR_LINE_BYTES} bytes")


def decode_rows(lines: list[bytes], plan: ChunkPlan, chunk: int) -> list[ManifestRow]:
    """A chunk's rows, from its part's lines. Raises CorruptRecord if there are none."""
    rows = [decode_row(line) for line in lines[plan.rows_of(chunk)]]
    if not rows:
        raise CorruptRecord(f"the manifest holds no rows for chunk {chunk}")
    return rows
