"""obstore's errors, each translated into one of ours."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

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
from millrace.core.settings import StorageSettings
from millrace.core.storage import Location, Stores
from millrace.core.storage.via_obstore import (
    ObstoreStore,
    client_options,
    open_url,
    retries,
    translate,
)

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
    (oe.GenericError("Unable to open: Permission denied (os error 13)"), AccessDenied),
    (oe.GenericError("Unable to open: Read-only file system (os error 30)"), AccessDenied),
    (oe.GenericError("Unable to open: No space left on device (os error 28)"), StorageUnavailable),
    (OSError("Server returned non-2xx status code: 403 Forbidden: <Error>"), AccessDenied),
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
    store = ObstoreStore(MemoryStore(), "memory://test", StorageSettings.load())
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


def test_timeouts_are_milliseconds() -> None:
    settings = StorageSettings.load(
        storage_request_timeout_s=30,
        storage_connect_timeout_s=0.5,
        storage_max_retries=2,
        storage_retry_timeout_s=1.5,
    )
    assert client_options(settings) == {"timeout": "30000ms", "connect_timeout": "500ms"}
    told = retries(settings)
    assert told["max_retries"] == 2
    assert told["retry_timeout"] == timedelta(seconds=1.5)


def test_a_url_that_lacks_its_configuration_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    stores = Stores(StorageSettings.load())
    with pytest.raises(BadLocation, match=r"^az://bkt: .*Account must be specified") as caught:
        stores.open(Location.parse("az://bkt/x"))
    assert "\n" not in caught.value.message


def test_a_url_is_opened_with_our_timeouts_and_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    store = open_url("az://bkt", StorageSettings.load(storage_connect_timeout_s=0.5))
    inner: Any = store._store
    assert inner.client_options["connect_timeout"] == "500ms"
    assert repr(store) == "ObstoreStore('az://bkt')"
