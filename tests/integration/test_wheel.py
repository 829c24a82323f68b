"""What `pip install millrace` puts on a machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support import ROOT

FOLDERS = ("core", "models", "export", "producer", "worker", "cli")


def test_the_wheel_carries_every_file_of_every_package(tmp_path: Path) -> None:
    # A copy, for building leaves its traces beside the sources.
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / "source" / folder)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path / "source")
    subprocess.run(
        [
            # With the setuptools that is here: nothing is fetched.
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", str(tmp_path), str(tmp_path / "source")),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("millrace-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        f"millrace/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(source.endswith(".html") for source in sources)
    assert sources <= names
    assert not any(name.startswith(("millrace/tests", "tests/")) for name in names)
