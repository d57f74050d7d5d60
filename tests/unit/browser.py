"""A headless Chromium for tests, by Selenium; nothing is fetched: tests skip where it is absent.

with Browser(profile, downloads) as browser:
    browser.open(page)
    browser.run("return document.title")
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

PHONE = {"width": 390, "height": 780}


class Browser:
    """One window.

    Args:
        profile: an empty folder of the browser's own.
        downloads: where downloads go.
    """

    def __init__(self, profile: Path, downloads: Path) -> None:
        self.downloads = downloads
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        chromium = next(filter(None, map(shutil.which, names)), None)
        driver = shutil.which("chromedriver")
        if not chromium or not driver:
            pytest.skip("no Chromium with chromedriver here")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "mute-audio"),
            *("hide-scrollbars", "no-first-run", f"user-data-dir={profile}"),
        ):
            options.add_argument(f"--{flag}")
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
        service = webdriver.ChromeService(executable_path=driver)
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(self, page: Path) -> None:
        """Load a file."""
        self.driver.get(page.resolve().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a person does."""
        webdriver.ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def tap(self, selector: str) -> None:
        """Click on what a CSS selector finds, where a person would."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def accept(self) -> None:
        """Say yes to a question of the page."""
        self.driver.switch_to.alert.accept()

    def upload(self, selector: str, file: Path) -> None:
        """Choose a file in a file field."""
        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(str(file))

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        """Wait until a JavaScript expression holds."""
        waiting = WebDriverWait(self.driver, seconds, poll_frequency=0.03)
        waiting.until(lambda _: self.run(f"return Boolean({condition})"), condition)

    def resize(self, width: int, height: int, *, scale: float = 1.0, touch: bool = False) -> None:
        """Show a screen of some size in CSS pixels; width 0 is that of the window."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": touch}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})

    def console(self) -> list[str]:
        """Errors of the page since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self.driver.quit()
