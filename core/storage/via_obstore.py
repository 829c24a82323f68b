"""Stores moved by obstore, and obstore's errors translated at this one seam."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore import exceptions as oe
from obstore.store import MemoryStore, from_url

from millrace.core.errors import (
    AccessDenied,
    AlreadyExists,
    BadLocation,
    ObjectNotFound,
    SourceChanged,
    StorageUnavailable,
)
from millrace.core.settings import StorageSettings
from millrace.core.storage.base import BLOCK_BYTES, ObjectInfo, Store, refuse_larger
from millrace.core.storage.retry import BACKOFF, FIRST_WAIT_S, LONGEST_WAIT_S, retried

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_REFUSED = re.compile(r"\(os error (1|13|30)\)|non-2xx status code: 40[13]")
"""What a directory says that may not be written: EPERM, EACCES, EROFS; or a bucket, to a writer."""

_UNANSWERED = "HTTP error"
"""In an error of obstore after a request that got no answer, or only half of one."""

_NOT_IMPLEMENTED = "501 Not Implemented"

_NOT_A_PATH = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")


def obstore_can_express(key: str) -> bool:
    """Whether obstore takes `key` verbatim: no empty, `.` or `..` segment, no control character.

    It rejects most others, but tidies a slash at either end away, into another object's key.
    """
    return _NOT_A_PATH.search(key) is None


class ObstoreStore(Store):
    """Any store obstore knows.

    With `storage_overwrite` a create-only write looks for the object first, and of two writers
    at the same moment the later one wins.

    A key that obstore cannot express names no object here: reading it is ObjectNotFound,
    writing it BadLocation.
    """

    def __init__(self, store: ObjectStore, uri: str, settings: StorageSettings) -> None:
        self._store = store
        self._uri = uri
        self._settings = settings

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._uri!r})"

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        # obstore lists whole path segments only: ask for the directory, then compare.
        directory = prefix.rpartition("/")[0]
        with self._translated(prefix):
            for batch in obstore.list(self._store, prefix=directory or None):
                for meta in batch:
                    if meta["path"].startswith(prefix):
                        yield ObjectInfo(meta["path"], meta["size"], meta["e_tag"])

    def head(self, key: str) -> ObjectInfo:
        self._must_express(key)
        with self._translated(key):
            meta = obstore.head(self._store, key)
        return ObjectInfo(key, meta["size"], meta["e_tag"])

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> bytes:
        self._must_express(key)
        with self._translated(key):
            result = obstore.get(
                self._store, key, options={"if_match": if_match} if if_match else None
            )
            refuse_larger(key, result.meta["size"], max_bytes)
            return bytes(result.bytes())

    def blocks(self, key: str) -> Iterator[bytes]:
        info = self.head(key)
        for start in range(0, info.size, BLOCK_BYTES):
            with self._translated(key):
                end = min(start + BLOCK_BYTES, info.size)
                options: GetOptions = {"range": (start, end)}
                if info.etag:
                    options["if_match"] = info.etag
                block = bytes(obstore.get(self._store, key, options=options).bytes())
            yield block

    def put(self, key: str, data: bytes | Iterable[bytes]) -> None:
        self._must_express(key, writing=True)
        with self._translated(key):
            if isinstance(data, bytes):
                obstore.put(self._store, key, data)
                return
            # Not `obstore.put(…, iterator)`: it pulls the iterator inside its own event loop,
            # where one that itself reads from a store cannot run. A writer that is left by an
            # error writes nothing.
            with obstore.open_writer(self._store, key) as writer:
                for block in data:
                    writer.write(block)

    def create(self, key: str, data: bytes) -> None:
        if self._settings.storage_overwrite:
            self.create_by_looking(key, data)
            return
        self._must_express(key, writing=True)

        def create() -> None:
            try:
                with self._translated(key):
                    obstore.put(self._store, key, data, mode="create")
            except StorageUnavailable as error:
                if _NOT_IMPLEMENTED in error.message:
                    error.hint = "a store without If-None-Match needs MILLRACE_STORAGE_OVERWRITE=1"
                raise

        # What the store answered obstore has tried again. A request that got no answer it has
        # not, for this one may have been carried out: then the next try meets its own object.
        retried(create, self._settings, lambda error: _UNANSWERED in error.message)

    def delete(self, key: str) -> None:
        if obstore_can_express(key):
            with self._translated(key), suppress(FileNotFoundError):
                obstore.delete(self._store, key)

    def _must_express(self, key: str, *, writing: bool = False) -> None:
        if not obstore_can_express(key):
            if writing:
                raise BadLocation(f"{self._uri}: {key!r} cannot be written there")
            raise ObjectNotFound(f"{self._uri}: there is no {key!r}")

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            meant = translate(error, f"{self._uri}/{key}")
            if meant is error:
                raise
            raise meant from error


def open_url(url: str, settings: StorageSettings) -> ObstoreStore:
    """A store by its URL, configured by the environment as obstore reads it.

    Raises BadLocation if the configuration does not do.
    """
    if url.startswith("memory://"):
        return ObstoreStore(MemoryStore(), url, settings)
    try:
        store = from_url(
            url, client_options=client_options(settings), retry_config=retries(settings)
        )
    except (oe.BaseError, ValueError) as error:
        raise BadLocation(f"{url}: {_line(error)}") from error
    return ObstoreStore(store, url, settings)


def translate(error: BaseException, what: str) -> BaseException:
    """The millrace error an obstore error means; errors not obstore's come back unchanged."""
    line = _line(error)
    if isinstance(error, FileNotFoundError | oe.NotFoundError):
        if "NoSuchBucket" in str(error):
            return ObjectNotFound(f"{what}: there is no such bucket")
        return ObjectNotFound(f"{what} does not exist")
    if isinstance(error, oe.AlreadyExistsError):
        return AlreadyExists(f"{what} already exists")
    if isinstance(error, oe.PreconditionError):
        return SourceChanged(f"{what} is no longer the object that was listed")
    if isinstance(error, PermissionError | oe.PermissionDeniedError | oe.UnauthenticatedError):
        return AccessDenied(f"{what}: access denied")
    if isinstance(error, oe.GenericError | OSError) and _REFUSED.search(str(error)):
        return AccessDenied(f"{what}: access denied")
    if isinstance(error, oe.BaseError | OSError | ValueError):
        return StorageUnavailable(f"{what}: {line}")
    if type(error).__module__ == "pyo3_runtime":  # a panic, which is no Exception
        return StorageUnavailable(f"{what}: obstore gave up: {line}")
    return error


def client_options(settings: StorageSettings) -> ClientConfig:
    """obstore's options for our timeouts."""
    return {
        "timeout": f"{int(settings.storage_request_timeout_s * 1000)}ms",
        "connect_timeout": f"{int(settings.storage_connect_timeout_s * 1000)}ms",
    }


def retries(settings: StorageSettings) -> RetryConfig:
    """obstore's options for our retries."""
    return {
        "max_retries": settings.storage_max_retries,
        "retry_timeout": timedelta(seconds=settings.storage_retry_timeout_s),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_WAIT_S),
            "max_backoff": timedelta(seconds=LONGEST_WAIT_S),
            "base": BACKOFF,
        },
    }


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
