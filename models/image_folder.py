"""Pictures in one folder per class: `DIR/cat/…`, `DIR/dog/…`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from millrace.core.errors import BadData, ObjectNotFound
from millrace.models.architecture import Architecture
from millrace.models.labelled import Dataset, Labelled, check_classes, checked, split
from millrace.models.pixels import depth
from millrace.models.read_picture import read_picture

HELD_OUT = 0.2


def read_image_folder(
    path: Path, architecture: Architecture, holdout: float | None = None
) -> Dataset:
    """The pictures directly in each folder of `path`, resized to the architecture's input.

    The folders' names, sorted, are the classes. Files that are no pictures are skipped and
    named in `skipped`; what begins with a dot is passed over. `holdout` is the share unseen.
    Raises ObjectNotFound, UsageError and BadData.
    """
    if not path.is_dir():
        raise ObjectNotFound(f"{path} is not a directory")
    try:
        classes = sorted(entry.name for entry in _visible(path) if entry.is_dir())
        files = [
            (file, label) for label, name in enumerate(classes) for file in _files(path / name)
        ]
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from None
    _check_folders(path, classes, [label for _, label in files])
    seen, unseen = split([label for _, label in files], HELD_OUT if holdout is None else holdout)
    skipped: list[str] = []
    parts = []
    for which in (seen, unseen):
        part, unread = _read([files[number] for number in which], architecture)
        parts.append(part)
        skipped += [file.relative_to(path).as_posix() for file in unread]
    data = Dataset(parts[0], parts[1], tuple(classes), tuple(sorted(skipped)))
    return checked(data, str(path))


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(entry for entry in _visible(folder) if entry.is_file())


def _check_folders(path: Path, classes: Sequence[str], labels: Sequence[int]) -> None:
    if not classes:
        raise BadData(
            f"{path} holds neither idx files nor folders of pictures",
            hint="one folder of PNG or JPEG files for each class, or train-images-idx3-ubyte.gz …",
        )
    check_classes(classes, str(path))
    for label, name in enumerate(classes):
        if name.splitlines() != [name]:
            raise BadData(f"{path}: the folder {name!r} names a class, which must be one line")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadData(
                f"{path}: the folder {name!r} names a class, and is not in UTF-8",
                hint="rename it; names from Windows are often in another encoding",
            ) from None
        if label not in labels:
            inner = any(entry.is_dir() for entry in _visible(path / name))
            raise BadData(
                f"{path / name} holds no files",
                hint="it holds folders: is it the one to give as --data?" if inner else None,
            )


def _read(
    files: Sequence[tuple[Path, int]], architecture: Architecture
) -> tuple[Labelled, list[Path]]:
    """The pictures that can be read, and the files that cannot.

    They lie in a file without a name, which the system keeps in memory as far as there is any.
    """
    shape = (architecture.height, architecture.width, depth(architecture))
    pixels = _on_disk((len(files), *shape))
    labels: list[int] = []
    skipped: list[Path] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = pool.map(lambda file: read_picture(file[0], architecture), files)
        for (file, label), picture in zip(files, pictures, strict=True):
            if picture is None:
                skipped.append(file)
            else:
                pixels[len(labels)] = picture
                labels.append(label)
    return Labelled(pixels[: len(labels)], np.asarray(labels, np.int64)), skipped


def _on_disk(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if not np.prod(shape):
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile(prefix="millrace-train-") as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
