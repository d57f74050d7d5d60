"""The page about a prepared store: what it counts, shows, folds, escapes and weighs."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from tests.unit.store_factory import face, make_store
from xfavot.data.readers import NOT_NEEDED
from xfavot.data.report import (
    LISTED_REJECTS,
    bars,
    contact_sheet,
    histogram,
    preview,
    sheet,
    summary,
    table,
    write_report,
)
from xfavot.data.store import Store
from xfavot.errors import DataError


def page_of(store: Store, rejects: Sequence[tuple[str, str, str]] = ()) -> str:
    with (store.path / "quarantine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("source", "reason", "detail"), *rejects])
    return write_report(store).read_text(encoding="utf-8")


def test_the_page_counts_and_shows(tmp_path: Path) -> None:
    page = page_of(make_store(tmp_path, clips=3, seconds=0.5))
    assert "12 items accepted, 0 files rejected" in page
    assert "<td>face and voice, female</td><td>2</td><td>4</td><td>2</td><td>0</td>" in page
    assert page.count("<audio") == 6
    assert page.count("<img") == 7  # a contact sheet, and a face beside each voice
    assert "<td>toy/s2</td><td>male</td><td>2</td><td>1</td><td>0</td><td>0.0</td>" in page
    assert "Nothing." in page
    for outside in ("http", "<script", "<link", "url("):  # asks nobody for anything
        assert outside not in page


def test_rejects_are_told_by_class_with_examples(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="f", clips=1, kind="audio", seconds=0.5)
    rejects = [(f"a/<b>{i}.wav", "silent", "peak & all") for i in range(LISTED_REJECTS + 5)]
    rejects += [("b.wav", "truncated", "short"), ("c", NOT_NEEDED, "7 files: second microphone")]
    page = page_of(store, rejects)
    assert "1 items accepted, 26 files rejected" in page
    assert "<td>silent</td><td>25</td>" in page
    assert "a/&lt;b&gt;0.wav" in page
    assert "<b>0.wav" not in page
    assert "peak &amp; all" in page
    assert f"a/&lt;b&gt;{LISTED_REJECTS}.wav" not in page
    assert "5 more in quarantine.csv" in page
    assert page.index("Left out on purpose") < page.index("second microphone")
    assert "1 accepted, 26 rejected (25 silent, 1 truncated)" in summary([store])
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
    assert len(page) < 400_000


def test_the_page_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, genders="f", clips=1)

    def full(path: Path, *arguments: object, **keywords: object) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DataError, match=r"report\.html cannot be written.*No space.*whole"):
        write_report(store)
    assert not list(store.path.glob("report*"))


def test_faces_are_spread_over_the_speakers(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="f" * 8, clips=4, faces=1, image_size=16)
    shown = sheet(store, 4)
    assert "4 of 32 faces" in shown
    assert preview([store]).count("<audio") == 6
    assert sheet(make_store(tmp_path / "x", genders="f", clips=1, kind="audio"), 4) == ""


def test_a_contact_sheet_holds_each_face_at_its_place() -> None:
    faces = [face((10 * i, 0, 0), 8) for i in range(14)]
    laid = contact_sheet(faces)
    assert laid.shape == (16, 96, 3)
    np.testing.assert_array_equal(laid[8:, 8:16], faces[13])
    assert (laid[8:, 16:] == 255).all()


def test_a_histogram_by_hand() -> None:
    drawn = histogram({"female": [0, 0, 1], "male": [1, 1, 1, 3]}, title="a < b", unit="x")
    titles = re.findall(r"<title>(.*?)</title>", drawn)
    assert titles == [
        "0 to 1 x: 2 female",
        "1 to 2 x: 1 female",
        "1 to 2 x: 3 male",
        "3 to 4 x: 1 male",
    ]
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" fill', drawn)]
    assert heights == pytest.approx([56, 28, 84, 28])
    tops = [float(y) for y in re.findall(r'<rect x="[\d.]+" y="([\d.]+)"', drawn)]
    assert tops == pytest.approx([72, 100, 16, 100])  # the men's bar stands on the women's
    assert "a &lt; b" in drawn
    assert histogram({}, title="") == ""
    assert histogram({"": []}, title="") == ""


@pytest.mark.parametrize("values", [[2.5], [3, 3], [0.0, 0.0], [-1.5, 1e6], [1e-9, 2e-9]])
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    drawn = histogram({"": values}, title="t")
    counted = [int(n) for n in re.findall(r": (\d+)</title>", drawn)]
    assert sum(counted) == len(values)
    assert "nan" not in drawn


def test_outliers_fall_into_the_last_bar() -> None:
    drawn = histogram({"": [*np.linspace(1, 2, 500), 145.0]}, title="t", unit="s")
    assert "2 and more" in drawn
    assert drawn.count("<rect") > 10


def test_tables_and_bars_escape_and_scale() -> None:
    assert "<td>1,234</td><td>&lt;i&gt;</td>" in table(["a", "b"], [[1234, "<i>"]])
    assert "width:50.0%" in bars([("a", 4), ("b", 2)])
