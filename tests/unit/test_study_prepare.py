"""Making the study from stores and models: names, provenance, what is asked of whom."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.unit.store_factory import make_store
from tests.unit.test_convert import loaded
from xfavot import report
from xfavot.audio.vocoder import GriffinLim
from xfavot.parameters import Study
from xfavot.report import study
from xfavot.training.checkpoint import LoadedModel

pytest.importorskip("scipy")


def fake(folder: Path, configuration: str, step: int, preset: str) -> LoadedModel:
    folder.mkdir(parents=True)
    for part in ("model", "ema"):
        (folder / f"{part}.safetensors").write_bytes(folder.name.encode())
    model = loaded()
    run = dataclasses.replace(model.config, configuration=configuration, preset=preset)
    return dataclasses.replace(model, path=folder, step=step, config=run)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, LoadedModel]:
    made = {
        "one": fake(tmp_path / "one", "xfavot", 5, "smoke"),
        "two": fake(tmp_path / "two", "xfavot", 5, "paper"),
        "three": fake(tmp_path / "three", "joint", 5, "paper"),
        "later": fake(tmp_path / "later", "xfavot", 9, "paper"),
    }
    monkeypatch.setattr(study, "load_model", lambda path: made[path.name])
    quick, own = study.Converter, {"vocoder": GriffinLim(iterations=1)}
    monkeypatch.setattr(study, "Converter", lambda model, **how: quick(model, **(how | own)))
    return made


def test_models_are_named_as_shortly_as_they_differ(models: dict[str, LoadedModel]) -> None:
    assert list(study.systems_of(Study(checkpoint="one,three"))) == ["xfavot", "joint"]
    assert study.weights_digest(models["one"].path) != study.weights_digest(models["three"].path)
    names = list(study.systems_of(Study(checkpoint="one,two,three,later")))
    assert names == ["xfavot, step 5, 1", "xfavot, step 5, 2", "joint", "xfavot, step 9"]


@pytest.mark.parametrize(
    ("triplets", "presets", "tier"),
    [
        (30, ["paper", "paper"], "paper"),
        (2, ["paper"], "reduced"),
        (30, ["paper", "mini"], "reduced"),
        (30, [], "reduced"),
        (30, ["paper", "smoke"], "smoke"),
    ],
)
def test_tier_of_a_study(triplets: int, presets: list[str], tier: str) -> None:
    assert study.tier_of(Study(triplets=triplets), presets) == tier


def test_a_study_asks_truth_and_models(models: dict[str, LoadedModel], tmp_path: Path) -> None:
    stores = [make_store(tmp_path, corpus="grid", genders="ffmm", seconds=0.6)]
    lines: list[str] = []
    cfg = Study(checkpoint="one,three", dataset="grid", triplets=2, data_root=str(tmp_path))
    systems = study.systems_of(cfg)
    drawn, automatic = study.ask(cfg, stores, systems, on_log=lines.append)
    asked = [(one.system, one.task) for one in drawn]
    names = ("ground truth", "xfavot", "joint")
    assert {pair: asked.count(pair) for pair in set(asked)} == {
        (system, task): 2 for system in names for task in ("a2i", "i2a")
    }
    by = {(row["system"], row["metric"]) for row in automatic}
    assert by >= {(name, "automatic CPR, by the style encoders of joint") for name in names}
    assert "joint, i2a: 2 triplets" in lines
    about = {"began": report.begin(), "split": "train", "notebook": "cpr_study"}
    origin = study.origin_of(cfg, systems, stores, **about)
    assert [origin[k] for k in ("tier", "dataset", "notebook")] == ["smoke", "grid", "cpr_study"]
    assert origin["command"] == "papermill notebooks/cpr_study.ipynb out.ipynb"
    assert set(origin["weights"]) == {"model xfavot", "model joint"}
    assert origin["checkpoint"] == {"step": 5, "sha256": origin["weights"]["model xfavot"]}
    assert str(tmp_path) not in json.dumps(origin)
