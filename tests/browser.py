"""A real browser for the tests of the dashboard: Chromium without a window, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support import wait_until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Browser:
    """What a person does: look, type, press, wait for something to appear."""

    def __init__(self, driver: webdriver.Chrome, base: str) -> None:
        self.driver = driver
        self.base = base

    def go(self, path: str) -> None:
        self.driver.get(self.base + path)

    @property
    def path(self) -> str:
        return self.driver.current_url.removeprefix(self.base)

    def find(self, selector: str) -> WebElement:
        """The first that is there and shown, waited for."""

        def shown() -> WebElement | None:
            found = self.driver.find_elements(By.CSS_SELECTOR, selector)
            return next((one for one in found if one.is_displayed()), None)

        found: WebElement = wait_until(self._steadily(shown), 20, f"{selector} is shown")
        return found

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """What stands in it, hidden or not."""
        said: str = self.script("return document.querySelector(arguments[0]).textContent", selector)
        return " ".join(said.split())

    def wait(self, condition: Any, what: str, within_s: float = 30) -> Any:
        return wait_until(self._steadily(condition), within_s, what)

    def fill(self, **fields: str) -> None:
        """Type into fields by their ids."""
        for name, value in fields.items():
            field = self.find(f"#{name}")
            field.clear()
            field.send_keys(value)

    def press(self, *keys: str) -> None:
        """Keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab_to(self, selector: str, *, back: bool = False, most: int = 150) -> None:
        """The focus on the next such element, by Tab alone (`back`: with Shift)."""
        for _ in range(most):
            self.press(*((Keys.SHIFT,) if back else ()), Keys.TAB)
            if self.script("return document.activeElement.matches(arguments[0])", selector):
                return
        raise AssertionError(f"Tab does not lead to {selector}")

    def seen(self, is_seen: bool) -> None:
        """As if another tab lay before this one, or no more."""
        self.script(
            """
            Object.defineProperty(document, "hidden", {value: !arguments[0], configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
            """,
            is_seen,
        )

    @property
    def focused(self) -> str:
        """The id of what has the focus, or else its text."""
        return str(
            self.script("const e = document.activeElement; return e.id || e.textContent.trim()")
        )

    def script(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def size(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def complaints(self) -> list[str]:
        """What the console says that is worse than a remark."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [one["message"] for one in entries if one["level"] in ("SEVERE", "WARNING")]

    @staticmethod
    def _steadily(condition: Any) -> Any:
        """What is replaced while we look at it is looked at again."""
        from selenium.common.exceptions import StaleElementReferenceException

        def look() -> Any:
            try:
                return condition()
            except StaleElementReferenceException:
                return None

        return look


@contextmanager
def browser(base: str, profile: Path) -> Iterator[Browser]:
    """A browser that has seen nothing yet. Without Chromium the test is skipped."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        made = Browser(driver, base)
        made.size(1280, 900)
        yield made
    finally:
        driver.quit()
