"""Images that take as long to decode as a test says, so that chunks stay in hand."""

from __future__ import annotations

from pathlib import Path

_SLOW = '''
"""Imported by every Python that starts: a picture opens when the gate has let it through."""
import os, pathlib, time
import PIL.Image

honest, gate = PIL.Image.open, pathlib.Path(os.environ["GATE"])

def wait_s():
    try:
        return float(gate.read_text())
    except FileNotFoundError:
        return 0

def open_late(file, *args, **kwargs):
    began = time.monotonic()
    while time.monotonic() - began < wait_s():
        time.sleep(0.01)
    return honest(file, *args, **kwargs)

PIL.Image.open = open_late
'''


class Gate:
    """What the workers with its `environment` decode passes through here."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(_SLOW)
        self._file = folder / "gate"
        self.environment = {"PYTHONPATH": str(folder), "GATE": str(self._file)}

    def close(self) -> None:
        self.hold(1e9)

    def hold(self, seconds: float) -> None:
        """Let every image wait so long, or until the gate is opened."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)

    def open(self) -> None:
        self._file.unlink(missing_ok=True)
