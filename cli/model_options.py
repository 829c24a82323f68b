"""From a worker's command-line options to the environment its processes read."""

from __future__ import annotations

from typing import Any


def worker_environment(**options: Any) -> dict[str, str]:
    """`batch_size=32` → `{"MILLRACE_BATCH_SIZE": "32"}`; options left out are None."""
    return {
        f"MILLRACE_{name.upper()}": str(value)
        for name, value in options.items()
        if value is not None
    }
