"""How much of a TIFF is decoded at once. Its tiles have a size of their own, which may be any
number of times the picture's, and libtiff makes room for a whole one.

Pillow decides by what it understands of the file, libtiff by what that understands; so the
directory is read here, and whatever either might take for the size of a tile counts.
Layout: TIFF 6.0, section 2, and BigTIFF.
"""

from __future__ import annotations

import struct

WIDTH, LENGTH = 322, 323
_NUMBERS = {1: "B", 3: "H", 4: "L", 16: "Q"}
"""The kinds of unsigned numbers: BYTE, SHORT, LONG and BigTIFF's LONG8."""


def tile_size(data: bytes, directory: int) -> tuple[int, int]:
    """The largest width and height of a tile that the directory at that offset names; 0 of what
    it does not. Raises ValueError or struct.error for a directory that is none."""
    order = "<" if data.startswith(b"II") else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    count_format, entry_format = ("Q", "HHQ8s") if version == 43 else ("H", "HHL4s")
    (count,) = struct.unpack_from(order + count_format, data, directory)
    at = directory + struct.calcsize(order + count_format)
    size = struct.calcsize(order + entry_format)
    sides = {WIDTH: 0, LENGTH: 0}
    for entry in range(at, at + count * size, size):
        tag, kind, values, value = struct.unpack_from(order + entry_format, data, entry)
        if tag not in sides:
            continue
        if kind not in _NUMBERS or values != 1:
            raise ValueError("the size of its tiles is no number")
        (side,) = struct.unpack_from(order + _NUMBERS[kind], value)
        sides[tag] = max(sides[tag], side)
    return sides[WIDTH], sides[LENGTH]
