"""Globs: the documented cases, and agreement with a slow reference that is obviously right."""

from __future__ import annotations

import time
import warnings
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millrace.core.errors import UsageError
from millrace.producer.globs import compile_glob, key_filter


def matches(pattern: str, key: str) -> bool:
    return compile_glob(pattern).search(key) is not None


def slowly(pattern: str, key: str) -> bool:
    """What a pattern of literals, `?`, `*` and whole `**` segments means, tried out."""
    if not pattern.endswith("/"):
        return named(pattern, key)
    folders = [key[:end] for end, char in enumerate(key) if char == "/"]
    return any(named(pattern[:-1], folder) for folder in folders)


def named(pattern: str, key: str) -> bool:
    if "/" not in pattern:
        return pattern == "**" or segment(pattern, key.rpartition("/")[2])
    return path(pattern.removeprefix("/").split("/"), key.split("/"))


def path(wanted: list[str], found: list[str]) -> bool:
    if not wanted:
        return not found
    first, rest = wanted[0], wanted[1:]
    if first == "**":
        if not rest:
            return bool(found)
        return any(path(rest, found[skipped:]) for skipped in range(len(found) + 1))
    return bool(found) and segment(first, found[0]) and path(rest, found[1:])


def segment(wanted: str, found: str) -> bool:
    if not wanted:
        return not found
    if wanted[0] == "*":
        return any(segment(wanted[1:], found[taken:]) for taken in range(len(found) + 1))
    return found[:1] != "" and wanted[0] in ("?", found[0]) and segment(wanted[1:], found[1:])


segments = st.one_of(
    st.just("**"),
    st.text(st.sampled_from("ab.*?"), max_size=4).filter(lambda text: "**" not in text),
)
patterns = st.builds(
    lambda lead, parts: lead + "/".join(parts),
    st.sampled_from(["", "/"]),
    st.lists(segments, min_size=1, max_size=4),
).filter(lambda pattern: pattern.strip("/"))
keys = st.text(st.sampled_from("ab./"), max_size=8)


@given(patterns, keys)
@example("**/b", "b")
@example("a/**/b", "a/b")
@example("a/**", "a/")
@example("*", "")
@example("**/", "a/b")
@example("a/**/", "a/b")
@example("/a/", "b/a/b")
def test_a_pattern_means_what_the_reference_says(pattern: str, key: str) -> None:
    assert matches(pattern, key) == slowly(pattern, key)


@pytest.mark.parametrize(
    "pattern",
    [
        "*?" * 10 + "*~",
        "*a" * 100 + "*~",
        "*?" * 500 + "~",
        "**/" * 20 + "a~",
        "**/a*/" * 100 + "~",
        "/".join(["*a*"] * 100) + "~",
        "{" + ",".join(["*a" * 5] * 80) + "}*~",
        "*{a,aa}" * 6 + "~",
        "*?" * 10 + "*~/",
    ],
)
@pytest.mark.parametrize("key", ["a" * 1000, "a/" * 500, "aaaa/" * 200 + "a"])
def test_no_pattern_takes_long_to_find_that_a_key_is_not_its(pattern: str, key: str) -> None:
    glob = compile_glob(pattern)
    began = time.process_time()
    assert glob.search(key) is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize("pattern", ["{a,b}" * 40, "{,}" * 40, "{a,b}" * 9 + "?" * 900])
def test_a_pattern_stands_for_so_many_at_most(pattern: str) -> None:
    with pytest.raises(UsageError, match="too many"):
        compile_glob(pattern)


def test_the_patterns_of_a_job_are_counted_together() -> None:
    some = ["*?" * 400] * 6
    key_filter(some, some)
    with pytest.raises(UsageError, match="together"):
        key_filter(some, [*some, "*?" * 400])


braces = st.lists(
    st.sampled_from(["a", "b", "*", "?", "/", "/**/", "{a,ab}", "{*a,b}", "{a/b,b}", "{a*,{b,a}}"]),
    min_size=1,
    max_size=6,
).map("".join)


@given(braces.filter(lambda pattern: pattern.strip("/")), keys)
@example("*{aab,b}*a", "aaba")
@example("{ab,a}*b", "ab")
def test_braces_mean_each_of_their_alternatives(pattern: str, key: str) -> None:
    written_out = [pattern]
    while any("{" in one for one in written_out):
        written_out = [way for one in written_out for way in without_a_brace(one)]
    whole = "/" in pattern.removesuffix("/")
    # With a slash anywhere, a pattern means the whole key.
    ways = ["/" + way.removeprefix("/") if whole else way for way in written_out]
    assert matches(pattern, key) == any(slowly(way, key) for way in ways)


def without_a_brace(pattern: str) -> list[str]:
    """Each alternative of the last brace that opens, which holds no other."""
    start = pattern.rfind("{")
    if start < 0:
        return [pattern]
    end = pattern.index("}", start)
    choices = pattern[start + 1 : end].split(",")
    return [pattern[:start] + choice + pattern[end + 1 :] for choice in choices]


@given(st.text(st.characters(codec="utf-8", exclude_characters="*?[]{}\\/\n,"), min_size=1))
def test_a_pattern_without_signs_is_a_file_name(name: str) -> None:
    assert matches(name, name)
    assert matches(name, f"folder/{name}")
    assert not matches(name, f"{name}/folder")
    assert not matches(name, f"x{name}")


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("*.jpg", "a.jpg"),
        ("*.jpg", "deep/in/a.jpg"),
        ("photos/*.jpg", "photos/a.jpg"),
        ("photos/**", "photos/2024/a.jpg"),
        ("photos/**/a.jpg", "photos/a.jpg"),
        ("photos/**/a.jpg", "photos/x/y/a.jpg"),
        ("**/thumbs/*", "a/b/thumbs/1.jpg"),
        ("/a.jpg", "a.jpg"),
        ("img?.png", "img1.png"),
        ("img[0-9].png", "img1.png"),
        ("img[!0-9].png", "imgx.png"),
        ("img[^0-9].png", "imgx.png"),
        ("[a-]x", "-x"),
        ("[.^]x", "^x"),
        ("[!!]x", "ax"),
        ("[a&&b]x", "&x"),
        ("[[]x", "[x"),
        ("*.{jpg,jpeg,png}", "a.jpeg"),
        ("{a,b{1,2}}.x", "b2.x"),
        ("{2023,2024}/*.jpg", "2024/a.jpg"),
        ("a{,.bak}", "a"),
        ("\\*.jpg", "*.jpg"),
        ("\\{a\\}", "{a}"),
        ("a}b", "a}b"),
        ("a,b", "a,b"),
        ("a\\", "a\\"),
        ("(a|b)+$", "(a|b)+$"),
        ("*", "line\nbreak.jpg"),
        ("naïve*", "naïve🦄"),
        ("thumbs/", "thumbs/x.jpg"),
        ("thumbs/", "a/thumbs/x.jpg"),
        ("thumbs/", "a/thumbs/b/x.jpg"),
        ("/thumbs/", "thumbs/a/x.jpg"),
        ("a/b/", "a/b/x.jpg"),
        ("**/a/b/", "x/a/b/c.jpg"),
        (".*/", "a/.cache/x.jpg"),
        ("{thumbs,small}/", "a/small/x.jpg"),
        ("[+--]x", "-x"),
    ],
)
def test_it_matches(pattern: str, key: str) -> None:
    assert matches(pattern, key)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("*.jpg", "a.jpg.txt"),
        ("*.jpg", "a.JPG"),
        ("*.jpg", "ajpg"),
        ("*.jpg", "a.jpg\n"),
        ("a**b", "a/x/b"),
        ("[!!]x", "!x"),
        ("photos/*.jpg", "photos/2024/a.jpg"),
        ("photos/*.jpg", "my/photos/a.jpg"),
        ("photos/**", "photos2/a.jpg"),
        ("photos/**", "photos"),
        ("/a.jpg", "deep/a.jpg"),
        ("a?b", "a/b"),
        ("a[/]b", "a/b"),
        ("a[!x]b", "a/b"),
        ("img[0-9].png", "img12.png"),
        ("img[!0-9].png", "img1.png"),
        ("*.{jpg,png}", "a.gif"),
        ("\\*.jpg", "a.jpg"),
        ("a.jpg", "aXjpg"),
        ("thumbs/", "thumbs.jpg"),
        ("thumbs/", "thumbs"),
        ("thumbs/", "a/thumbs"),
        ("thumbs/", "mythumbs/x.jpg"),
        ("thumbs/", "thumbs2/x.jpg"),
        ("/thumbs/", "a/thumbs/x.jpg"),
        ("a/b/", "x/a/b/c.jpg"),
        ("a/b/", "a/b.jpg"),
        ("[+--]x", "ax"),
    ],
)
def test_it_does_not_match(pattern: str, key: str) -> None:
    assert not matches(pattern, key)


@pytest.mark.parametrize(
    "pattern",
    ["", "[", "a[b", "[]", "[!]", "[^]", "a/[", "{a,b", "{a,{b,c}", "[z-a]", "/", "//", "[a--]"],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        key_filter([pattern], [])
    with pytest.raises(UsageError):
        key_filter([], [pattern])


@pytest.mark.parametrize("pattern", ["[+--]", "[a--]", "[a||b]", "[a~~b]", "[a&&b]", "[[a]"])
def test_python_says_nothing_about_its_own_future(pattern: str) -> None:
    with warnings.catch_warnings(), suppress(UsageError):
        warnings.simplefilter("error")
        compile_glob(pattern)


def test_without_patterns_every_key_is_accepted() -> None:
    accepts = key_filter([], [])
    assert accepts("")
    assert accepts("a/b.jpg")


def test_any_include_will_do_and_no_exclude_will() -> None:
    accepts = key_filter(["*.jpg", "*.png"], ["thumbs/**", "*_small.*"])
    assert accepts("a.jpg")
    assert accepts("x/b.png")
    assert not accepts("a.gif")
    assert not accepts("thumbs/a.jpg")
    assert not accepts("a_small.jpg")


def test_a_folder_is_excluded_wherever_it_lies() -> None:
    accepts = key_filter([], ["thumbs/"])
    assert not accepts("thumbs/x.jpg")
    assert not accepts("a/thumbs/x.jpg")
    assert accepts("thumbs.jpg")


def test_excludes_alone_accept_the_rest() -> None:
    accepts = key_filter([], ["*.txt"])
    assert accepts("a.jpg")
    assert not accepts("notes.txt")
