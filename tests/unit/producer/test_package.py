"""What `import millrace.producer` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import millrace.producer


def test_importing_it_loads_no_tensorflow() -> None:
    code = "import sys, millrace.producer; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "millrace.producer" in loaded
    assert not {"tensorflow", "keras", "numpy", "PIL", "typer"} & set(loaded)


def test_its_names_are_these() -> None:
    assert millrace.producer.__all__ == [
        "Job",
        "JobStatus",
        "ListingProgress",
        "open_job",
        "submit",
    ]
    assert all(hasattr(millrace.producer, name) for name in millrace.producer.__all__)
