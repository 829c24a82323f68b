"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.benchmarks.courses import peers_run_here


@pytest.fixture
def peers_here() -> Iterator[None]:
    with peers_run_here():
        yield
