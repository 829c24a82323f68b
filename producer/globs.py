"""Include and exclude patterns over keys, as in .gitignore and rsync.

`*` and `?` stay within a path segment, a `**` segment crosses them, `[…]` is a set, `{a,b}`
are alternatives. A pattern without a slash is matched against the file name, one with a slash
against the whole key relative to the input; one that ends in a slash means all that lies in
folders of that name. Matching is case-sensitive.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

from millrace.core.errors import UsageError


def key_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A predicate over keys: matches an include (or there are none), and no exclude.

    Raises UsageError for a pattern that cannot be read.
    """
    wanted = [compile_glob(pattern) for pattern in include]
    unwanted = [compile_glob(pattern) for pattern in exclude]

    def accepts(key: str) -> bool:
        if wanted and not any(glob.search(key) for glob in wanted):
            return False
        return not any(glob.search(key) for glob in unwanted)

    return accepts


def compile_glob(pattern: str) -> re.Pattern[str]:
    """The regular expression a pattern means. Raises UsageError."""
    if not pattern:
        raise UsageError("an empty pattern matches nothing")
    path = pattern.removesuffix("/")
    if not path.strip("/"):
        raise UsageError(f"{pattern!r} matches nothing")
    start = "^" if "/" in path else "(?:^|/)"
    end = "/" if path != pattern else r"\Z"
    with warnings.catch_warnings():
        # That a set might mean something else in a future Python's regular expressions.
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(start + _translate(path.removeprefix("/"), pattern) + end, re.DOTALL)


def _translate(text: str, pattern: str) -> str:
    out: list[str] = []
    depth = 0
    i = 0
    while i < len(text):
        char = text[i]
        if text.startswith("**", i) and (i == 0 or text[i - 1] == "/"):
            if text.startswith("**/", i):
                out.append("(?:.*/)?")
                i += 3
                continue
            if i + 2 == len(text):
                out.append(".*")
                i += 2
                continue
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            negated = text[i + 1 : i + 2] in ("!", "^")
            start = i + 2 if negated else i + 1
            end = text.find("]", start)
            if end <= start:
                raise UsageError(f"{pattern!r}: '[' opens a set that is empty or never closed")
            out.append(_set(text[start:end], negated, pattern))
            i = end
        elif char == "{":
            depth += 1
            out.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            out.append(")")
        elif char == "," and depth:
            out.append("|")
        elif char == "\\" and i + 1 < len(text):
            i += 1
            out.append(re.escape(text[i]))
        else:
            out.append(re.escape(char))
        i += 1
    if depth:
        raise UsageError(f"{pattern!r}: '{{' is never closed")
    return "".join(out)


def _set(members: str, negated: bool, pattern: str) -> str:
    escaped = re.sub(r"([\\\[\]&~|^])", r"\\\1", members)
    expression = f"(?!/)[{'^' if negated else ''}{escaped}]"
    try:
        re.compile(expression)
    except re.error as error:
        raise UsageError(f"{pattern!r}: [{members}]: {error}") from None
    return expression
