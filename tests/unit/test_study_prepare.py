"""Making the study from stores and models: names, provenance, what is asked of whom."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.store_factory import make_store
from tests.unit.test_convert import loaded
from xfavot import report
from xfavot.audio.vocoder import GriffinLim
from xfavot.config import RunConfig
from xfavot.errors import DataError
from xfavot.parameters import Study
from xfavot.report import study
from xfavot.training.checkpoint import LoadedModel

pytest.importorskip("scipy")
pytest.importorskip("PIL")
pytest.importorskip("soundfile")


def task(root: Path, **changes: Any) -> Study:
    settings: dict[str, Any] = {
        "checkpoint": "none",
        "dataset": "grid",
        "data_root": str(root / "data"),
        "seed": 0,
        "device": "cpu",
        "vocoder": "griffin_lim",
        "form": "faces",
        "triplets": 2,
        "evaluators": 1,
        "answers": "",
        "out": str(root / "study"),
    }
    return Study(**(settings | changes))


def fake(folder: Path, configuration: str, name: str, step: int, preset: str) -> LoadedModel:
    folder.mkdir(parents=True)
    for part in ("model", "ema"):
        (folder / f"{part}.safetensors").write_bytes(str(folder.name).encode())
    model = loaded()
    run: RunConfig = dataclasses.replace(
        model.config, configuration=configuration, name=name, preset=preset
    )
    return dataclasses.replace(model, path=folder, step=step, config=run)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, LoadedModel]:
    made = {
        "one": fake(tmp_path / "one", "xfavot", "run_a", 5, "smoke"),
        "two": fake(tmp_path / "two", "xfavot", "run_b", 5, "paper"),
        "three": fake(tmp_path / "three", "joint", "run_c", 5, "paper"),
        "later": fake(tmp_path / "later", "xfavot", "run_b", 9, "paper"),
    }
    monkeypatch.setattr(study, "load_model", lambda path: made[path.name])
    return made


def test_models_are_named_as_shortly_as_they_differ(
    models: dict[str, LoadedModel], tmp_path: Path
) -> None:
    assert list(study.systems_of(task(tmp_path, checkpoint="one,three"))) == ["xfavot", "joint"]
    assert study.weights_digest(models["one"].path) != study.weights_digest(models["three"].path)
    names = list(study.systems_of(task(tmp_path, checkpoint="one,two,three,later")))
    assert names == ["xfavot, step 5, 1", "xfavot, step 5, 2", "joint", "xfavot, step 9"]


def test_tier_is_the_papers_only_for_its_size_and_number(tmp_path: Path) -> None:
    thirty, few = task(tmp_path, triplets=30), task(tmp_path)
    assert study.tier_of(thirty, ["paper", "paper"]) == "paper"
    assert study.tier_of(few, ["paper"]) == "reduced"
    assert study.tier_of(thirty, ["paper", "mini"]) == "reduced"
    assert study.tier_of(thirty, []) == "reduced"
    assert study.tier_of(thirty, ["paper", "smoke"]) == "smoke"


def test_a_study_asks_the_truth_and_every_model_and_says_where_it_comes_from(
    models: dict[str, LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "data", corpus="grid", genders="ffmm", seconds=0.6)
    quick = study.Converter
    monkeypatch.setattr(
        study,
        "Converter",
        lambda model, **how: quick(model, **(how | {"vocoder": GriffinLim(iterations=1)})),
    )
    told: list[str] = []
    cfg = task(tmp_path, checkpoint="one,three")
    made = study.prepare(cfg, report.begin(), on_log=told.append)
    asked = [(q["system"], q["task"]) for q in made["questions"].values()]
    systems = ("ground truth", "xfavot", "joint")
    assert {pair: asked.count(pair) for pair in set(asked)} == {
        (system, task): 2 for system in systems for task in ("a2i", "i2a")
    }
    by = {(row["system"], row["metric"]) for row in made["automatic"]}
    for system in systems:
        assert (system, "automatic CPR, by the style encoders of joint") in by
    origin = made["provenance"]
    assert [origin[k] for k in ("tier", "dataset", "notebook")] == ["smoke", "grid", "cpr_study"]
    assert origin["command"] == ("papermill notebooks/cpr_study.ipynb out.ipynb")
    assert set(origin["weights"]) == {"model xfavot", "model joint"}
    assert str(tmp_path) not in json.dumps(made["provenance"])
    assert any("1 pages of 12 questions" in line for line in told)
    assert "joint, i2a: 2 triplets" in told
    again = study.prepare(
        task(tmp_path, answers="somewhere"), report.begin(), on_log=lambda _: None
    )
    assert again == made


def test_without_pairs_and_without_a_model_there_is_nothing_to_ask(tmp_path: Path) -> None:
    for corpus, kind in (("celeba_hq", "image"), ("vctk", "audio")):
        make_store(tmp_path / "data", corpus=corpus, kind=kind)
    cfg = task(tmp_path, dataset="celebahq_vctk")
    with pytest.raises(DataError, match="nothing to ask"):
        study.prepare(cfg, report.begin(), on_log=lambda _: None)
    with pytest.raises(DataError, match=r"key.json is missing or damaged"):
        study.prepare(task(tmp_path, answers="a"), report.begin(), on_log=lambda _: None)
