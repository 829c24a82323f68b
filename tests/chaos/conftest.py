"""The environment of the real command, with leases short enough to watch."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def env(redis_url: str, repository: Path) -> dict[str, str]:
    return {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_MODELS": str(repository),
        "MILLRACE_LEASE_S": "2",
        "MILLRACE_RECONCILE_S": "1",
    }
