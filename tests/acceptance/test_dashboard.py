"""The dashboard in a real browser, over a real server, Redis, S3 endpoint and worker."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from millrace.cli.embedded_s3 import EmbeddedS3
from tests.browser import Browser, browser
from tests.support import random_pixels, running_server, running_worker

OPERATOR, VIEWER = "token-of-the-operator", "token-of-the-viewer"
IMAGES = 600
HOSTILE = 'a"><img src=x onerror=alert(1)>\u202egpj.png'
BROKEN = {"0007-broken.png": b"no picture at all", "0301-broken.png": b"", HOSTILE: b"<script>"}


@dataclass
class Site:
    """A server, and a browser that looks at it."""

    url: str
    browser: Browser
    bucket: str
    env: dict[str, str]


@pytest.fixture
def site(
    s3: EmbeddedS3, bucket: str, redis_url: str, slow_repository: Path, tmp_path: Path
) -> Iterator[Site]:
    env = {
        **s3.environment,
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_MODELS": str(slow_repository),
        "MILLRACE_ALLOWED_LOCATIONS": f"s3://{bucket}",
        "MILLRACE_OPERATOR_TOKEN": OPERATOR,
        "MILLRACE_VIEWER_TOKEN": VIEWER,
        "MILLRACE_UPLOADS": f"s3://{bucket}/uploads",
        "MILLRACE_THUMBNAIL_CACHE": str(tmp_path / "thumbnails"),
    }
    with (
        running_server(env=env, log=tmp_path / "server.log") as server,
        browser(server.url, tmp_path / "profile") as made,
    ):
        yield Site(server.url, made, bucket, env)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random_pixels(number, (8, 8))).save(file, "PNG")
    return file.getvalue()


def fill(bucket: str) -> None:
    """Pictures, and three objects that are none."""
    client = boto3.client("s3")
    objects = {f"{n:04}.png": png(n) for n in range(IMAGES)} | BROKEN
    for key, body in objects.items():
        client.put_object(Bucket=bucket, Key=f"photos/{key}", Body=body)


def sign_in(b: Browser, token: str, path: str = "/") -> None:
    b.go(path)
    assert b.path.startswith("/login")
    b.fill(token=token)
    b.press(Keys.ENTER)
    b.wait(lambda: b.path == path, f"{path} after signing in")


def done(b: Browser) -> int:
    """Images done, as the bar says."""
    return int(b.find("#progress progress").get_attribute("value") or 0)


def test_from_an_empty_form_to_results_without_one_reload(site: Site, tmp_path: Path) -> None:
    fill(site.bucket)
    b = site.browser
    with running_worker("--model", "slow", env=site.env, log=tmp_path / "worker.log"):
        sign_in(b, OPERATOR)
        assert "Nothing runs yet" in b.find("#jobs").text

        # The form, first with what cannot be, then as it should be, by keyboard alone.
        b.go("/new")
        b.fill(source=f"s3://{site.bucket}/nothing", output=f"s3://{site.bucket}/out", model="slow")
        b.find("button[formaction]").click()
        b.wait(lambda: "no images like that" in b.text("#preview"), "the preview of nothing")
        b.fill(source=f"s3://{site.bucket}/photos")
        b.find("summary").click()
        b.fill(chunk_size="8")
        b.find("button[formaction]").click()
        b.wait(lambda: "603" in b.text("#preview"), "the preview counts")
        assert "Nothing is in its way" in b.text("#preview")
        assert ".png" in b.text("#preview")
        b.find("#source").send_keys(Keys.ENTER)
        b.wait(lambda: b.path.startswith("/jobs/slow-"), "the job's page")
        job = b.path.removeprefix("/jobs/")

        # The bar moves, and the page is still the one that was loaded.
        b.script("window.loadedOnce = true")
        b.wait(lambda: done(b) >= 16, "the bar moves", 60)
        seen = done(b)
        b.wait(lambda: done(b) > seen, "the bar moves on")
        b.wait(lambda: b.all("#chart svg"), "a chart")
        b.wait(lambda: b.all("#classes li"), "classes are counted")
        assert b.script("return window.loadedOnce") is True
        assert "running" in b.text("#progress").lower()

        # Pause, by keyboard: to the link, Enter opens the dialog, Escape closes it, Enter confirms.
        pause = b.find("#do-pause")
        b.script("arguments[0].focus()", pause)
        b.press(Keys.ENTER)
        assert b.find("#ask-pause").get_attribute("open") is not None
        b.press(Keys.ESCAPE)
        b.wait(lambda: not b.all("#ask-pause[open]"), "Escape closes the dialog")
        assert b.focused == "do-pause"
        b.press(Keys.ENTER)
        b.find("#ask-pause[open]")
        assert b.focused == "Pause"
        b.press(Keys.ENTER)
        b.wait(lambda: "paused" in b.text("#progress").lower(), "it is paused")
        b.find("#do-resume")
        b.wait(lambda: "0 at it" in b.text("#progress"), "chunks in hand end")
        stood = done(b)
        assert stood < IMAGES

        # The front page shows it, and brings it up to date by itself.
        b.go("/")
        row = b.find(f"#row-{job}")
        assert "paused" in row.text
        Select(b.find("#state")).select_by_visible_text("running")
        b.wait(lambda: "No job is like that" in b.text("#jobs"), "the filter")
        Select(b.find("#state")).select_by_visible_text("all")
        b.find(f"#row-{job} a").click()

        # Resume, and to the end.
        b.find("#do-resume").click()
        b.find("#ask-resume[open] button.first").click()
        b.wait(lambda: done(b) > stood, "it goes on")
        b.go("/")
        b.script("window.loadedOnce = true")
        b.wait(
            lambda: "completed with errors" in b.text(f"#row-{job}"), "its row tells the end", 240
        )
        assert b.script("return window.loadedOnce") is True
        b.find(f"#row-{job} a").click()
        assert done(b) == 603

        # Errors with their thumbnails; hostile names are text.
        b.wait(lambda: len(b.all("#errors .samples img")) == 3, "samples of errors")
        page = b.driver.page_source
        assert "U+202E" in page
        assert "\u202e" not in page
        assert not b.all("img[src='x']")

        # The gallery, filtered as one types, and further by its button.
        assert len(b.all("#shots .shot")) == 24
        b.find("#shots .more a").click()
        b.wait(lambda: len(b.all("#shots .shot")) == 48, "more of them")
        assert b.focused.startswith("photos/0023.png")  # one that is broken stands before it
        label = b.find("#classes li .label").text
        b.fill(label=label)
        b.wait(
            lambda: {x.text for x in b.all("#shots .scores li:first-child .label")} == {label},
            "only that label",
        )
        b.find("#label").clear()
        Select(b.find("#kind")).select_by_visible_text("errors")
        b.wait(
            lambda: len(b.all("#shots .error")) == len(b.all("#shots .shot")) == 3, "errors only"
        )
        b.wait(lambda: b.path.endswith("kind=errors"), "the address says so")
        b.find("#shots a").click()
        assert "decode/" in b.find("main").text

        # Mend one of them and run what failed again.
        boto3.client("s3").put_object(
            Bucket=site.bucket, Key="photos/0301-broken.png", Body=png(301)
        )
        b.go(f"/jobs/{job}")
        b.find("#do-retry").click()
        b.find("#ask-retry[open] button.first").click()
        b.wait(lambda: b.path.startswith("/jobs/slow-") and job not in b.path, "the new job")
        b.wait(lambda: "100%" in b.text("#progress"), "it ends", 60)
        assert "1" in b.find("#progress .stats dd").text
        assert b.find(f"main a[href='/jobs/{job}']").is_displayed()

        try_a_picture(b, tmp_path)
        b.go("/workers")
        assert "slow" in b.find("#workers tbody").text
        assert b.complaints() == []


def try_a_picture(b: Browser, tmp_path: Path) -> None:
    """Choose a file, see four classes; then one that is no picture."""
    (tmp_path / "mine.png").write_bytes(png(5))
    (tmp_path / "text.png").write_bytes(b"no picture")
    b.go("/try")
    chooser = b.driver.find_element(By.CSS_SELECTOR, "#picture")
    chooser.send_keys(str(tmp_path / "mine.png"))
    b.wait(lambda: len(b.all("#answer .scores li")) == 4, "the answer", 60)
    assert "slow:1" in b.text("#answer")
    assert b.find("[data-shown]").get_attribute("naturalWidth") == "8"
    chooser.send_keys(str(tmp_path / "text.png"))
    b.wait(lambda: b.all("#answer [role=alert]"), "it says that this is none", 60)


def test_who_may_only_look_gets_in_and_finds_nothing_to_press(site: Site) -> None:
    b = site.browser
    b.go("/login")
    b.fill(token="not the token at all")
    b.press(Keys.ENTER)
    assert "no such token" in b.find("[role=alert]").text
    b.complaints()  # Chromium remarks on every answer of 401
    sign_in(b, VIEWER, "/workers")
    b.go("/")
    assert "viewer" in b.find(".who").text
    assert not b.all("a[href='/new']")

    # By keyboard: the first stop leads to the content, the next ones along the top.
    b.press(Keys.TAB)
    assert b.focused == "Skip to the content"
    b.press(Keys.ENTER)
    assert b.focused == "main"
    b.find(".who button").click()
    b.wait(lambda: b.path.startswith("/login"), "signed out")
    assert b.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_window(site: Site, scheme: str, width: int) -> None:
    b = site.browser
    b.size(width, 800)
    b.scheme(scheme)
    sign_in(b, OPERATOR)
    for path in ("/", "/new", "/try", "/workers"):
        b.go(path)
        wider = b.script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, path
        assert contrast(b, "h1") >= 4.5
        assert contrast(b, ".top nav a") >= 4.5
    assert b.complaints() == []


def contrast(b: Browser, selector: str) -> float:
    """WCAG contrast of an element's text with what lies behind it."""
    colours = b.script(
        """
        let e = document.querySelector(arguments[0]);
        const ink = getComputedStyle(e).color;
        let paper = "rgba(0, 0, 0, 0)";
        for (; e && paper === "rgba(0, 0, 0, 0)"; e = e.parentElement)
          paper = getComputedStyle(e).backgroundColor;
        return [ink, paper].map(c => c.match(/[\\d.]+/g).slice(0, 3).map(Number));
        """,
        selector,
    )

    def luminance(colour: list[float]) -> float:
        linear = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
            for c in (value / 255 for value in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(colour) for colour in colours), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
