"""obstore's errors, each translated into one of ours."""

from __future__ import annotations

import pytest
from obstore import exceptions as oe
from obstore.store import MemoryStore

from millrace.core.errors import (
    AccessDenied,
    AlreadyExists,
    BadLocation,
    MillraceError,
    ObjectNotFound,
    SourceChanged,
    StorageUnavailable,
)
from millrace.core.storage.via_obstore import ObstoreStore, timeouts, translate

MEANINGS: list[tuple[Exception, type[MillraceError]]] = [
    (FileNotFoundError("gone"), ObjectNotFound),
    (oe.NotFoundError("gone"), ObjectNotFound),
    (oe.AlreadyExistsError("there"), AlreadyExists),
    (oe.PreconditionError("changed"), SourceChanged),
    (PermissionError("no"), AccessDenied),
    (oe.PermissionDeniedError("no"), AccessDenied),
    (oe.UnauthenticatedError("who"), AccessDenied),
    (oe.GenericError("503"), StorageUnavailable),
    (oe.JoinError("thread"), StorageUnavailable),
    (oe.NotSupportedError("verb"), StorageUnavailable),
    (oe.UnknownConfigurationKeyError("key"), StorageUnavailable),
    (ConnectionResetError("reset"), StorageUnavailable),
    (TimeoutError("slow"), StorageUnavailable),
    (ValueError("bad path"), StorageUnavailable),
]


@pytest.mark.parametrize(("error", "meaning"), MEANINGS, ids=lambda value: repr(value))
def test_every_error_of_obstore_means_one_of_ours(
    error: Exception, meaning: type[MillraceError]
) -> None:
    found = translate(error, "memory://m/a.jpg")
    assert type(found) is meaning
    assert "memory://m/a.jpg" in str(found)


def test_no_error_of_obstore_passes_untranslated() -> None:
    classes = [value for value in vars(oe).values() if isinstance(value, type)]
    theirs = [found for found in classes if issubclass(found, oe.BaseError)]
    assert len(theirs) > 10
    assert all(isinstance(translate(found("x"), "here"), MillraceError) for found in theirs)


def test_a_long_error_of_rust_becomes_one_line() -> None:
    error = oe.GenericError("it broke\n\nDebug source:\nGeneric {\n    store: …")
    assert str(translate(error, "here")) == "here: it broke"


def test_an_error_without_words_is_named() -> None:
    assert str(translate(oe.GenericError(), "here")) == "here: GenericError"


@pytest.mark.parametrize("error", [SourceChanged("mine"), KeyError("theirs"), RuntimeError()])
def test_an_error_of_somebody_else_comes_back_unchanged(error: Exception) -> None:
    assert translate(error, "here") is error


@pytest.mark.parametrize("key", ["/a.jpg", "./a.jpg", "a.jpg/", "x/../a.jpg", "a//b", "a\x01", ""])
def test_a_key_obstore_cannot_express_names_nothing(key: str) -> None:
    store = ObstoreStore(MemoryStore(), "memory://test")
    store.put("a.jpg", b"secret")
    for ask in (store.get, store.head, lambda key: list(store.blocks(key))):
        with pytest.raises(ObjectNotFound):
            ask(key)
    for write in (store.put, store.create):
        with pytest.raises(BadLocation):
            write(key, b"")
    store.delete(key)
    assert [item.key for item in store.list()] == ["a.jpg"]


def test_a_panic_of_obstore_is_an_error_of_the_store() -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    found = translate(panic("called `Option::unwrap()`"), "memory://m/a.jpg")
    assert isinstance(found, StorageUnavailable)
    assert "memory://m/a.jpg: obstore gave up" in str(found)


def test_overwriting_gives_up_create_only_writes() -> None:
    store = ObstoreStore(MemoryStore(), "memory://test", overwrite=True)
    store.create("a", b"one")
    store.create("a", b"two")
    assert store.get("a") == b"two"


def test_timeouts_are_milliseconds() -> None:
    assert timeouts(30, 0.5) == {"timeout": "30000ms", "connect_timeout": "500ms"}
