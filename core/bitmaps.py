"""Redis bitmaps: bit n counts from the most significant of byte n // 8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def bit(bitmap: bytes, n: int) -> bool:
    """Bit n of a Redis bitmap."""
    return n >> 3 < len(bitmap) and bool(bitmap[n >> 3] & (0x80 >> (n & 7)))


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
