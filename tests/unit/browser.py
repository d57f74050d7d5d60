"""A headless Chromium for tests, driven over the WebDriver protocol with the standard library.

with Browser(downloads=tmp_path) as browser:
    browser.open(page)
    browser.run("return document.title")
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

PHONE = {"width": 390, "height": 780}
DESKTOP = {"width": 1280, "height": 860}


class Browser:
    """One window; tests skip where Chromium or its driver is not installed.

    Args:
        profile: an empty folder of the browser's own.
        downloads: where downloads go.
        dark: prefer dark colours.
    """

    def __init__(self, profile: Path, downloads: Path, *, dark: bool = False) -> None:
        self.downloads = downloads
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        chromium = next(filter(None, map(shutil.which, names)), None)
        driver = shutil.which("chromedriver")
        if not chromium or not driver:
            pytest.skip("no Chromium with chromedriver here")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.root = f"http://127.0.0.1:{port}"
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--mute-audio", "--hide-scrollbars", "--no-first-run", f"--user-data-dir={profile}"),
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        ]
        options = {
            "binary": chromium,
            "args": arguments,
            "prefs": {"download.default_directory": str(downloads)},
        }
        chosen = {"alwaysMatch": {"goog:chromeOptions": options}}
        try:
            self._wait_for_driver()
            made = self._call("POST", "/session", {"capabilities": chosen})
        except Exception:
            self.process.kill()
            raise
        self.session = f"/session/{made['sessionId']}"

    def _wait_for_driver(self) -> None:
        end = time.monotonic() + 20
        while True:
            try:
                self._call("GET", "/status")
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:2000]) from error

    def open(self, page: Path) -> None:
        """Load a file."""
        self._call("POST", f"{self.session}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", f"{self.session}/execute/sync", body)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a person does."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        body = {"actions": [{"type": "key", "id": "keys", "actions": actions}]}
        self._call("POST", f"{self.session}/actions", body)

    def tap(self, selector: str) -> None:
        """Click on what a CSS selector finds, where a person would."""
        body = {"using": "css selector", "value": selector}
        element = next(iter(self._call("POST", f"{self.session}/element", body).values()))
        self._call("POST", f"{self.session}/element/{element}/click", {})

    def accept(self) -> None:
        """Say yes to a question of the page."""
        self._call("POST", f"{self.session}/alert/accept", {})

    def upload(self, selector: str, file: Path) -> None:
        """Choose a file in a file field."""
        body = {"using": "css selector", "value": selector}
        element = next(iter(self._call("POST", f"{self.session}/element", body).values()))
        self._call("POST", f"{self.session}/element/{element}/value", {"text": str(file)})

    def wait(self, condition: str, seconds: float = 20.0) -> None:
        """Wait until a JavaScript expression holds."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.03)

    def emulate(self, command: str, **parameters: Any) -> None:
        """Send a command of the DevTools protocol, such as a screen size."""
        body = {"cmd": command, "params": parameters}
        self._call("POST", f"{self.session}/goog/cdp/execute", body)

    def resize(self, width: int, height: int, *, scale: float = 1.0, touch: bool = False) -> None:
        """Show a screen of some size in CSS pixels."""
        self.emulate(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=touch,
        )
        self.emulate("Emulation.setTouchEmulationEnabled", enabled=touch)

    def screenshot(self, file: Path) -> None:
        """Write what the window shows as a PNG."""
        file.write_bytes(base64.b64decode(self._call("GET", f"{self.session}/screenshot")))

    def console(self) -> list[str]:
        """Errors of the page since the last call."""
        entries = self._call("POST", f"{self.session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def close(self) -> None:
        """End browser and driver."""
        try:
            self._call("DELETE", self.session)
        finally:
            self.process.terminate()
            self.process.wait(timeout=20)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
