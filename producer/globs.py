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

MOST_PIECES = 10_000
"""Signs of all the patterns of a job together, whatever stands in braces written out."""

_Pieces = tuple[str, ...]
_STAR, _FOLDERS = "*", "**/"


def key_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A predicate over keys: matches an include (or there are none), and no exclude.

    Raises UsageError for a pattern that cannot be read, and for more of them than any job needs.
    """
    globs = _compiled([*include, *exclude])
    wanted, unwanted = globs[: len(include)], globs[len(include) :]

    def accepts(key: str) -> bool:
        if wanted and not any(glob.search(key) for glob in wanted):
            return False
        return not any(glob.search(key) for glob in unwanted)

    return accepts


def compile_glob(pattern: str) -> re.Pattern[str]:
    """The regular expression a pattern means. Whatever the two hold, matching a key takes no more
    steps than its length times the pattern's: both come from whoever asks. Raises UsageError."""
    return _read(pattern)[0]


def _compiled(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    globs, pieces = list[re.Pattern[str]](), 0
    for pattern in patterns:
        glob, more = _read(pattern)
        globs.append(glob)
        pieces += more
        if pieces > MOST_PIECES:
            raise UsageError(
                f"the patterns have more than {MOST_PIECES:,} signs together, braces written out",
                hint="name the images in a manifest",
            )
    return globs


def _read(pattern: str) -> tuple[re.Pattern[str], int]:
    """What a pattern means, and how many pieces that has."""
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
        ways = _ways(path.removeprefix("/"), pattern)
        any_of_them = "|".join(map(_expression, ways))
        return re.compile(f"{start}(?:{any_of_them}){end}", re.DOTALL), _size(ways)


def _ways(text: str, pattern: str) -> list[_Pieces]:
    """What a pattern may stand for, one of each `{a,b}` taken: in pieces, each the expression of
    one character, or a star, or folders."""
    ways: list[_Pieces] = [()]
    outer: list[tuple[list[_Pieces], list[_Pieces]]] = []
    """Of each brace that is open: what stands before it, and its alternatives so far."""
    i = 0
    while i < len(text):
        char = text[i]
        piece = None
        if text.startswith("**/", i) and (i == 0 or text[i - 1] == "/"):
            piece = _FOLDERS
            i += 2
        elif text[i:] == "**" and (i == 0 or text[i - 1] == "/"):
            piece = ".*"
            i += 1
        elif char == "*":
            piece = _STAR
        elif char == "?":
            piece = "[^/]"
        elif char == "[":
            negated = text[i + 1 : i + 2] in ("!", "^")
            start = i + 2 if negated else i + 1
            end = text.find("]", start)
            if end <= start:
                raise UsageError(f"{pattern!r}: '[' opens a set that is empty or never closed")
            piece = _set(text[start:end], negated, pattern)
            i = end
        elif char == "{":
            outer.append((ways, []))
            ways = [()]
        elif char == "," and outer:
            outer[-1][1].extend(ways)
            ways = [()]
        elif char == "}" and outer:
            before, others = outer.pop()
            others += ways
            if _size(before) * len(others) + _size(others) * len(before) > MOST_PIECES:
                raise UsageError(f"{pattern!r} stands for too many patterns")
            ways = [first + rest for first in before for rest in others]
        elif char == "\\" and i + 1 < len(text):
            i += 1
            piece = re.escape(text[i])
        else:
            piece = re.escape(char)
        if piece is not None:
            ways = [(*way, piece) for way in ways]
            if _size(ways) > MOST_PIECES:
                raise UsageError(f"{pattern!r} stands for too many patterns")
        i += 1
    if outer:
        raise UsageError(f"{pattern!r}: '{{' is never closed")
    return ways


def _size(ways: list[_Pieces]) -> int:
    return sum(len(way) + 1 for way in ways)


def _expression(pieces: _Pieces) -> str:
    """Between two stars, or two `**/`, stands what is of one length, in characters or in folders.
    So where it is found first is as good as anywhere later: `(?>…)` never looks again."""
    first, *deeper = (
        "/".join(map(_segment, _split(part, "/"))) for part in _split(pieces, _FOLDERS)
    )
    if not deeper:
        return first
    skipped = "(?:[^/]*/)*?"
    between = (f"(?>{skipped}{part})" for part in deeper[:-1])
    return f"{first}{''.join(between)}{skipped}{deeper[-1]}"


def _segment(pieces: _Pieces) -> str:
    first, *later = ("".join(part) for part in _split(pieces, _STAR))
    if not later:
        return first
    between = (f"(?>[^/]*?{part})" for part in later[:-1])
    return f"{first}{''.join(between)}[^/]*{later[-1]}"


def _split(pieces: _Pieces, separator: str) -> list[_Pieces]:
    places = [at for at, piece in enumerate(pieces) if piece == separator]
    starts, ends = [0, *(at + 1 for at in places)], [*places, len(pieces)]
    return [pieces[start:end] for start, end in zip(starts, ends, strict=True)]


def _set(members: str, negated: bool, pattern: str) -> str:
    escaped = re.sub(r"([\\\[\]&~|^])", r"\\\1", members)
    expression = f"(?!/)[{'^' if negated else ''}{escaped}]"
    try:
        re.compile(expression)
    except re.error as error:
        raise UsageError(f"{pattern!r}: [{members}]: {error}") from None
    return expression
