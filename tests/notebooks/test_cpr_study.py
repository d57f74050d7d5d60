"""The study's notebook: makes pages, reads answers back into a table and a figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.notebooks.test_notebooks import execute
from tests.unit.store_factory import make_store
from tests.unit.test_study import write_answers
from xfavot.report import read_table
from xfavot.report.study import open_study

papermill = pytest.importorskip("papermill")


def test_pages_are_made_and_answers_become_a_table(tmp_path: Path) -> None:
    make_store(tmp_path / "data", corpus="mini", genders="ffmm", clips=3, seconds=0.6)
    people = {
        f"mini/s{n}": {"gender": g, "age": n / 4, "size": n % 2, "liveliness": n / 9}
        for n, g in enumerate("ffmm", 1)
    }
    factors = tmp_path / "data" / "mini" / "factors.json"
    factors.write_text(json.dumps({"people": people, "faces": []}), "utf-8")
    given = {
        "checkpoint": "none",
        "data_root": str(tmp_path / "data"),
        "device": "cpu",
        "triplets": 4,
        "evaluators": 2,
        "out": str(tmp_path / "study"),
    }
    text = execute("cpr_study", tmp_path, **given)
    assert "2 pages of 8 questions" in text
    assert "No answers were read." in text
    assert "automatic CPR, by the hidden factors" in text
    study = open_study(tmp_path / "study")
    write_answers(study, tmp_path / "answers", "01")
    write_answers(study, tmp_path / "answers", "02", right=lambda _: False, count=5)
    text = execute("cpr_study", tmp_path, **given, answers=str(tmp_path / "answers"))
    assert "2 of 2 pages came back, 1 of them complete" in text
    table = read_table(tmp_path / "study" / "paper_tables" / "cpr")
    found = [row for row in table.rows if row["metric"] == "CPR"]
    assert sum(row["n"] for row in found) == 13
    assert sum(round(row["value"] * row["n"]) for row in found) == 8
    assert (tmp_path / "study" / "figures" / "cpr" / "cpr.png").stat().st_size > 10_000
    assert str(tmp_path) not in json.dumps(table.record)


def test_a_wrong_parameter_stops_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError, match=r"form is 'face'; did you mean"):
        execute("cpr_study", tmp_path, form="face", out=str(tmp_path / "study"))
    assert not (tmp_path / "study").exists()
