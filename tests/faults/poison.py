"""Pictures that abort the process that opens them, as a bug in a decoder would."""

from __future__ import annotations

from pathlib import Path

POISON = b"POISON"
"""What such a picture ends with."""

_KILLER = '''
"""Imported by every Python that starts: opening the poisoned picture aborts the process."""
import io, os
import PIL.Image

honest = PIL.Image.open

def open_or_die(file, *args, **kwargs):
    if isinstance(file, io.BytesIO) and file.getvalue().endswith(b"POISON"):
        with open(os.environ["DEATHS"], "a") as deaths:
            deaths.write("died\\n")
        os.abort()
    return honest(file, *args, **kwargs)

PIL.Image.open = open_or_die
'''


def killed_by_poison(folder: Path, deaths: Path) -> dict[str, str]:
    """The environment of a worker that dies so, once for each line in the file `deaths`."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_KILLER)
    return {"PYTHONPATH": str(folder), "DEATHS": str(deaths)}
