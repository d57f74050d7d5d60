"""The page of the study in a real browser: answered, reloaded in the middle, saved, read back."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("selenium")
pytest.importorskip("soundfile")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.unit.test_study import SYSTEMS, origin, toy_triplets
from xfavot.parameters import Study as Asked
from xfavot.report.study import Key, read_answers, result_rows, write_study

ENTER, SPACE, LEFT, RIGHT = "\ue007", " ", "\ue012", "\ue014"
KEYS = {"A": ("a", LEFT, "1"), "B": ("b", RIGHT, "2")}
COUNT = 30
PHONE = {"width": 390, "height": 780}


class Browser:
    """A window of a headless Chromium, by Selenium; tests skip where it is absent.

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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    root = tmp_path_factory.mktemp("browser")
    with Browser(root / "profile", root / "downloads") as opened:
        yield opened


def shows(section: str) -> str:
    """JavaScript that holds once a section is shown, also while the page still loads."""
    return f"document.querySelector('#{section}') && !document.querySelector('#{section}').hidden"


def text(browser: Browser, selector: str) -> str:
    return str(browser.run("return document.querySelector(arguments[0]).textContent", selector))


def make(folder: Path, *, listen_ms: int = 0, seconds: float = 0.3, count: int = COUNT) -> Key:
    """Write 30 triplets of one model and task, as the paper has them, and two pages."""
    made = toy_triplets(count, seconds=seconds)
    drawn = [t for t in made if (t.system, t.task) == (SYSTEMS[1], "a2i")]
    asked = Asked(out=str(folder), evaluators=2)
    return write_study(asked, drawn, made[0], origin(), listen_ms=listen_ms)


def start(browser: Browser, folder: Path, sheet: str = "01") -> None:
    browser.open(folder / "pages" / f"sheet_{sheet}.html")
    assert browser.run("return document.querySelector('#start').disabled")
    browser.tap("#agree")
    browser.tap("#start")
    assert "Example" in text(browser, "#count")
    browser.press("a", ENTER)


def sides(study: Key, wrong: set[int], sheet: str = "01") -> list[str]:
    """The side to choose for each question; those in `wrong` (places) get the wrong one."""
    tokens = ((study["questions"][item], token_a) for item, token_a in study["sheets"][sheet])
    first = [asked["tokens"][asked["match"]] == token_a for asked, token_a in tokens]
    return ["A" if is_a is (place not in wrong) else "B" for place, is_a in enumerate(first)]


def saved(browser: Browser, folder: Path) -> dict[str, Any]:
    """What the page would save, written where answers are read."""
    kept = browser.run("return document.querySelector('#text').value")
    content: dict[str, Any] = json.loads(kept)
    folder.mkdir(exist_ok=True)
    (folder / f"sheet_{content['sheet']}.json").write_text(kept, "utf-8")
    return content


def arrived(file: Path) -> Path:
    """A download, once it is there."""
    end = time.monotonic() + 20
    while not file.is_file():
        assert time.monotonic() < end, f"{file.name} was not saved"
        time.sleep(0.02)
    return file


def kept(browser: Browser, study: Key, sheet: str = "01") -> Any:
    key = f"xfavot-cpr:{study['study']}:{sheet}"
    return json.loads(browser.run("return localStorage.getItem(arguments[0])", key) or "null")


def test_thirty_triplets_are_answered_and_read_back(browser: Browser, tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    wrong = {3, 11, 17, 22, 28, 29}  # 24 of 30 are right
    plan = sides(study, wrong)
    start(browser, tmp_path / "study")
    for place, side in enumerate(plan):
        if place == 14:
            before = kept(browser, study)
            assert len(before["answers"]) == 14
            browser.run("location.reload()")
            browser.wait(shows("again"))
            assert "14 of 30 answered" in text(browser, "main")
            assert kept(browser, study) == before
            browser.tap("#resume")
            assert text(browser, "#count") == "15 of 30"
        browser.press(KEYS[side][place % 3], ENTER)
    browser.wait(shows("end"))
    browser.tap("#save")
    file = arrived(browser.downloads / f"answers_{study['study']}_sheet_01.json")
    content = json.loads(file.read_text("utf-8"))
    assert content["answers"] == saved(browser, tmp_path / "a")["answers"]
    (tmp_path / "a" / "sheet_01.json").write_bytes(file.read_bytes())
    answers = read_answers(study, tmp_path / "a")
    assert len(answers) == len(study["questions"])
    row = result_rows(study, answers)[0]
    assert (row["system"], row["task"], row["metric"]) == (SYSTEMS[1], "a2i", "CPR")
    assert (row["value"], row["n"]) == (24 / 30, 30)
    right = [one["right"] for one in answers]
    assert [place for place, fine in enumerate(right) if not fine] == sorted(wrong)
    assert browser.console() == []
    browser.run("location.reload()")
    browser.wait(shows("end"))
    browser.tap("#end .forget")
    browser.accept()
    browser.wait(shows("welcome"))
    assert kept(browser, study)["answers"] == []


def test_an_answer_needs_a_heard_voice_and_a_choice(browser: Browser, tmp_path: Path) -> None:
    study = make(tmp_path, listen_ms=60_000, seconds=0.5, count=2)
    browser.open(tmp_path / "pages" / "sheet_01.html")
    browser.tap("#agree")
    browser.tap("#start")
    browser.run("document.querySelector('.player').click()")  # stop what began by itself
    browser.press("a", ENTER)
    assert browser.run("return document.querySelector('#next').disabled")
    assert "Please listen" in text(browser, "#hint")
    browser.press(SPACE)
    browser.wait("!document.querySelector('#next').disabled")  # heard to its end
    browser.press(ENTER)
    assert text(browser, "#count") == "1 of 2"
    browser.wait("document.querySelector('#hint').textContent.startsWith('Choose A or B')")
    assert browser.run("return document.querySelector('#next').disabled")
    browser.press(ENTER)
    assert text(browser, "#count") == "1 of 2"
    browser.press("b", ENTER)
    (answer,) = kept(browser, study)["answers"]
    assert answer["side"] == "B"
    assert answer["plays"] >= 1
    assert 400 <= answer["heard_ms"] <= answer["ms"] + 50


def test_a_file_of_half_the_answers_goes_on_elsewhere(browser: Browser, tmp_path: Path) -> None:
    study = make(tmp_path / "study", count=4)
    start(browser, tmp_path / "study", "02")
    browser.press("a", ENTER, "b", ENTER)
    half = kept(browser, study, "02")["answers"]
    browser.run("document.querySelector('#pause').click()")
    file = browser.downloads / f"answers_{study['study']}_sheet_02.json"
    other = json.loads(arrived(file).read_text("utf-8"))
    browser.run("localStorage.clear(); location.reload()")
    browser.wait(shows("welcome"))
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for changes, told in (
        ({"study": "x"}, "another study"),
        ({"sheet": "01"}, "belongs to sheet 01"),
        ({"answers": half[:1]}, "damaged or was changed"),
        ({"format": ""}, "no file with answers"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(other | changes), "utf-8")
        browser.upload("#file", tmp_path / "bad.json")
        browser.wait(f"document.querySelector('#file-error').textContent.includes('{told}')")
    browser.upload("#file", file)
    browser.wait(shows("again"))
    assert kept(browser, study, "02")["answers"] == half
    browser.tap("#resume")
    browser.press("a", ENTER, "a", ENTER)
    browser.wait(shows("end"))
    saved(browser, tmp_path / "a")
    assert len(read_answers(study, tmp_path / "a")) == 4


def test_the_page_fits_a_phone_and_screen_readers(browser: Browser, tmp_path: Path) -> None:
    made = toy_triplets(1)
    voices = [t for t in made if (t.system, t.task) == (SYSTEMS[1], "i2a")]
    cfg = Asked(out=str(tmp_path), evaluators=1, form="outputs")
    write_study(cfg, voices, made[0], origin(), listen_ms=0)
    browser.resize(**PHONE, scale=2.0, touch=True)
    try:
        browser.open(tmp_path / "pages" / "sheet_01.html")
        for step in ("#agree", "#start", "#choices .choice:nth-child(2)", "#next"):
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), step
            browser.tap(step)
        assert browser.run("return document.querySelectorAll('.player').length") == 2
        asked = browser.run("return document.activeElement.textContent")
        assert asked == "Which voice fits this face?"
        unnamed = browser.run(
            "return [...document.querySelectorAll('button, input, img, textarea, progress')]"
            ".filter((e) => e.offsetParent && !(e.textContent.trim() || e.ariaLabel"
            " || (e.labels && e.labels.length && e.labels[0].textContent.trim())"
            " || (e.tagName === 'IMG' && e.hasAttribute('alt')))).map((e) => e.outerHTML)"
        )
        assert unnamed == []
    finally:
        browser.resize(0, 0)
