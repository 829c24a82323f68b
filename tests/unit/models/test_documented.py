"""docs/models.md tells of the architectures there are what they say themselves."""

from __future__ import annotations

import re

import pytest

from millrace.models import architecture, architectures
from tests.support import ROOT

ROW = re.compile(
    r"^\| `(\w+)` \| (\d+) × (\d+) (\w+) \| [\d.]+ [Mk] \| `([\w,]+)` \|", re.MULTILINE
)
ROWS = {row[0]: row[1:] for row in ROW.findall((ROOT / "docs" / "models.md").read_text())}


def test_every_architecture_is_documented_and_no_other() -> None:
    assert tuple(ROWS) == architectures()


@pytest.mark.parametrize("name", architectures())
def test_it_takes_what_its_documentation_says(name: str) -> None:
    found = architecture(name)
    said = (str(found.height), str(found.width), found.channels, found.scale)
    assert ROWS[name] == said
