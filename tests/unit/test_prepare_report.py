"""The page about a prepared store: what it counts, shows, folds, escapes and weighs."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from tests.unit.store_factory import face, make_store
from xfavot.data import report
from xfavot.data.readers import NOT_NEEDED
from xfavot.data.report import contact_sheet, histogram, preview, summary, write_report
from xfavot.data.store import Store
from xfavot.errors import DataError


def page_of(store: Store, rejects: Sequence[tuple[str, str, str, int]] = ()) -> str:
    with (store.path / "quarantine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("source", "reason", "detail", "files"), *rejects])
    return write_report(store).read_text(encoding="utf-8")


def test_the_page_counts_and_shows(tmp_path: Path) -> None:
    page = page_of(make_store(tmp_path, clips=3, seconds=0.5))
    assert "12 items accepted, 0 files rejected" in page
    assert "<td>face and voice, female</td><td>2</td><td>4</td><td>2</td><td>0</td>" in page
    assert page.count("<audio") == 6
    assert page.count("<img") == 7  # a contact sheet, and a face beside each voice
    assert page.count("<svg") == 2  # durations and pitch
    assert "<td>toy/s2</td><td>male</td><td>2</td><td>1</td><td>0</td><td>0.0</td>" in page
    assert "Nothing." in page
    assert set(re.findall(r'(?:href|src)="(\w+:|#|//)', page)) <= {"data:", "#"}  # asks nobody
    assert "<script" not in page
    assert "<link" not in page


def test_rejects_are_listed_by_class_with_examples(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="f", clips=1, kind="audio", seconds=0.5)
    rejects = [(f"a/<b>{i}.wav", "silent", "peak & all", 1) for i in range(20 + 5)]
    rejects += [
        ("b.wav", "truncated", "short", 1),
        ("c", NOT_NEEDED, "7 files: second microphone", 7),
    ]
    page = page_of(store, rejects)
    assert "<b>26</b>files rejected" in page
    assert page.index("silent: 25") < page.index("truncated: 1")
    assert "a/&lt;b&gt;0.wav" in page
    assert "<b>0.wav" not in page
    assert "peak &amp; all" in page
    assert f"a/&lt;b&gt;{20}.wav" not in page
    assert "5 more in quarantine.csv" in page
    assert page.index("<h2>Not needed") < page.index("second microphone")
    assert "1 accepted, 26 rejected (25 silent, 1 truncated); 7 not needed" in summary([store])
    assert page.count("<details>") == 2  # many rejects are folded ...
    assert page_of(store, rejects[-2:]).count("<details open>") == 1  # ... one is not


def test_many_speakers_are_folded_and_the_page_stays_light(tmp_path: Path) -> None:
    few = page_of(make_store(tmp_path / "few", genders="fm" * 5, clips=1, seconds=0.1))
    assert "<details" not in few
    store = make_store(
        tmp_path, genders="fm" * 55, clips=2, faces=1, seconds=[0.5, *[0.1] * 4], image_size=32
    )
    page = page_of(store)
    assert "<summary>All 110 speakers</summary>" in page
    assert len(page) < 450_000


def test_the_page_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, genders="f", clips=1)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_whole", full)
    with pytest.raises(DataError, match=r"report\.html cannot be written.*No space.*whole"):
        write_report(store)
    assert not list(store.path.glob("*report*"))


def test_faces_are_spread_over_the_speakers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, genders="f" * 8, clips=4, faces=1, image_size=16)
    monkeypatch.setattr(report, "PREVIEW_FACES", 4)
    shown = preview([store])
    assert re.search(r"4 of\s+32 faces", shown)
    assert len(set(re.findall(r"<b>toy-(s\d)-", shown))) == shown.count("<audio") == 6
    mute = make_store(tmp_path / "x", genders="f", clips=1, kind="image")
    assert preview([mute]).count("<img") == 1


def test_a_contact_sheet_holds_each_face_at_its_place() -> None:
    faces = [face((10 * i, 0, 0), 8) for i in range(14)]
    laid = contact_sheet(faces)
    assert laid.shape == (16, 96, 3)
    np.testing.assert_array_equal(laid[8:, 8:16], faces[13])
    assert (laid[8:, 16:] == 255).all()


def test_histograms_name_their_groups_or_are_empty() -> None:
    drawn = histogram({"female": [1.5, 2.5], "male": [1.0]}, unit="Hz")
    assert drawn.startswith("<svg")
    for text in ("female", "male", "Hz", "#a8557f"):
        assert text in drawn
    assert histogram({}, unit="s") == histogram({"": []}, unit="s") == ""
