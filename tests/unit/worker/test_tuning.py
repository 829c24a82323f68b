"""What can be told of a machine before a model is loaded."""

from __future__ import annotations

import pytest

from millrace.worker.tuning import gpus


@pytest.mark.parametrize(
    ("visible", "found"), [("", 0), ("-1", 0), ("0", 1), ("0,1", 2), ("GPU-8932f937", 1)]
)
def test_the_gpus_that_may_be_used(
    visible: str, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == found
