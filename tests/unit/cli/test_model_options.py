"""Options become the environment of worker processes."""

from __future__ import annotations

import pytest

from millrace.cli.model_options import worker_environment
from millrace.worker.options import WorkerOptions


def test_options_become_variables_and_those_left_out_do_not() -> None:
    assert worker_environment(batch_size=32, logits=False, tags=None, max_delay_ms=0.5) == {
        "MILLRACE_BATCH_SIZE": "32",
        "MILLRACE_LOGITS": "False",
        "MILLRACE_MAX_DELAY_MS": "0.5",
    }


def test_a_worker_reads_them_back(no_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "saved_model": "/models/m",
        "name": "m",
        "size": "8x16",
        "scale": "0,255",
        "channels": "L",
        "logits": True,
        "batch_size": 4,
        "threads": 0,
    }
    for name, value in worker_environment(**given).items():
        monkeypatch.setenv(name, value)
    options = WorkerOptions.load()
    assert {name: getattr(options, name) for name in given} == given
