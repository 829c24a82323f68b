"""Take the pictures of the dashboard that README.md and docs/dashboard.md show:

    .venv/bin/python -m tests.dashboard_pictures docs/images

It starts `millrace demo-web`, looks at it with a real browser, and takes it down again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import Browser, browser
from tests.support import MILLRACE

MOST_COLOURS = 192
"""Few enough that each stays below 150 kB; nobody sees the difference."""


def main(folder: Path, everything: bool) -> None:
    """`everything` also takes those that are only for looking at while the pages are worked on."""
    process = subprocess.Popen(
        [*MILLRACE, "demo-web"], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stderr is not None
    try:
        job = ""
        while not (said := re.search(r"(http://\S+)/jobs/(\S+)", job)):
            job = process.stderr.readline()
            assert job, "the demo did not start"
        with (
            tempfile.TemporaryDirectory() as profile,
            browser(said[1], Path(profile)) as b,
        ):
            take(b, said[2], folder, everything)
            print("the console:", b.complaints() or "nothing")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def take(b: Browser, job: str, folder: Path, everything: bool) -> None:
    b.go(f"/jobs/{job}")
    if everything:
        b.wait(lambda: b.all("#chart svg"), "a chart")
        shot(b, folder, "running", 1280, 900, "light")
        b.go("/")
        shot(b, folder, "list-running", 1280, 700, "light")
    b.go(f"/jobs/{job}")
    b.wait(lambda: "completed" in b.text("#progress"), "the end", 120)
    b.go(f"/jobs/{job}")  # whose bars stand where they belong, and move there no more
    b.wait(lambda: not b.all("#shots img:not([src])"), "thumbnails")
    shot(b, folder, "job", 1280, 1400, "light")
    shot(b, folder, "job-dark", 1280, 1400, "dark")
    if not everything:
        return
    b.go("/new")
    b.fill(source="s3://millrace-demo/digits", output="s3://millrace-demo/predictions")
    b.find("summary").click()
    b.find("button[formaction]").click()
    b.wait(lambda: b.all("#preview .figures"), "a preview")
    shot(b, folder, "preview", 1280, 0, "light")
    b.go("/try")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Image.linear_gradient("L").resize((8, 8)).save(file.name)
        b.driver.find_element("css selector", "#picture").send_keys(file.name)
        b.wait(lambda: b.all("#answer .scores"), "an answer")
        shot(b, folder, "answer", 1280, 700, "light")
    b.go(f"/jobs/{job}?label=8&most=0.97")
    b.find("#do-retry").click()
    b.find("#ask-retry")
    shot(b, folder, "dialog", 1280, 900, "dark")
    for scheme in ("light", "dark"):
        for width in (390, 1280):
            for name, path in (
                ("whole", f"/jobs/{job}"),
                ("list", "/"),
                ("new", "/new"),
                ("try", "/try"),
                ("workers", "/workers"),
                ("image", f"/jobs/{job}/images/3"),
                ("ask", f"/jobs/{job}/retry"),
                ("lost", "/jobs/nothing"),
            ):
                b.go(path)
                shot(b, folder, f"{name}-{width}-{scheme}", width, 0, scheme)


def shot(b: Browser, folder: Path, name: str, width: int, height: int, scheme: str) -> None:
    """One picture; without a height, of the whole page."""
    b.scheme(scheme)
    b.size(width, height or 800)
    if not height:
        b.size(width, min(4000, b.script("return document.documentElement.scrollHeight")))
    b.wait(
        lambda: b.script(
            "return [...document.images].every(i => i.loading === 'lazy' && "
            "i.getBoundingClientRect().top > innerHeight || i.complete)"
        ),
        "its pictures are there",
    )
    path = folder / f"dashboard-{name}.png"
    b.driver.save_screenshot(str(path))
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(
            MOST_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
    few.save(path, optimize=True)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    main(where, everything="--all" in sys.argv)
