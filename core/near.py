"""Names like the one that was asked for, for the hint of an error."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST = 5


def near(name: str, names: Iterable[str]) -> list[str]:
    """Up to five of `names`: those whose last part is the same first, then those spelled alike."""
    known = list(names)
    last = name.rpartition("/")[2].lower()
    same = [each for each in known if each.rpartition("/")[2].lower() == last]
    lower = {each.lower(): each for each in known}
    alike = [lower[each] for each in get_close_matches(name.lower(), lower, MOST)]
    return list(dict.fromkeys([*same[:MOST], *alike]))[:MOST]
