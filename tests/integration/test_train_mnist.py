"""MNIST for real: 5,000 digits learnt from, the other 5,000 unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import millrace_json


@pytest.mark.parametrize(("recipe", "at_least"), [("mnist-softmax", 0.90), ("mnist-cnn", 0.97)])
def test_it_reads_the_unseen_half(recipe: str, at_least: float, real: Path, tmp_path: Path) -> None:
    report = millrace_json(
        *("train", recipe, "--data", str(real / "mnist"), "--run", str(tmp_path / "run")), env={}
    )
    assert (report["seen"], report["unseen"]) == (5000, 5000)
    assert report["classes"] == list("0123456789")
    assert report["accuracy"] >= at_least
