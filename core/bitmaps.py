"""Redis bitmaps: bit n counts from the most significant of byte n // 8."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_NOT_ALL_SET = re.compile(rb"[^\xff]")


def bitmap(positions: Iterable[int]) -> bytes:
    """The Redis bitmap in which these bits are set."""
    numbers = list(positions)
    bits = bytearray(max(numbers, default=-1) // 8 + 1)
    for n in numbers:
        bits[n >> 3] |= 0x80 >> (n & 7)
    return bytes(bits)


def set_bits(bitmap: bytes) -> Iterator[int]:
    """The positions of the set bits, ascending."""
    for index, byte in enumerate(bitmap):
        if byte:
            for offset in range(8):
                if byte & (0x80 >> offset):
                    yield index * 8 + offset


def clear_bits(bitmap: bytes, end: int) -> Iterator[int]:
    """The positions below `end` that are not set, ascending.

    Bytes of eight set bits are passed over at once: of 100,000 chunks that are all but finished
    only the last few cost anything.
    """
    padded = bitmap.ljust((end + 7) // 8, b"\0")
    for match in _NOT_ALL_SET.finditer(padded, 0, (end + 7) // 8):
        index, byte = match.start(), match.group()[0]
        for n in range(index * 8, min(index * 8 + 8, end)):
            if not byte & (0x80 >> (n & 7)):
                yield n
