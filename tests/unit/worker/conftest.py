"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from PIL import Image

from millrace.core.services import Services
from tests.unit.worker.runner_bench import Bench
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


@pytest.fixture
def bench(services: Services, tmp_path: Path) -> Iterator[Bench]:
    """A runner, and jobs for it to run."""
    made = Bench(services, tmp_path)
    yield made
    made.close()


@pytest.fixture
def pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder may raise Pillow's global limit; the next test starts from Pillow's own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
