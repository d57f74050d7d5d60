"""The paper's figures: what they show is what was made, and what cannot be made says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")


from tests.conftest import REPOSITORY
from tests.unit.store_factory import make_store
from tests.unit.test_convert import loaded
from tests.unit.training_factory import shared_store
from xfavot.audio.vocoder import GriffinLim
from xfavot.config import RunConfig
from xfavot.convert import Converter
from xfavot.data.store import Store
from xfavot.errors import ConfigError
from xfavot.evaluation import matching
from xfavot.parameters import Figures
from xfavot.viz.paper_figures import Material, excused

Capture = pytest.CaptureFixture[str]
metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture(scope="module")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Converter:
    path = tmp_path_factory.mktemp("model")
    for part in ("model", "ema"):
        (path / f"{part}.safetensors").write_bytes(b"weights")
    run = RunConfig(name="toy", preset="smoke", model=loaded().config.model)
    return Converter(loaded(config=run, path=path), name="toy", vocoder=GriffinLim(iterations=2))


store = shared_store(corpus="mini", genders="ffmm", clips=2, splits=("train", "val"))


def material(converter: Converter, stores: tuple[Store, ...], out: Path) -> Material:
    cfg = Figures.resolve(dataset="mini", device="cpu", out=str(out), triplets=2)
    known: dict[str, Any] = {"cfg": cfg, "systems": {"toy": converter}}
    return Material(stores=stores, avatars=stores, split="val", **known)


def test_samples_are_of_different_people(
    converter: Converter, store: Store, tmp_path: Path
) -> None:
    at = material(converter, (store,), tmp_path)
    assert at.has("Fig. 1", "face", "voice", "avatar")
    voices = at.draw("voice", count=2, seed=0)
    faces = at.draw("face", count=2, seed=1, avoid=voices)
    assert not {e.speaker for e in voices} & {e.speaker for e in faces}
    assert {e.gender for e in voices} == {"f", "m"}
    assert {len(e.waveform) <= 2.4 * 24_000 for e in voices if e.waveform is not None} == {True}
    assert "toy at step" in at.note


def test_missing(converter: Converter, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind: dict[str, Any] = {"corpus": "celeba_hq", "kind": "image", "splits": ("val",)}
    silent = make_store(tmp_path / "data", clips=2, **kind)
    at = material(converter, (silent,), tmp_path / "out")
    assert at.has("Fig. 6 (a)", "face")
    assert not at.has("Fig. 1", "face", "voice")
    with excused("Fig. 10"):
        matching.style_space(at.converter, at.stores, split="val", seed=0)
    assert not dataclasses.replace(at, avatars=()).has("Fig. 7", "avatar")
    said = capsys.readouterr().out
    for text in (
        "Fig. 1 is missing: split val of mini has no voice of known gender",
        "Fig. 10 is missing",
        "prepare_data.ipynb -p dataset avatars",
    ):
        assert text in said


def test_parameters() -> None:
    cfg = Figures.resolve(others=" runs/a , runs/b", run_root="here", study="asked")
    assert cfg.asked.checkpoints == ("here", "runs/a", "runs/b")
    assert (cfg.asked.form, cfg.asked.triplets) == ("faces", 30)
    with pytest.raises(ConfigError, match=r"study is ''; expected the study that was answered"):
        Figures.resolve(answers="folder")


def test_numbers_of_the_style_space_by_hand() -> None:
    """The notebook's cell, on two people whose voices lie apart from their faces."""
    text = (REPOSITORY / "notebooks" / "figures.py").read_text(encoding="utf-8")
    (cell,) = (part for part in text.split("# %%\n") if "gap, count =" in part)
    styles = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8], [0, 0.6, 0.8]])
    kind, who = np.repeat(matching.KINDS, 2), np.array([0, 1, 0, 1])
    known: dict[str, Any] = {"space": matching.StyleSpace(styles, kind, who, [*"ab"], [*"fm"])}
    known |= {"matching": matching, "silhouette_score": metrics.silhouette_score}
    exec(cell, known)
    assert {name: float(value) for name, value, _ in known["found"]} == pytest.approx(
        {
            "silhouette by speaker": (0.6 + (0.68 - 0.4) / 0.68) / 2,
            "silhouette by modality": ((0.7 - 1) / 1 + (0.7 - 0.36) / 0.7) / 2,
            "modality gap": 0.72**0.5,
            "cosine, face and voice of one person": 0.6,
            "cosine, of two people": 0.0,
        }
    )
