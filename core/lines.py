"""Lines out of blocks of bytes, in the memory of one block and one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator


def split_lines(
    blocks: Iterable[bytes], max_bytes: int, too_long: Callable[[int], Exception]
) -> Iterator[bytes]:
    """Lines without their newline; a last one need not end in one.

    Raises `too_long(number)`, the first line being 1, for one of more than `max_bytes`.
    """
    rest, number = b"", 0
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number += 1
            if len(line) > max_bytes:
                raise too_long(number)
            yield line
        if len(rest) > max_bytes:
            raise too_long(number + 1)
    if rest:
        yield rest
