"""The figures' notebook, from a checkpoint of preset `smoke` on a synthetic store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("papermill")
pytest.importorskip("ipykernel")

from tests.notebooks.test_notebooks import execute
from tests.unit.training_factory import small_run
from xfavot import training


def test_every_figure_is_made_or_said_to_be_missing(tmp_path: Path) -> None:
    training.fit(small_run(tmp_path))
    text = execute(
        "figures",
        tmp_path,
        dataset="grid",
        data_root=str(tmp_path / "data"),
        device="cpu",
        run_root=str(tmp_path / "runs"),
        triplets=1,
        out=str(tmp_path / "out"),
    )
    made = {folder.name for folder in (tmp_path / "out" / "figures").iterdir()}
    assert made == {f"fig{n}" for n in (1, 2, 3, 4, 5, 6, 8, 9, 10)}
    assert "Fig. 7 is missing: there is no prepared store of drawn faces" in text
    for name in made:
        folder = tmp_path / "out" / "figures" / name
        assert (folder / f"{name}.png").stat().st_size > 10_000
        record = json.loads((folder / f"{name}.json").read_text("utf-8"))
        assert (record["tier"], record["notebook"]) == ("smoke", "figures")
        assert str(tmp_path) not in json.dumps(record)
    assert text.count("<audio") > 20
