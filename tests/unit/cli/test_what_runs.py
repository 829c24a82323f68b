"""`millrace run` says what computes the job, once it is known and once only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from millrace.cli.what_runs import WhatRuns
from millrace.core.fleet import Fleet, WorkerInfo
from millrace.core.running import Running
from millrace.core.services import Services

ENGINE = "millrace: the engine is openvino (it takes the model), bfloat16, batches of 8\n"
LOADED = Running("openvino", "it takes the model", "bfloat16", 8, to_compare=32)


def some(compared: int, agreement: float) -> Running:
    return replace(LOADED, compared=compared, top_1_agreement=agreement)


def announce(fleet: Fleet, *running: Running | None) -> None:
    for number, how in enumerate(running):
        info = WorkerInfo(f"{number}@host/ab", "tiny", "q", "busy", 1, 0, 0.0, 1)
        fleet.announce(replace(info, running=how))


def test_the_engine_is_named_once_the_first_worker_is_ready(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    what = WhatRuns(services.fleet, quiet=False)
    what.look()
    announce(services.fleet, None, None)
    what.look()
    assert capsys.readouterr() == ("", "")
    announce(services.fleet, LOADED, None)
    what.look()
    announce(services.fleet, LOADED, LOADED)
    what.look()
    assert capsys.readouterr() == ("", ENGINE)


def test_the_agreement_of_all_workers_is_told_once_it_is_known(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    what = WhatRuns(services.fleet, quiet=False)
    for known in ((some(32, 1.0), None), (some(32, 1.0), some(16, 0.5))):
        announce(services.fleet, *known)
        what.look()
    assert capsys.readouterr().err == ENGINE
    for last in (False, True):
        announce(services.fleet, some(32, 1.0), some(32, 0.75))
        what.look(last=last)
    agreement = "millrace: 87.5% of 64 images answered as float32 would (top 1)\n"
    assert capsys.readouterr().err == agreement


def test_of_a_short_job_it_is_what_was_compared(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(services.fleet, some(3, 1.0), LOADED)
    WhatRuns(services.fleet, quiet=False).look(last=True)
    agreement = "millrace: 100.0% of 3 images answered as float32 would (top 1)\n"
    assert capsys.readouterr().err == ENGINE + agreement


def test_of_float32_there_is_no_more_to_say(
    services: Services, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(services.fleet, Running("tensorflow", "it was asked for", "float32", 16))
    what = WhatRuns(services.fleet, quiet=False)
    what.look()
    monkeypatch.setattr(services.fleet, "workers", lambda: pytest.fail("looked again"))
    what.look(last=True)
    engine = "millrace: the engine is tensorflow (it was asked for), float32, batches of 16\n"
    assert capsys.readouterr().err == engine


def test_quiet_says_nothing(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    announce(services.fleet, some(32, 1.0))
    WhatRuns(services.fleet, quiet=True).look(last=True)
    assert capsys.readouterr() == ("", "")
