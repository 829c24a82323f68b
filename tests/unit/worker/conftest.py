"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.unit.worker.saved_models import Workshop


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """SavedModels of every form, each made when a test first asks for it."""
    return Workshop(tmp_path_factory.mktemp("saved-models"))


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Logs without structlog's pretty tracebacks, which take longer than what they tell of."""
    before = structlog.get_config()
    renderer = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])
    yield
    structlog.configure(**before)
