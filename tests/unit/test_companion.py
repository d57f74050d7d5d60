"""The whole paper: which notebooks run, what is fresh, what a failure leaves, what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_tables import row
from xfavot import report
from xfavot.errors import CheckpointError, ConfigError, DataError
from xfavot.parameters import Paper, Tables
from xfavot.report import paper
from xfavot.report.paper import Step

ORDER = ["prepare_data", "train", "evaluate", "cpr_study", "figures", "tables"]


def asked(root: Path, **given: Any) -> Paper:
    places = {"data_root": "data", "run_root": "runs", "out": "out"}
    folders = {name: str(root / place) for name, place in places.items()}
    return Paper.resolve(**folders, steps=3, **given)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Notebooks that only leave their outputs."""
    steps: list[Step] = []

    def run(step: Step, on_log: Any) -> None:
        steps.append(step)
        for folder, pattern in step.outputs:
            file = folder / pattern.replace("*/store", "mini/store").replace("*", "state.pt")
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


def test_only_what_is_not_fresh_runs(
    tmp_path: Path, ran: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = asked(tmp_path)
    assert paper.plan(cfg)["notebook"].tolist() == ORDER
    assert set(paper.plan(cfg)["state"]) == {"to run"}
    assert make(cfg, ran) == ORDER
    assert set(paper.plan(cfg)["state"]) == {"fresh"}
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
    assert make(asked(tmp_path, substitute=""), ran) == ["evaluate"]
    cfg = asked(tmp_path, substitute="")
    monkeypatch.setattr(paper, "_package", lambda: [Path(__file__)])
    assert make(cfg, ran) == ORDER[2:], "new code evaluates again and trains nothing"
    (tmp_path / "weights" / "nisqa").mkdir(parents=True)
    (tmp_path / "weights" / "nisqa" / "nisqa.tar").write_bytes(b"weights")
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path / "weights"))
    assert make(cfg, ran) == ORDER[2:], "a metric can be had that was missing"
    pages = {Path(step.parameters["out"]) for step in ran if step.notebook == "cpr_study"}
    people = {"study": str(*pages), "answers": str(tmp_path / "answers"), "substitute": ""}
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "01.json").write_text("answers")
    assert make(asked(tmp_path, **people), ran) == ["cpr_study", "figures"]  # the same figures
    assert ran[0].parameters["out"] == people["study"]
    assert ran[0].parameters["answers"] == ran[1].parameters["answers"] == people["answers"]
    assert make(cfg, ran) == ["cpr_study", "figures"]
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
    with pytest.raises(CheckpointError, match="step_1 does not exist"):
        loop(nowhere)


def test_a_failure_stops_only_what_needs_it(
    tmp_path: Path, ran: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = paper._execute

    def fails(*names: str) -> Any:
        def run(step: Step, on_log: Any) -> None:
            if step.notebook in names:
                raise DataError(f"{step.name}: broken")
            works(step, on_log)

        return run

    monkeypatch.setattr(paper, "_execute", fails("cpr_study"))
    failed = loop(asked(tmp_path))
    assert failed == ["cpr_study: broken"]
    assert [step.notebook for step in ran] == [name for name in ORDER if name != "cpr_study"]
    assert ran[-2].parameters["study"] == ""
    with pytest.raises(DataError, match="1 steps failed; cpr_study: broken"):
        paper.refuse(failed)
    paper.refuse([])
    monkeypatch.setattr(paper, "_execute", works)
    assert make(asked(tmp_path), ran) == ["cpr_study", "figures", "tables"]
    monkeypatch.setattr(paper, "_execute", fails("train"))
    with pytest.raises(DataError, match="train_mini_joint_"):
        loop(asked(tmp_path, configurations="joint"))


def test_a_notebook_that_fails_says_so(tmp_path: Path) -> None:
    pytest.importorskip("papermill")
    step = Step(name="odd", notebook="tables", parameters={"datasets": "mini"}, folder=tmp_path)
    said: list[str] = []
    with pytest.raises(DataError, match=r"odd: the notebook failed .*datasets.*odd.ipynb"):
        paper._execute(step, said.append)
    assert (tmp_path / "odd.ipynb").is_file()
    assert said


def test_wrong_parameters() -> None:
    with pytest.raises(ConfigError, match="checkpoint"):
        Paper.resolve(checkpoint="runs/x", steps=5)
    with pytest.raises(ConfigError, match="configurations"):
        Paper.resolve(configurations=" ,")
    with pytest.raises(ConfigError, match="xfavott"):
        Paper.resolve(configurations="xfavott")
    with pytest.raises(ConfigError, match="a study and its answers"):
        Paper.resolve(answers="answers")
    with pytest.raises(ConfigError, match="device"):
        Paper.resolve(device="tpu")
    assert Paper.resolve(dataset="grid").evaluation["recogniser"] == "espnet_librispeech"


def test_contents_tell_what_is_missing_and_why(tmp_path: Path) -> None:
    empty = dict.fromkeys(("value", "ci_low", "ci_high", "n", "seed"))
    rows = [{**row(), "missing": None}, *({**row(), **empty, "missing": "no weights"},) * 2]
    cfg = Tables.resolve(dataset="mini", out=str(tmp_path))
    origin = report.collect(report.begin(), cfg.run, tier="reduced", stores=[], notebook="tables")
    report.write_table("table3", rows, provenance=origin, root=tmp_path / "paper_tables")
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in paper.contents(tmp_path).to_markdown().splitlines()
    ]
    assert ["table3", "reduced", "1", "2"] in lines
    assert ["fig10", "not made: see the log of figures.ipynb", "", ""] in lines
    assert ["table1", "not made: see the log of tables.ipynb", "", ""] in lines
    (tmp_path / "paper_tables" / "table3" / "table3.csv").write_text("edited")
    with pytest.raises(DataError, match="not the file that was written"):
        paper.contents(tmp_path)
