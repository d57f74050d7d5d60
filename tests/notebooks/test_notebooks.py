"""Every notebook runs from beginning to end under papermill, on synthetic data, preset `smoke`."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("papermill")
pytest.importorskip("ipykernel")

import papermill

from tests.conftest import Patch
from tests.notebooks.runner import execute
from tests.unit.store_factory import face, make_store, provenance_of, tone
from xfavot import presets
from xfavot.audio.io import load_waveform, save_waveform
from xfavot.config import ModelConfig, RunConfig
from xfavot.evaluation import association, manifest, speed
from xfavot.image.io import save_image
from xfavot.parameters import Demo
from xfavot.training import loop

SMOKE = {"dataset": "grid", "preset": "smoke", "device": "cpu"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data root with an audio-visual store in GRID's place, and an empty run root."""
    root = tmp_path_factory.mktemp("notebooks")
    splits = ("train", "train", "train", "val")  # two held-out clips, so grids of two by two
    make_store(root / "data", corpus="grid", genders="fm", clips=4, seconds=1.2, splits=splits)
    return {"data_root": str(root / "data"), "run_root": str(root / "runs")}


@pytest.fixture(scope="module")
def trained(roots: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run that `train` left, and what the notebook said."""
    once = {"train.sample_every": 4}
    with Patch.context() as patch:
        patch.setattr(loop, "VALIDATION_BATCHES", 1)
        text = execute("train", tmp_path_factory.mktemp("out"), **SMOKE, **roots, overrides=once)
    (config,) = Path(roots["run_root"]).glob("*/config.json")
    return config.parent, text


def test_train_leaves_a_run_with_grids_and_voices(trained: tuple[Path, str]) -> None:
    run, text = trained
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert {record["step"] for record in map(json.loads, lines)} == {1, 2, 3, 4}
    assert list((run / "checkpoints").glob("step_*"))
    tasks = {"a2a", "a2i", "i2a", "i2i", "z2a", "z2i"}
    assert {path.stem[5:] for path in (run / "samples").glob("grid_???.png")} == tasks
    voices = sorted((run / "samples" / "voices").glob("?2a/*_to_*.wav"))
    assert len(voices) == (2 + 2 + 4) * 2  # four latent codes
    texts = provenance_of(voices[0])
    assert (texts["task"], texts["synthetic"]) == ("a2a", "yes")
    assert len(list((run / "samples" / "voices" / "a2a").glob("*.wav"))) == 2 + 2 + 4
    assert "step 4/4" in text
    assert text.count("<audio") == 6
    assert "metrics.jsonl" in text


def test_baseline_trains_and_is_scored(roots: dict[str, str], tmp_path: Path) -> None:
    own = roots | {"run_root": str(tmp_path / "runs")}
    text = execute("baseline", tmp_path, **SMOKE, **own, system="adain_cvc")
    (config,) = Path(own["run_root"]).glob("*/config.json")
    assert "step 4/4" in text
    assert "SystemConfig(bands=80, width=8" in text
    assert (config.parent / "samples" / "grid_i2a.png").stat().st_size > 4_000
    assert text.count("<audio") == 6  # two sources, each after two faces
    how = {"metrics": "f0", "conversions": 1, "vocoder": "griffin_lim"}
    given = {"dataset": "grid", "device": "cpu", "checkpoint": str(config.parent)}
    text = execute("evaluate", tmp_path, **own, **given, **how)
    rows = pd.read_csv(config.parent / "evaluation" / "evaluation.csv")
    assert {*zip(rows["system"], rows["task"], strict=True)} == {("adain_cvc", "i2a")}
    assert not (config.parent / "evaluation" / "learning.csv").exists()


def test_method_computes_every_term_as_training_does(roots: dict[str, str], tmp_path: Path) -> None:
    data = {"dataset": "grid", "data_root": roots["data_root"]}
    text = execute("method", tmp_path, device="cpu", **data)
    assert "image-only face" in text
    assert re.search(r"L_xm = \d+\.\d+, \d pairs", text)
    for term in ("advcls", "cyc", "norm", "rec_audio", "r1"):
        assert term in text


def test_explore(trained: tuple[Path, str], roots: dict[str, str], tmp_path: Path) -> None:
    text = execute("explore", tmp_path, dataset="grid", device="cpu", **roots)
    assert f"{trained[0].name} at step 4" in text
    assert "vocoder: source_filter" in text
    assert text.count("iVBORw0KGgo") >= 6  # sheets of all six tasks
    assert 4 <= text.count("<audio") <= 6  # a source, a voice after each of the three


def test_demo_converts_strangers_and_learns_some(
    trained: tuple[Path, str], roots: dict[str, str], tmp_path: Path
) -> None:
    own = {"data_root": roots["data_root"], "run_root": str(tmp_path / "runs")}
    given = {"checkpoint": str(trained[0]), "people": 2, "steps": 2, **own}
    text = execute("demo", tmp_path, dataset="grid", device="cpu", **given)
    (run,) = (tmp_path / "runs").glob("*/config.json")
    assert str(trained[0]) in run.read_text("utf-8")
    other = dataclasses.replace(RunConfig(), model=ModelConfig(image_levels=3), preset="smoke")
    learning = Demo.resolve(dataset="grid").learning("data", other)  # a preset of another time
    assert learning.model == dataclasses.replace(other.model, speakers=learning.model.speakers)
    assert "step 2/2" in text
    assert "after 2 steps" in text
    assert "L_xm" in text
    assert text.count("iVBORw0KGgo") >= 6  # faces, voices, and four tasks before and after


def test_pretrain_trains_a_vocoder(roots: dict[str, str], tmp_path: Path) -> None:
    text = execute("pretrain", tmp_path, **SMOKE, **roots, network="vocoder")
    assert list(Path(roots["run_root"], "auxiliary").glob("vocoder_*/source_filter.safetensors"))
    assert "vocoder: val/mel_l1 " in text
    assert re.search(r"griffin_lim +2 ", text)
    assert text.count("<audio") == 6


def test_prepare_data_makes_stores(tmp_path: Path) -> None:
    pytest.importorskip("pyworld")
    rng = np.random.default_rng(0)
    faces, vctk = tmp_path / "source" / "celeba_hq", tmp_path / "source" / "vctk"
    for folder in (faces / s / g for s in ("train", "val") for g in ("female", "male")):
        pixels = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        save_image(folder / "1.png", pixels | face((9, 9, 9), 128))
    (vctk / "txt").mkdir(parents=True)
    (vctk / "speaker-info.txt").write_text("ID AGE GENDER\np225 23 F\np226 22 M\n", "utf-8")
    for speaker, pitch in (("p225", 210.0), ("p226", 110.0)):
        for number in (1, 2):
            wav = vctk / "wav48" / speaker / f"{speaker}_00{number}.wav"
            save_waveform(wav, tone(pitch, 1.5, rng))
    places = {"source": str(tmp_path / "source"), "data_root": str(tmp_path / "data")}
    text = execute("prepare_data", tmp_path, dataset="celebahq_vctk", workers=1, **places)
    assert "4 accepted" in text
    for corpus in ("celeba_hq", "vctk"):
        assert (tmp_path / "data" / corpus / "store.json").is_file()


def test_an_undeclared_parameter_stops_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError, match=r"stepz.*not a parameter"):
        execute("train", tmp_path, stepz=3, run_root=str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_benchmark(roots: dict[str, str], tmp_path: Path, monkeypatch: Patch) -> None:
    for name, value in (("BATCHES_A_ROUND", 1), ("JPEG_PIXELS", (128,)), ("SECONDS", 0.2)):
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(speed, "STEP_PRESETS", ("smoke",))
    names = presets.names  # one published vocoder is timed; others take long to make
    few = {"vocoders": ["multi_band_melgan.v2"]}
    monkeypatch.setattr(presets, "names", lambda kind: few.get(kind) or names(kind))
    given = {"dataset": "grid", "device": "cpu", "rounds": 1, "data_root": roots["data_root"]}
    text = execute("benchmark", tmp_path, **given, out=str(tmp_path / "out"))
    folder = tmp_path / "out" / "paper_tables" / "benchmark"
    record = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    assert (record["tier"], record["dataset"], record["notebook"]) == ("smoke", "grid", "benchmark")
    assert record["command"] == (
        "papermill notebooks/benchmark.ipynb out.ipynb -p dataset grid -p device cpu -p rounds 1"
    )
    assert str(tmp_path) not in json.dumps(record)
    cells = " ".join(text.split())  # columns are padded
    for part in (
        "SMOKE: a test of the machinery",
        "| 128 px, 192 frames | prepared store |",
        "| griffin_lim | no weights |",
        "| training step, batch 2 | preset smoke, fused, float32 |",
        "| conversion of 2 faces | preset smoke |",
        "| work | system | cpu_s | wall_s | peak_mib | tflop | ratio |",
    ):
        assert part in cells
    networks = folder.with_name("benchmark_networks") / "benchmark_networks.csv"
    counted = pd.read_csv(networks).set_index("system")["value"]
    assert len(counted) == 10
    macs = 16 * 512 + 6 * 512 * 512 + 512 * 64  # of M: three layers shared, three own
    assert counted["M"] == pytest.approx(2 * macs / 1e9)
    assert counted["C_A"] == counted["D_A"] > 0
    assert (tmp_path / "out" / "figures" / "benchmark" / "benchmark.png").stat().st_size > 4_000


def test_associate_judges_strangers_and_lets_the_model_speak(
    trained: tuple[Path, str], roots: dict[str, str], tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    store = make_store(data, corpus="grid", genders="fmfmfm", clips=2, seconds=1.2)
    told = np.random.default_rng(0).normal(size=(12, 384)).astype(np.float16)
    kept = out / "features" / f"grid_{store.manifest_hash}.npy"
    kept.parent.mkdir(parents=True)
    np.save(kept, told)  # as if the encoders had read all clips; tones are no voices to them
    given = {"data_root": str(data), "run_root": roots["run_root"], "out": str(out)}
    few = {"folds": 2, "steps": 4, "fewer": "2", "checkpoint": str(trained[0]), "conversions": 2}
    text = execute("associate", tmp_path, dataset="grid", device="cpu", **given, **few)
    rows = pd.read_csv(out / "paper_tables" / "association" / "association.csv")
    assert sorted(set(rows["learnt_from"])) == [0, 2, 3]
    assert (out / "figures" / "association" / "association.png").exists()
    assert association.load(out / "association.safetensors")("face", torch.ones(1, 128)).norm() > 0
    made = manifest.read(out / "voices" / "manifest.csv")
    assert [one.model for one in made[:3]] == ["association", "after the true voice", "unconverted"]
    assert len(made) == 6
    assert all(load_waveform(one.output).any() for one in made)
    assert "evaluate.ipynb" in text
