"""`millrace serve` without what it needs."""

from __future__ import annotations

import importlib.util

import pytest

from millrace.cli.serve import refuse_missing
from millrace.core.errors import MissingExtra


@pytest.mark.parametrize("library", ["fastapi", "jinja2", "PIL", "prometheus_client"])
def test_a_library_that_is_missing_is_told_by_name(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == library else found(name)
    )
    with pytest.raises(MissingExtra, match=f"{library} is not installed"):
        refuse_missing()
