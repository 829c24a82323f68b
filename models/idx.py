"""Read idx files, the format MNIST comes in.

Four bytes of magic (two zeros, the type of the values, the number of dimensions), one
big-endian uint32 per dimension, then the values, big-endian, last dimension fastest. Files may
be gzipped, whatever their names say.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from millrace.core.errors import BadData, ObjectNotFound

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

MAX_BYTES = 8 * 2**30
"""Larger ones are refused before anything is read: a header can claim anything."""

BLOCK_BYTES = 2**20
_GZIP = b"\x1f\x8b"


def read_idx(path: Path) -> npt.NDArray[Any]:
    """The array in a file, in this machine's byte order.

    Raises ObjectNotFound, and BadData for a file that is truncated, too long or no idx file.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
            file.seek(0)
            if not zipped:
                return _read(file, path)
            with gzip.open(file) as unzipped:
                return _read(unzipped, path)  # type: ignore[arg-type]
    except FileNotFoundError:
        raise ObjectNotFound(f"there is no file {path}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadData(f"{path} is a damaged gzip file: {error}") from None
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from None


def _read(file: BinaryIO, path: Path) -> npt.NDArray[Any]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not magic[3]:
        raise BadData(f"{path} is no idx file: it begins with {magic.hex(' ') or 'nothing'}")
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise BadData(f"{path} is truncated: it ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    kind = np.dtype(TYPES[magic[2]])
    expected = math.prod(shape) * kind.itemsize
    if expected > MAX_BYTES:
        raise BadData(f"{path} claims to hold {expected:,} bytes, more than {MAX_BYTES:,}")
    values = _up_to(expected, file)
    if len(values) < expected:
        raise BadData(f"{path} is truncated: {len(values):,} of {expected:,} bytes of values")
    if file.read(1):
        raise BadData(f"{path} is no idx file: it goes on after its {expected:,} bytes of values")
    try:
        return np.frombuffer(values, kind).reshape(shape).astype(kind.newbyteorder("="))
    except ValueError:  # more dimensions, or longer ones beside one of 0, than an array may have
        raise BadData(f"{path} claims a shape that no array has: {_shown(shape)}") from None


def _shown(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape[:3])) + (" × …" if len(shape) > 3 else "")


def _up_to(count: int, file: BinaryIO) -> bytearray:
    """So many bytes or what there is, in the memory of what there is."""
    found = bytearray()
    while block := file.read(min(count - len(found), BLOCK_BYTES)):
        found += block
    return found
