"""The whole paper in one notebook, from a checkpoint of preset `smoke` on a synthetic store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("papermill")
pytest.importorskip("ipykernel")

from tests.notebooks.test_notebooks import execute
from tests.unit.training_factory import small_run
from xfavot import training
from xfavot.report import paper, read_table


def test_everything_is_made_once_and_what_is_missing_is_told(tmp_path: Path) -> None:
    training.fit(small_run(tmp_path))
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/config.json"))
    given = {
        "dataset": "grid",
        "checkpoint": str(run),
        "data_root": str(tmp_path / "data"),
        "run_root": str(tmp_path / "runs"),
        "device": "cpu",
        "metrics": "lpips,verification,f0",
        "conversions": 1,
        "triplets": 1,
        "substitute": "",
        "out": str(tmp_path / "out"),
    }
    text = execute("paper", tmp_path, **given)
    steps = [line for line in text.splitlines() if ": done in " in line]
    assert [line.split(":")[0].split("_")[0] for line in steps] == [
        *("evaluate", "cpr", "figures", "tables")
    ]
    assert {p.name for p in (tmp_path / "out" / "paper_tables").iterdir()} >= {*paper.ALL_TABLES}
    assert "| fig7 | not made" in " ".join(text.split())
    assert "| fig10 | smoke |" in " ".join(text.split())
    assert "| evaluate | to run |" in " ".join(text.split())
    assert "fetch-weights" in text  # of LPIPS, among the reasons
    rows = read_table(tmp_path / "out" / "paper_tables" / "verification").rows
    (auc,) = (r for r in rows if r["metric"] == "verification AUC, pairs of one sex" and r["value"])
    assert 0 <= auc["value"] <= 1
    record = (run / "evaluation" / "evaluation.json").read_text("utf-8")
    assert json.loads(record)["conversions"] == 1
    assert not [
        line for line in execute("paper", tmp_path, **given).splitlines() if ": done in " in line
    ]
