"""The notebooks of the whole paper: evaluation, study, figures, tables, and the page of all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("papermill")
pytest.importorskip("sklearn")

import papermill
from PIL import Image

from tests.notebooks.runner import execute
from tests.unit.store_factory import make_store, provenance_of
from tests.unit.test_study import write_answers
from tests.unit.training_factory import few_steps, small_run
from xfavot import training
from xfavot.report import read_table, tables
from xfavot.report.study import open_study

MODULES = ("table6", "table7", "table8", "table9", "mapping_network")
OF_THE_PROGRAM = {"table1", "modules", *MODULES}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a run of preset `smoke`, and `out`."""
    root = tmp_path_factory.mktemp("paper")
    make_store(root / "data", corpus="grid", genders="ffmm", splits=("train", "train", "val"))
    training.fit(small_run(root))
    return root


@pytest.fixture(scope="module")
def given(root: Path) -> dict[str, Any]:
    (config,) = (root / "runs").glob("*/config.json")
    places = {"checkpoint": config.parent, "data_root": root / "data", "run_root": root / "runs"}
    known = {name: str(path) for name, path in places.items()}
    return known | {"dataset": "grid", "device": "cpu", "vocoder": "griffin_lim"}


@pytest.fixture(scope="module")
def text(root: Path, given: dict[str, Any]) -> str:
    """What the notebooks say, run as the workflow does; classifiers learn for two steps."""
    folder, study, out = root / "runs" / "paper_grid", root / "runs" / "study_grid", root / "out"
    folder.mkdir()
    scored = {"metrics": "lpips,verification", "conversions": 1}
    shared = {name: given[name] for name in ("dataset", "data_root", "run_root")}
    with pytest.MonkeyPatch.context() as patch:
        few_steps(patch)
        said = [execute("evaluate", folder, **given, **scored)]
    said.append(execute("cpr_study", folder, **given, triplets=1, out=str(study)))
    said.append(execute("figures", folder, **given, triplets=1, study=str(study), out=str(out)))
    said.append(execute("tables", folder, **shared, out=str(out)))
    said.append(execute("paper", folder, **shared, out=str(out)))
    return "\n".join(said)


def test_the_page_says_what_is_here(root: Path, given: dict[str, Any], text: str) -> None:
    cells = " ".join(text.split())
    assert "| fig7 | not made" in cells
    assert "| fig10 | smoke |" in cells
    assert "| XFaVoT | 0 | smoke | 4 | 4 | 2 | 4 |" in cells
    assert "fetch-weights" in text  # of LPIPS, among the reasons
    assert "| G_I      |     43206403 |" in text
    record = Path(given["checkpoint"], "evaluation", "evaluation.json").read_text("utf-8")
    assert json.loads(record)["conversions"] == 1
    learnt = Path(given["checkpoint"], "evaluation", "learning.csv")
    assert len(pd.read_csv(learnt)["metric"]) > 10
    assert " goals met." in learnt.with_suffix(".md").read_text("utf-8")
    failed = json.loads((root / "runs" / "paper_grid" / "tables.ipynb").read_text("utf-8"))
    error = {"output_type": "error", "ename": "DataError", "evalue": "no such mixture"}
    failed["cells"] = [{"outputs": [error]}]
    (root / "runs" / "paper_grid" / "evaluate.ipynb").write_text(json.dumps(failed), "utf-8")
    places = {name: given[name] for name in ("dataset", "data_root", "run_root")}
    said = execute("paper", root, **places, out=str(root / "out"))
    assert "- paper_grid/evaluate.ipynb: DataError: no such mixture" in said


def test_every_table_is_written_beside_the_evaluation(root: Path, text: str) -> None:
    folder = root / "out" / "paper_tables"
    assert "evaluations read: 1." in (root / "runs/paper_grid/tables.ipynb").read_text("utf-8")
    assert {path.name for path in folder.iterdir()} == {*OF_THE_PROGRAM, *tables.ITEMS}
    for path in folder.iterdir():
        record = read_table(path).record
        assert {file.suffix for file in path.iterdir()} == {".csv", ".md", ".tex", ".json"}
        tier = "paper" if path.name in OF_THE_PROGRAM else "smoke"
        assert (record["notebook"], record["tier"]) == ("tables", tier)
        assert str(root) not in json.dumps(record)
    heads = (folder / "table3" / "table3.md").read_text("utf-8").splitlines()[2]
    nisqa = "GRID<br>NISQA \N{UPWARDS ARROW}<br>"
    shown = [head.strip() for head in heads.split("|")[1:5]]
    assert shown == ["Guidance", "Model", f"{nisqa}ours", f"{nisqa}paper"]
    lines = (folder / "table5" / "table5.tex").read_text("utf-8").splitlines()
    models = {line.split(" & ")[0]: line for line in lines if " & " in line}
    joint = ["StarGANv2-VC, one-shot", "Joint training", "Joint training, $L_{xm}$", "XFaVoT"]
    assert list(models)[-4:] == joint
    assert "0.455" in models["XFaVoT"]
    (auc,) = (
        row["value"]
        for row in read_table(folder / "verification").rows
        if row["metric"] == "verification AUC, pairs of one sex" and row["value"] is not None
    )
    assert 0 <= auc <= 1


def test_layers_add_up_and_say_how_the_printed_table_differs(root: Path, text: str) -> None:
    read = {name: read_table(root / "out" / "paper_tables" / name).rows for name in OF_THE_PROGRAM}
    totals = {row["system"]: row["value"] for row in read["modules"]}
    for item in MODULES:
        for name in {row["system"] for row in read[item]}:
            *layers, whole = (row for row in read[item] if row["system"] == name)
            assert [row["task"] for row in layers] == [f"layer {n + 1}" for n in range(len(layers))]
            assert sum(row["value"] for row in layers) == whole["value"] == totals[name]
    assert (totals["M"], totals["total"]) == (107_500_672, 279_724_490)
    numbered = {n + 1: row for n, row in enumerate(read["table7"][:-1])}
    differs = {n: row["published"] for n, row in numbered.items() if row["published"] != "the same"}
    wanted = {1: "Conv 1x1 (A21)", 8: None, 12: "not printed (A17)", 17: None, 18: None}
    assert differs == wanted
    assert numbered[11]["output"] == "640 x 5 x 48"
    blocks = [row for row in read["table8"] if row["layer"] == "ResBlk"]
    assert {row["published"] for row in blocks} == {"with IN (A18)"}


def test_facts_of_the_overview_are_read_off_the_modules(root: Path, text: str) -> None:
    drawn = pd.read_csv(root / "out" / "figures" / "fig2" / "fig2.csv").set_index("module")
    facts = drawn[["takes", "gives", "heads"]].astype(str).agg(", ".join, axis=1)
    assert facts.to_dict() == {
        "G_I": "x s, face, 0",
        "G_A": "x s f0_features, voice, 0",
        **dict.fromkeys(("E_I", "E_A"), "x gender, style, 2"),
        "D_I": "x domain, logits, 2",
        "D_A": "x domain, logits, 6",
        "C_A": "x, logits, 6",
        "M": "z domain, style, 6",
    }
    assert drawn.loc["C_A", "title"] == "audio classifier"


def test_every_figure_is_made_or_named_as_missing(root: Path, text: str) -> None:
    made = list((root / "out" / "figures").iterdir())
    assert {path.name for path in made} == {f"fig{n}" for n in range(1, 11)} - {"fig7"}
    shown = (root / "runs" / "paper_grid" / "figures.ipynb").read_text("utf-8")
    assert "Fig. 7 is missing: there is no prepared store of drawn faces" in shown
    assert shown.count("<audio") > 20
    for path in made:
        assert (path / f"{path.name}.png").stat().st_size > 4_000
        record = json.loads((path / f"{path.name}.json").read_text("utf-8"))
        notebook = "cpr_study" if path.name == "fig5" else "figures"
        assert (record["tier"], record["notebook"]) == ("smoke", notebook)
        assert str(root) not in json.dumps(record)


def test_a_figure_keeps_its_data_and_voices(root: Path, text: str) -> None:
    folder = root / "out" / "figures" / "fig1"
    with Image.open(folder / "fig1.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20, "an empty picture"
    assert (folder / "fig1.pdf").read_bytes().startswith(b"%PDF")
    rows = pd.read_csv(folder / "fig1.csv")
    assert rows["task"].tolist() == ["a2i"] * 4 + ["i2a"] * 4
    assert (rows["change_levels"].notna() == (rows["task"] == "a2i")).all()
    assert (rows["f0_hz"].notna() == (rows["task"] == "i2a")).all()
    voices = list((root / "out" / "voices" / "fig1").glob("*.wav"))
    assert len(voices) == 2 + 2 + 4  # references of one task, sources and outputs of the other
    made = [path for path in voices if "converted" in path.name]
    assert len(made) == 4
    assert all(provenance_of(path)["synthetic"] == "yes" for path in made)


def test_answers_of_people_become_a_table(root: Path, given: dict[str, Any], text: str) -> None:
    made, answers = root / "runs" / "study_grid", root / "answers"
    study = shutil.copytree(made, root / "study")
    key = open_study(study)
    count = len(key["questions"])
    write_answers(key, answers, "01")
    write_answers(key, answers, "02", right=lambda _: False, count=2)
    more = {k: given[k] for k in ("dataset", "data_root", "run_root", "device")}
    said = execute("cpr_study", root, **more, answers=str(answers), out=str(study))
    assert "2 of 5 pages came back, 1 of them complete" in said
    table = read_table(study / "paper_tables" / "cpr")
    rows = [row for row in table.rows if row["metric"] == "CPR"]
    assert sum(row["n"] for row in rows) == count + 2
    assert sum(round(row["value"] * row["n"]) for row in rows) == count
    assert (study / "figures" / "cpr" / "cpr.png").stat().st_size > 4_000
    assert str(root) not in json.dumps(table.record)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"form": "face"}, r"form is 'face'; did you mean"),
        ({"checkpoint": "none", "dataset": "celebahq_vctk"}, "nothing to ask"),
        ({"answers": "folder"}, r"key\.json is missing or damaged"),
    ],
)
def test_studies_that_cannot_be_made(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    for corpus, kind in (("celeba_hq", "image"), ("vctk", "audio")):
        make_store(tmp_path / "data", corpus=corpus, kind=kind, seconds=0.3, image_size=8)
    roots = {"data_root": str(tmp_path / "data"), "out": str(tmp_path / "study")}
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        execute("cpr_study", tmp_path, **roots, **given)
    assert not (tmp_path / "study").exists()
