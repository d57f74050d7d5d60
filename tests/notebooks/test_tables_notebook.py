"""The notebook of the tables: every table is written, with an evaluation beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.notebooks.test_notebooks import execute
from tests.unit.test_tables import cell, row, run
from xfavot.report import modules, read_table, tables

pytest.importorskip("papermill")

OF_THE_PROGRAM = {"table1", "modules", *modules.MODULES}
ITEMS = {*OF_THE_PROGRAM, *tables.ITEMS}


def test_every_table_is_written_beside_an_evaluation(tmp_path: Path) -> None:
    run(tmp_path / "runs", [row(), row(direction="female to male", sex="male")], name="r1")
    text = execute(
        "tables",
        tmp_path,
        run_root=str(tmp_path / "runs"),
        data_root=str(tmp_path / "data"),
        out=str(tmp_path / "out"),
    )
    root = tmp_path / "out" / "paper_tables"
    assert {path.name for path in root.iterdir()} == ITEMS
    assert "2 values, tier reduced; evaluations read: 1." in text
    assert "| G_I      |     43206403 |" in text
    for item in ITEMS:
        record = read_table(root / item).record
        assert {path.suffix for path in (root / item).iterdir()} == {".csv", ".md", ".tex", ".json"}
        assert (record["notebook"], record["data"][0]["corpus"]) == ("tables", "none")
        assert record["tier"] == ("paper" if item in OF_THE_PROGRAM else "reduced")
        assert str(tmp_path) not in json.dumps(record)
    ours = cell(read_table(root / "table3").rows, system="XFaVoT", task="a2a", metric="nisqa")
    assert (ours["value"], ours["published_grid"]) == (3.25, 4.65)
    assert read_table(root / "by_direction_and_sex").rows[0]["sex"] == "male"
