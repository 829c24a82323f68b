"""The dashboard in a real browser, over a real server, Redis, S3 endpoint and worker."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import boto3
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from millrace.cli.embedded_s3 import EmbeddedS3
from tests.browser import Browser, browser
from tests.faults.redis_server import MortalRedis
from tests.support import random_pixels, running_server, running_worker

OPERATOR, VIEWER = "token-of-the-operator", "token-of-the-viewer"
IMAGES = 600
HOSTILE = 'a"><img src=x onerror=alert(1)>\u202egpj.png'
TOO_WIDE = """
    return [...document.querySelectorAll(".scroll")]
      .filter((table) => table.scrollWidth > table.clientWidth)
      .map((table) => table.ariaLabel);
"""
"""Tables that reach out of what is seen of them."""
BROKEN = {"0007-broken.png": b"no picture at all", "0301-broken.png": b"", HOSTILE: b"<script>"}


@dataclass
class Site:
    """A server, and a browser that looks at it."""

    url: str
    browser: Browser
    bucket: str
    env: dict[str, str]


@pytest.fixture
def redis() -> Iterator[MortalRedis]:
    with MortalRedis(append_only=True) as server:
        yield server


@pytest.fixture
def site(
    s3: EmbeddedS3, bucket: str, redis: MortalRedis, slow_repository: Path, tmp_path: Path
) -> Iterator[Site]:
    env = {
        **s3.environment,
        "MILLRACE_REDIS_URL": redis.url,
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

        # All of it by keyboard alone. The form, first with what cannot be, then as it should be.
        b.tab_to("a[href='/new']")
        b.press(Keys.ENTER)
        b.wait(lambda: b.path == "/new", "the form")
        for field, text in (
            ("source", f"s3://{site.bucket}/nothing"),
            ("model", "slow"),
            ("output", f"s3://{site.bucket}/out"),
        ):
            b.tab_to(f"#{field}")
            b.press(text)
        b.tab_to("summary")
        b.press(Keys.SPACE)
        b.tab_to("#chunk_size")
        b.press("8")
        b.tab_to("button[formaction]")
        b.press(Keys.SPACE)
        b.wait(lambda: "no images like that" in b.text("#preview"), "the preview of nothing")
        b.tab_to("#source", back=True)
        b.press(f"s3://{site.bucket}/photos")
        b.tab_to("button[formaction]")
        b.press(Keys.ENTER)
        b.wait(lambda: "603" in b.text("#preview"), "the preview counts")
        assert "Nothing is in its way" in b.text("#preview")
        assert ".png" in b.text("#preview")
        b.tab_to("#new button.first", back=True)
        b.press(Keys.ENTER)
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

        leave_and_come_back(b)

        # Pause: Enter opens the dialog, Escape closes it, Enter confirms.
        b.tab_to("#do-pause")
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
        b.wait(lambda: b.focused.startswith("Paused."), "the focus on what was said")
        b.tab_to("#do-resume", most=1)
        b.wait(lambda: "0 at it" in b.text("#progress"), "chunks in hand end")
        stood = done(b)
        assert stood < IMAGES

        # The front page shows it, and brings it up to date by itself.
        b.go("/")
        row = b.find(f"#row-{job}")
        assert "paused" in row.text
        b.tab_to("#state")
        b.press("run")
        b.wait(lambda: "No job is like that" in b.text("#jobs"), "the filter")
        b.press(Keys.HOME)
        b.find(f"#row-{job} a")
        b.tab_to(f"#row-{job} a")
        b.press(Keys.ENTER)
        b.wait(lambda: b.path == f"/jobs/{job}", "the job's page")

        # Resume, and to the end.
        b.tab_to("#do-resume")
        b.press(Keys.ENTER)
        b.find("#ask-resume[open]")
        b.press(Keys.ENTER)
        b.wait(lambda: done(b) > stood, "it goes on")
        b.go("/")
        b.script("window.loadedOnce = true")
        b.wait(
            lambda: "completed with errors" in b.text(f"#row-{job}"), "its row tells the end", 240
        )
        assert b.script("return window.loadedOnce") is True
        b.tab_to(f"#row-{job} a")
        b.press(Keys.ENTER)
        b.wait(lambda: b.path == f"/jobs/{job}" and done(b) == 603, "the job's page")

        # Errors with their thumbnails; hostile names are text.
        b.wait(lambda: len(b.all("#errors .samples img")) == 3, "samples of errors")
        page = b.driver.page_source
        assert "U+202E" in page
        assert "\u202e" not in page
        assert not b.all("img[src='x']")

        # The gallery, filtered as one types, and further by its button.
        assert len(b.all("#shots .shot")) == 24
        b.tab_to("#shots .more a")
        b.press(Keys.ENTER)
        b.wait(lambda: len(b.all("#shots .shot")) == 48, "more of them")
        # One that is broken stands before it.
        b.wait(lambda: b.focused.startswith("photos/0023.png"), "the focus on the first of them")
        label = b.find("#classes li .label").text
        b.tab_to("#label", back=True)
        answers_take(b, 4000)
        b.press("x")
        b.wait(lambda: b.all("#looking.htmx-request"), "it is looked for")
        b.press(Keys.BACKSPACE, label)
        b.wait(lambda: f"label={label}&" in f"{b.path}&", "and what was typed meanwhile")
        answers_take(b, 0)
        b.wait(
            lambda: {x.text for x in b.all("#shots .scores li:first-child .label")} == {label},
            "only that label",
        )
        b.press(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
        b.wait(lambda: len(b.all("#shots .shot")) == 24, "all labels")
        b.tab_to("#kind", back=True)
        b.press("err")
        b.wait(
            lambda: len(b.all("#shots .error")) == len(b.all("#shots .shot")) == 3, "errors only"
        )
        b.wait(lambda: b.path.endswith("kind=errors"), "the address says so")
        b.tab_to("#shots a")
        b.press(Keys.ENTER)
        b.wait(lambda: "/images/" in b.path, "the image's page")
        assert "decode/" in b.find("main").text
        assert b.find("footer span").text == f"millrace {version('millrace')}"

        # Mend one of them and run what failed again.
        boto3.client("s3").put_object(
            Bucket=site.bucket, Key="photos/0301-broken.png", Body=png(301)
        )
        b.go(f"/jobs/{job}")
        b.tab_to("#do-retry")
        b.press(Keys.ENTER)
        b.find("#ask-retry[open]")
        b.press(Keys.ENTER)
        b.wait(lambda: b.path.startswith("/jobs/slow-") and job not in b.path, "the new job")
        b.wait(lambda: "100%" in b.text("#progress"), "it ends", 60)
        assert "1" in b.find("#progress .stats dd").text
        assert b.find(f"main a[href='/jobs/{job}']").is_displayed()

        cancel_another(b, site.bucket)
        try_a_picture(b, tmp_path)
        b.go("/workers")
        assert "slow" in b.find("#workers tbody").text
        assert b.complaints() == []


def answers_take(b: Browser, ms: int) -> None:
    b.driver.execute_cdp_cmd("Network.enable", {})
    b.driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": ms, "downloadThroughput": -1, "uploadThroughput": -1},
    )


def leave_and_come_back(b: Browser) -> None:
    """A page that is not seen has no stream, and has one again as soon as it is seen."""
    b.script(
        """
        window.opened = [];
        window.EventSource = class extends EventSource {
          constructor(...given) { super(...given); opened.push(this); }
        };
        """
    )
    states = "return opened.map((stream) => stream.readyState)"
    for before, after in (([], [1]), ([2], [2, 1])):
        b.seen(False)
        assert b.script(states) == before
        b.seen(True)
        b.wait(lambda now=after: b.script(states) == now, "a stream is open again")
    stood = done(b)
    b.wait(lambda: done(b) > stood, "the bar moves again")


def cancel_another(b: Browser, bucket: str) -> None:
    """What cannot be undone takes one key more: Enter alone does not do it."""
    places = f"source=s3://{bucket}/photos&output=s3://{bucket}/out"
    b.go(f"/new?{places}&model=slow&chunk_size=8")
    b.tab_to("#new button.first")
    b.press(Keys.ENTER)
    b.wait(lambda: b.path.startswith("/jobs/slow-"), "the job's page")
    b.tab_to("#do-cancel")
    b.press(Keys.ENTER)
    b.find("#ask-cancel[open]")
    assert b.focused == "Not now"
    b.press(Keys.ENTER)
    b.wait(lambda: not b.all("#ask-cancel[open]"), "the dialog is closed")
    b.press(Keys.ENTER)
    b.find("#ask-cancel[open]")
    b.tab_to("#ask-cancel button.danger", most=1)
    b.press(Keys.ENTER)
    b.wait(lambda: "cancelled" in b.text("#progress .chip").lower(), "it is cancelled", 60)
    assert "100%" not in b.text("#progress")


def try_a_picture(b: Browser, tmp_path: Path) -> None:
    """Choose a file, see four classes; then one that is no picture; then drop one."""
    (tmp_path / "mine.png").write_bytes(png(5))
    (tmp_path / "text.png").write_bytes(b"no picture")
    b.go("/try")
    chooser = b.driver.find_element(By.CSS_SELECTOR, "#picture")
    chooser.send_keys(str(tmp_path / "mine.png"))
    b.wait(lambda: len(b.all("#answer .scores li")) == 4, "the answer", 60)
    assert "slow:1" in b.text("#answer")
    assert b.find("[data-shown]").get_attribute("naturalWidth") == "8"
    # Two, one right after the other: the answer to the first is not shown beside the second.
    b.script(
        """
        window.shown = new Set();
        const answer = document.querySelector("#answer");
        new MutationObserver(() => shown.add(answer.textContent))
          .observe(answer, {childList: true, subtree: true});
        """
    )
    answers_take(b, 3000)
    chooser.send_keys(str(tmp_path / "mine.png"))
    chooser.send_keys(str(tmp_path / "text.png"))
    answers_take(b, 0)
    b.wait(lambda: b.all("#answer [role=alert]"), "it says that this is none", 60)
    assert not [one for one in b.script("return [...shown]") if "slow:1" in one]
    b.script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
        for (const name of ["dragenter", "dragover", "drop"])
          document.querySelector("[data-drop]").dispatchEvent(
            new DragEvent(name, {dataTransfer, bubbles: true, cancelable: true}));
        """,
        base64.b64encode(png(6)).decode(),
    )
    b.wait(lambda: len(b.all("#answer .scores li")) == 4, "the answer to what was dropped", 60)
    b.find("[data-shown][alt$='dropped.png']")


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

    # By keyboard: the first stop leads to the content, the others along the top and out.
    b.press(Keys.TAB)
    assert b.focused == "Skip to the content"
    b.press(Keys.ENTER)
    assert b.focused == "main"
    b.tab_to(".who button", back=True)
    b.press(Keys.ENTER)
    b.wait(lambda: b.path.startswith("/login"), "signed out")
    assert b.complaints() == []


def test_pages_stand_while_redis_is_away_and_say_so(site: Site, redis: MortalRedis) -> None:
    boto3.client("s3").put_object(Bucket=site.bucket, Key="photos/1.png", Body=png(1))
    b = site.browser
    sign_in(b, OPERATOR)
    places = f"source=s3://{site.bucket}/photos&output=s3://{site.bucket}/out"
    b.go(f"/new?{places}&model=slow&job_id=mine")
    b.find("#new button.first").click()
    b.wait(lambda: "0 of 1" in b.text("#progress"), "the job's page")

    def away() -> None:
        redis.die()
        b.wait(lambda: b.text(".stale").startswith("cannot reach Redis"), "it is told")

    def back() -> None:
        redis.come_back()
        b.wait(lambda: not b.text(".stale"), "nothing is old any more")

    away()
    assert "0 of 1" in b.text("#progress")
    b.tab_to("#kind")
    b.press("err")
    b.wait(lambda: any("503" in one for one in b.complaints()), "it was asked for in vain")
    assert "Results appear here" in b.text("#shots")
    back()
    b.wait(lambda: "No image is like that" in b.text("#shots"), "the filter")

    # A filter that finds no answer takes no list away, and is asked for again.
    b.go("/")
    b.find("#row-mine")
    redis.die()
    b.tab_to("#state")
    b.press("pau")
    b.wait(lambda: b.text(".stale").startswith("cannot reach Redis"), "it is told")
    assert b.find("#row-mine").is_displayed()
    back()
    b.wait(lambda: "No job is like that" in b.text("#jobs"), "the filter")
    b.wait(lambda: "state=paused" in b.path, "the address says so")
    b.press(Keys.HOME)
    b.find("#row-mine")

    b.go("/workers")
    away()
    assert "None is up" in b.text("#workers")
    b.go("/try")
    assert "cannot reach Redis" in b.text("main")
    b.go("/workers")
    assert "cannot reach Redis" in b.text("main")
    redis.come_back()
    b.go("/workers")
    assert "None is up" in b.text("#workers")
    assert all("503" in one for one in b.complaints())


def test_every_page_fits_its_window_and_can_be_read(site: Site, tmp_path: Path) -> None:
    for key, body in {
        f"photos/{'long-name-' * 20}.png": png(1),
        f"photos/{HOSTILE}": b"no",
    }.items():
        boto3.client("s3").put_object(Bucket=site.bucket, Key=key, Body=body)
    b = site.browser
    sign_in(b, OPERATOR)
    places = f"source=s3://{site.bucket}/photos&output=s3://{site.bucket}/out"
    b.go(f"/new?{places}&model=slow&labels=team=catalogue&job_id=wide")
    b.find("#new button.first").click()
    with running_worker("--model", "slow", env=site.env, log=tmp_path / "worker.log"):
        b.wait(lambda: "completed" in b.text("#progress"), "the end", 60)
        b.wait(lambda: b.all("#classes li"), "classes are counted")
        job = "/jobs/wide"
        for scheme in ("light", "dark"):
            b.scheme(scheme)
            for width in (360, 1280):
                b.size(width, 800)
                for path in (
                    "/", "/new", "/try", "/workers", "/nothing", job, f"{job}?label=none",
                    f"{job}/retry", f"{job}/images/0", f"{job}/images/1",
                ):  # fmt: skip
                    b.go(path)
                    wider = b.script(
                        "return document.documentElement.scrollWidth - window.innerWidth"
                    )
                    assert wider <= 0, (path, scheme, width)
                    assert b.script(TOO_WIDE) == [], (path, scheme, width)
                    assert hard_to_read(b) == [], (path, scheme, width)
                b.go(job)
                b.find("#do-retry").click()
                b.find("#ask-retry[open]")
                assert hard_to_read(b) == [], ("the dialog", scheme, width)
    b.go("/nothing")
    assert all("/nothing" in one or "404" in one for one in b.complaints())


def hard_to_read(b: Browser) -> list[tuple[str, float]]:
    """The texts of the page whose contrast with what lies behind them is below WCAG's 4.5."""
    found: list[tuple[str, list[float], list[float]]] = b.script(
        """
        const parsed = (colour) => {
          const [r, g, b, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
          const unit = colour.startsWith("color(") ? 255 : 1;
          return {rgb: [r, g, b].map((value) => value * unit), alpha};
        };
        const lies = (front, share, back) => front.map((c, n) => c * share + back[n] * (1 - share));
        const behind = (element) => {
          if (!element) return parsed(getComputedStyle(document.body).backgroundColor).rgb;
          const {rgb, alpha} = parsed(getComputedStyle(element).backgroundColor);
          return alpha === 1 ? rgb : lies(rgb, alpha, behind(element.parentElement));
        };
        const opacity = (element) =>
          element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const found = [];
        while (walker.nextNode()) {
          const element = walker.currentNode.parentElement;
          const said = walker.currentNode.data.trim();
          const shown = element.checkVisibility({opacityProperty: true, visibilityProperty: true});
          if (!said || !shown || element.closest("option, :disabled")) continue;
          const style = getComputedStyle(element);
          const ink = parsed(element instanceof SVGElement ? style.fill : style.color);
          const paper = behind(element);
          found.push([said, lies(ink.rgb, ink.alpha * opacity(element), paper), paper]);
        }
        return found;
        """
    )
    assert len(found) > 8
    ratios = [(said, round(contrast(ink, paper), 2)) for said, ink, paper in found]
    return [(said, ratio) for said, ratio in ratios if ratio < 4.5]


def contrast(ink: list[float], paper: list[float]) -> float:
    """By WCAG's formula, of two colours in sRGB."""

    def luminance(colour: list[float]) -> float:
        linear = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
            for c in (value / 255 for value in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted(map(luminance, (ink, paper)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
