"""A job that was accepted keeps the promise to list it, whatever other requests do meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.core.errors import ObjectNotFound
from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.producer.http import lister as module
from millrace.producer.http.duties import Duties, Kind
from millrace.producer.http.lister import Lister
from millrace.producer.submit import accept
from tests.unit.core.support import a_spec


@pytest.fixture
def spec(photos: Path, tmp_path: Path) -> JobSpec:
    return a_spec("j", input={"uri": photos.as_uri()}, output=(tmp_path / "out").as_uri())


@pytest.fixture
def lister(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lister]:
    """One whose server dies before it begins anything."""
    made = Lister(services)
    monkeypatch.setattr(made, "begin", lambda job: None)
    yield made
    made.stop(0)


def test_a_request_that_fails_takes_no_promise_from_one_that_does_not(
    services: Services, lister: Lister, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accept_after_another_failed(services: Services, spec: JobSpec) -> bool:
        lister._forget_unless_made(spec.job_id)
        return accept(services, spec)

    monkeypatch.setattr(module, "accept", accept_after_another_failed)
    assert lister.submit(spec)
    assert Duties(services.redis).open("list") == ["j"]


def test_nor_from_one_that_makes_the_job_at_the_same_moment(
    services: Services, lister: Lister, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Duties):
        def done(self, kind: Kind, job: str) -> None:
            accept(services, spec)
            super().done(kind, job)

    def refuse(*_: object) -> bool:
        raise ObjectNotFound("it was not there yet")

    monkeypatch.setattr(lister, "_duties", Late(services.redis))
    monkeypatch.setattr(module, "accept", refuse)
    with pytest.raises(ObjectNotFound):
        lister.submit(spec)
    assert Duties(services.redis).open("list") == ["j"]


def test_an_old_promise_is_taken_back_only_if_no_job_stands(
    services: Services, lister: Lister, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0)
    Duties(services.redis).add("list", "none")
    lister._list("none")
    assert Duties(services.redis).open("list") == []
