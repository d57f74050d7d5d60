"""What is said of a prepared store: the page, the summary, the preview, the dataset card."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

pytest.importorskip("matplotlib")

from tests.conftest import Patch
from tests.unit.store_factory import make_store
from tools import cards
from xfavot.data import report
from xfavot.data.readers import NOT_NEEDED, NOTED
from xfavot.data.readers.layouts import READERS
from xfavot.data.report import card, preview, summary
from xfavot.data.store import Store
from xfavot.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def page_of(store: Store, rows: Sequence[tuple[object, ...]] = (), files: bool = True) -> str:
    head = ("source", "reason", "detail", "files")
    with (store.path / "quarantine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head[: 3 + files], *rows])
    report.write_report(store)
    return (store.path / "report.html").read_text(encoding="utf-8")


def test_the_page_counts_and_shows(tmp_path: Path) -> None:
    page = page_of(make_store(tmp_path, corpus="grid", clips=3, seconds=0.5))
    assert "12 items accepted, 0 files rejected" in page
    assert "<td>face and voice, female</td><td>2</td><td>4</td><td>2</td><td>0</td>" in page
    assert "<td>grid/s2</td><td>male</td><td>2</td><td>1</td><td>0</td><td>0.0</td>" in page
    # a face of every clip, and one beside each voice; durations, and pitch by gender
    assert [page.count(f"<{tag}") for tag in ("audio", "img", "svg")] == [6, 12 + 6, 2]
    assert all(f">{label}</text>" in page for label in ("s", "Hz", "female", "male"))
    assert "Nothing." in page
    assert set(re.findall(r'(?:href|src)="(\w+:|#|//)', page)) <= {"data:", "#"}  # asks nobody
    assert not re.search("<script|<link|<details", page)


def test_whatever_was_not_used_is_counted_by_files_with_its_reason(tmp_path: Path) -> None:
    store = make_store(tmp_path, corpus="grid", genders="f", clips=1, kind="audio", seconds=0.5)
    rows: list[tuple[object, ...]]
    rows = [(f"a/<b>{i}.wav", "silent", "peak & all", 1) for i in range(25)]
    rows += [("b.wav", "truncated", "short", 1), ("c", NOT_NEEDED, "second microphone", 1700)]
    rows += [("d.wav", NOTED, "a gap of 3 s", 1)]
    page = page_of(store, rows)
    assert "<b>26</b>files rejected" in page
    assert "<b>1,700</b>files not needed" in page
    assert page.index("silent: 25") < page.index("truncated: 1")
    assert "<td>a/&lt;b&gt;19.wav</td><td>peak &amp; all</td><td>1</td>" in page
    assert "a/&lt;b&gt;20.wav" not in page
    assert "5 more in quarantine.csv" in page
    assert page.index("<h2>Not needed") < page.index("second microphone")
    assert page.index("<h2>Used, with a note") < page.index("a gap of 3 s")
    text = "1 accepted, 26 rejected (25 silent, 1 truncated); 1700 not needed; 1 used, with a note"
    assert text in summary([store])
    assert page.count("<details>") == 2  # many rejects are folded ...
    assert page_of(store, rows[25:]).count("<details open>") == 1  # ... one is not
    old = [row[:3] for row in rows]  # of a store whose quarantine counts no files
    assert "<b>26</b>files rejected" in page_of(store, old, files=False)


def test_many_speakers_are_folded_and_the_page_is_light_and_whole(tmp_path: Path) -> None:
    store = make_store(
        tmp_path, corpus="grid", genders="fm" * 55, clips=1, faces=1, seconds=0.1, image_size=32
    )
    (store.path / "report.html").mkdir()
    with pytest.raises(DataError, match=r"report\.html cannot be written.*store itself is whole"):
        report.write_report(store)
    (store.path / "report.html").rmdir()
    page = page_of(store)
    assert "<summary>All 110 speakers</summary>" in page
    assert len(page) < 250_000


def test_faces_are_spread_over_the_speakers(tmp_path: Path, monkeypatch: Patch) -> None:
    store = make_store(
        tmp_path, corpus="grid", genders="f" * 8, clips=2, faces=1, seconds=0.1, image_size=16
    )
    monkeypatch.setattr(report, "PREVIEW_FACES", 4)
    shown = preview([store])
    assert re.search(r"4 of\s+16 faces", shown)
    assert len(set(re.findall(r"<b>grid-(s\d)-", shown))) == shown.count("<audio") == 6
    mute = make_store(tmp_path / "x", corpus="grid", genders="f", clips=1, kind="image")
    assert preview([mute]).count("<img") == 1
    assert "<svg" not in page_of(mute)


def test_the_committed_cards_are_complete_and_those_of_the_descriptions() -> None:
    committed = (ROOT / "DATASETS.md").read_text(encoding="utf-8")
    assert committed == cards.datasets(), "run make cards"
    for corpus in READERS:
        for heading in ("Content", "Licence", "How to get it", "Consent", "Bias and limits"):
            body = card(corpus).split(f"**{heading}.** ")[1].split("\n")[0]
            assert len(body) > 8, (corpus, heading)


def test_the_card_of_a_store_counts_what_is_in_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, corpus="grid", genders="ffm", clips=3, faces=2, seconds=2.0)
    page_of(store, [("a.mpg", "silent", "", 1), ("b", NOT_NEEDED, "", 40), ("c", NOTED, "", 1)])
    text = (store.path / "CARD.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["tags"] == ["face", "voice"]
    assert head["license_name"].startswith("CC BY 4.0")
    assert head["size_items"] == 9
    assert "| face and voice, female | 2 | 4 | 2 | 0 |" in text  # speakers, train, val, unseen
    assert "| face and voice, male | 1 | 2 | 1 | 0 |" in text
    assert "| speakers | 33 | 3 |" in text  # the paper's beside ours
    assert "faces: 18" in text
    assert "in 9 clips, median 2.00 s; 9 with a transcript" in text
    assert text.endswith("| --- | --- |\n| silent | 1 |\n| not needed | 40 |\n")
