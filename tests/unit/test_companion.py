"""The whole paper: which notebooks run, what is fresh, what a failure leaves, what is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.conftest import Patch, refuses
from xfavot.errors import CheckpointError, ConfigError, DataError
from xfavot.parameters import Paper
from xfavot.report import paper
from xfavot.report.paper import Step

ORDER = ["prepare_data", "train", "evaluate", "cpr_study", "figures", "tables"]


def asked(root: Path, **given: Any) -> Paper:
    places = {"data_root": "data", "run_root": "runs", "out": "out"}
    folders = {name: str(root / place) for name, place in places.items()}
    return Paper.resolve(**folders, steps=3, **given)


@pytest.fixture
def ran(monkeypatch: Patch) -> list[Step]:
    """Notebooks that only leave their outputs."""
    steps: list[Step] = []

    def run(step: Step) -> None:
        steps.append(step)
        file = step.output / "state.pt" if step.notebook == "train" else step.output
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("content")

    monkeypatch.setattr(paper, "_execute", run)
    monkeypatch.setattr(paper.checkpoint, "STATE", "state.pt")
    return steps


def loop(cfg: Paper) -> list[str]:
    """Run what is not fresh, as the notebook does."""
    return [why for step in paper.steps(cfg) for why in paper.run(step, on_log=lambda _: None)]


def make(cfg: Paper, ran: list[Step]) -> list[str]:
    """Names of the notebooks that ran."""
    ran.clear()
    assert loop(cfg) == []
    return [step.notebook for step in ran]


def test_only_what_is_not_fresh_runs(tmp_path: Path, ran: list[Step], monkeypatch: Patch) -> None:
    cfg = asked(tmp_path)
    assert make(cfg, ran) == ORDER
    train, evaluate, study, figures = ran[1:5]
    assert (train.parameters["configuration"], train.parameters["steps"]) == ("xfavot", 3)
    assert train.parameters["preset"] == "mini"
    assert Path(evaluate.parameters["checkpoint"]).name == "step_00000003"
    assert evaluate.parameters["recogniser"] == "pocketsphinx_grid"
    assert figures.parameters["study"] == study.parameters["out"]
    assert make(cfg, ran) == []

    (run,) = (tmp_path / "runs").glob("mini_xfavot_*")
    (run / "evaluation" / "evaluation.csv").write_text("other figures")
    assert make(cfg, ran) == ["tables"]
    (tmp_path / "out" / "figures" / "fig1" / "fig1.png").unlink()
    assert make(cfg, ran) == ["figures"]
    (run / "checkpoints" / "step_00000003" / "state.pt").write_text("trained on")
    assert make(cfg, ran) == ORDER[2:]
    cfg = asked(tmp_path, substitute="")
    assert make(cfg, ran)[0] == "evaluate"
    with monkeypatch.context() as patch:
        patch.setattr(paper, "PACKAGE", Path(__file__).parent)
        assert make(cfg, ran) == ORDER[2:], "new code evaluates again and trains nothing"
    (tmp_path / "weights" / "nisqa").mkdir(parents=True)
    (tmp_path / "weights" / "nisqa" / "nisqa.tar").write_bytes(b"weights")
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path / "weights"))
    assert make(cfg, ran) == ORDER[2:], "a metric can be had that was missing"
    pages = {Path(step.parameters["out"]) for step in ran if step.notebook == "cpr_study"}
    people = {"study": str(*pages), "answers": str(tmp_path / "answers"), "substitute": ""}
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "01.json").write_text("answers")
    assert make(asked(tmp_path, **people), ran)[:2] == ["cpr_study", "figures"]
    assert ran[0].parameters["out"] == people["study"]
    assert ran[0].parameters["answers"] == ran[1].parameters["answers"] == people["answers"]
    assert make(cfg, ran)[:2] == ["cpr_study", "figures"]
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path.with_name("elsewhere") / "weights"))
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert make(asked(moved, substitute=""), ran) == []


def test_several_configurations_and_named_checkpoints(tmp_path: Path, ran: list[Step]) -> None:
    names = make(asked(tmp_path, configurations="xfavot, joint"), ran)
    assert names == ["prepare_data", *["train"] * 2, *["evaluate"] * 2, *ORDER[3:]]
    figures = ran[-2].parameters
    assert "_xfavot_" in figures["checkpoint"]
    assert "_joint_" in figures["others"]
    (run,) = (tmp_path / "runs").glob("mini_joint_*")
    fields = {"data_root": str(tmp_path / "data"), "run_root": str(tmp_path / "runs")}
    out = str(tmp_path / "one")
    assert make(Paper.resolve(**fields, checkpoint=str(run), out=out), ran) == [
        *("cpr_study", "figures", "tables")  # it is evaluated already
    ]
    nowhere = Paper.resolve(**fields, checkpoint=str(tmp_path / "step_1"), out=out)
    refuses(CheckpointError, "step_1 does not exist", loop, nowhere)


def test_a_failure_stops_what_needs_it(tmp_path: Path, ran: Any, monkeypatch: Patch) -> None:
    works = paper._execute

    def fails(name: str) -> Any:
        def run(step: Step) -> None:
            if step.notebook == name:
                raise DataError(f"{step.name}: broken")
            works(step)

        return run

    monkeypatch.setattr(paper, "_execute", fails("cpr_study"))
    assert loop(asked(tmp_path)) == ["cpr_study: broken"]
    assert [step.notebook for step in ran] == [name for name in ORDER if name != "cpr_study"]
    assert ran[-2].parameters["study"] == ""
    monkeypatch.setattr(paper, "_execute", works)
    assert make(asked(tmp_path), ran) == ["cpr_study", "figures", "tables"]
    monkeypatch.setattr(paper, "_execute", fails("train"))
    refuses(DataError, "train_mini_joint_", loop, asked(tmp_path, configurations="joint"))


def test_a_notebook_that_fails_says_so(tmp_path: Path, monkeypatch: Patch) -> None:
    papermill = pytest.importorskip("papermill")
    step = Step(tmp_path, "tables", {}, tmp_path / "x")
    error = papermill.PapermillExecutionError(0, 1, "", "ConfigError", "no such mixture", [])
    monkeypatch.setattr(papermill, "execute_notebook", Mock(side_effect=error))
    refuses(DataError, r"tables: .*failed \(ConfigError: no such mixture", paper._execute, step)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: io.StringIO())
    refuses(DataError, r"tables: the notebook failed \(x was not written", paper._execute, step)


def test_wrong_parameters() -> None:
    for given, message in (
        ({"checkpoint": "runs/x", "steps": 5}, "checkpoint"),
        ({"configurations": " ,"}, "configurations"),
        ({"configurations": "xfavott"}, "xfavott"),
        ({"answers": "answers"}, "a study and its answers"),
        ({"device": "tpu"}, "device"),
    ):
        refuses(ConfigError, message, Paper.resolve, **given)
    assert Paper.resolve(dataset="grid").evaluation["recogniser"] == "espnet_librispeech"
