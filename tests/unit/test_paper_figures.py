"""The paper's figures: what they show is what was made, and what cannot be made says so."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")
pytest.importorskip("sklearn")

from PIL import Image

from tests.unit.store_factory import make_store
from tests.unit.test_convert import loaded
from tests.unit.test_study import make, write_answers
from xfavot import report
from xfavot.audio.io import read_provenance
from xfavot.audio.vocoder import GriffinLim
from xfavot.config import RunConfig
from xfavot.convert import Converter, Task, convert_grid
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import matching
from xfavot.evaluation.matching import StyleSpace
from xfavot.parameters import Figures
from xfavot.report.study import System
from xfavot.viz import paper_figures
from xfavot.viz.drawing import median_hz
from xfavot.viz.paper_figures import Missing, Opened, Shown


@pytest.fixture(scope="module")
def converter() -> Converter:
    run = RunConfig(name="toy", preset="smoke", model=loaded().config.model)
    return Converter(loaded(config=run), name="toy", vocoder=GriffinLim(iterations=2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("figures")
    return make_store(root, corpus="mini", genders="ffmm", clips=2, splits=("train", "val"))


def opened(converter: Converter, stores: tuple[Store, ...], out: Path, **given: Any) -> Opened:
    cfg = Figures.resolve(dataset="mini", device="cpu", out=str(out), triplets=2, **given)
    return Opened(
        cfg=cfg,
        began=report.begin(),
        systems=(System("toy", converter, "0" * 64),),
        stores=stores,
        avatars=stores,
        split="val",
        say=lambda _: None,
    )


def drawn(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The data and the record of a figure, whose picture has to be one."""
    name = folder.name
    with Image.open(folder / f"{name}.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20, "an empty picture"
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader(io.StringIO((folder / f"{name}.csv").read_text("utf-8"))))
    return rows, json.loads((folder / f"{name}.json").read_text("utf-8"))


def test_conversions_are_drawn_written_and_heard(
    converter: Converter, store: Store, tmp_path: Path
) -> None:
    shown = paper_figures.figure1(opened(converter, (store,), tmp_path))
    assert isinstance(shown, Shown)
    rows, record = drawn(tmp_path / "figures" / "fig1")
    assert [row["task"] for row in rows] == ["a2i"] * 4 + ["i2a"] * 4
    assert all((row["change_levels"] != "") == (row["task"] == "a2i") for row in rows)
    assert (record["tier"], record["notebook"], record["dataset"]) == ("smoke", "figures", "mini")
    assert record["command"] == (
        "papermill notebooks/figures.ipynb out.ipynb -p device cpu -p triplets 2"
    )
    assert str(tmp_path) not in json.dumps(record)
    voices = sorted((tmp_path / "voices" / "fig1").glob("*.wav"))
    assert len(voices) == 2 + 2 + 4  # references, sources, conversions
    made = [path for path in voices if "converted" in path.name]
    assert len(made) == 4
    assert all(read_provenance(path)["synthetic"] == "yes" for path in made)
    html = shown._repr_html_()
    assert (html.count("<img"), html.count("<audio")) == (1, 5)


def test_a_grid_is_of_the_samples_that_were_drawn(converter: Converter, store: Store) -> None:
    sources = paper_figures.draw([store], "voice", split="val", count=2, seed=0)
    references = paper_figures.draw([store], "face", split="val", count=2, seed=1, avoid=sources)
    assert not {e.speaker for e in sources} & {e.speaker for e in references}
    assert {e.gender for e in sources} == {"f", "m"}
    grid = convert_grid(converter, Task.I2A, sources, references)
    direct = converter.convert_voice(
        sources[1].waveform,
        face_reference=references[0].face,
        reference_aligned=True,
        gender=references[0].gender,
    )
    np.testing.assert_array_equal(grid.cells[0][1].log_mel, direct.log_mel)
    row = paper_figures.rows_of("x", grid, system="toy")[1]
    assert (row["source"], row["reference"]) == (sources[1].label, references[0].label)
    assert row["source_f0_hz"] == median_hz(direct.source_f0)
    latent = convert_grid(converter, Task.Z2A, sources, [(5, "f"), (6, "m")])
    assert [panel.label for panel in latent.rows] == ["code 5 (f)", "code 6 (m)"]


def test_the_overview_is_read_off_the_modules(converter: Converter) -> None:
    facts = paper_figures.module_facts(converter.config.model)
    counted = dict(converter.nets.parameter_table())
    assert {f.name: f.parameters for f in facts} == {k: counted[k] for k in counted if k != "total"}
    found = {f.name: (f.sees, f.gives, f.role, f.heads) for f in facts}
    assert found == {
        "G_I": ("face", "face", "generator", 0),
        "G_A": ("voice", "voice", "generator", 0),
        "E_I": ("face", "style", "style", 2),
        "E_A": ("voice", "style", "style", 2),
        "D_I": ("face", "logits", "critic", 2),
        "D_A": ("voice", "logits", "critic", 4),
        "C_A": ("voice", "logits", "critic", 4),
        "M": ("", "style", "style", 4),
    }
    assert next(f for f in facts if f.name == "G_A").takes == ("x", "s", "f0_features")


@pytest.mark.parametrize("number", [3, 7, 10])
def test_the_other_figures(number: int, converter: Converter, store: Store, tmp_path: Path) -> None:
    shown = getattr(paper_figures, f"figure{number}")(opened(converter, (store,), tmp_path))
    assert isinstance(shown, Shown)
    rows, _ = drawn(tmp_path / "figures" / f"fig{number}")
    counts = {3: 4, 7: 2 * 3 + 2 * 3}
    assert number not in counts or len(rows) == counts[number]
    assert ("SGSIM is missing" in shown._repr_html_()) == (number == 3)
    if number == 10:
        places = [row for row in rows if row["metric"] == "place"]
        assert len(places) == 4 * (2 + 1)  # two faces and a voice of everybody
        assert {row["speaker"] for row in places} == {f"mini/s{n}" for n in range(1, 5)}


def test_the_automatic_ratio_is_drawn_without_a_study(
    converter: Converter, store: Store, tmp_path: Path
) -> None:
    shown = paper_figures.figure5(opened(converter, (store,), tmp_path))
    assert isinstance(shown, Shown)
    assert "answers is missing" in shown._repr_html_()
    rows, _ = drawn(tmp_path / "figures" / "fig5")
    assert {(r["system"], r["task"]) for r in rows if r["n"] == "2"} == {
        (system, task) for system in ("ground truth", "toy") for task in ("a2i", "i2a")
    }


def test_the_answers_of_people_are_drawn_with_the_origin_of_their_study(
    converter: Converter, store: Store, tmp_path: Path
) -> None:
    study = make(tmp_path / "study", listen_ms=0)
    write_answers(study, tmp_path / "answers", "01")
    at = opened(
        converter,
        (store,),
        tmp_path / "out",
        study=str(tmp_path / "study"),
        answers=str(tmp_path / "answers"),
    )
    shown = paper_figures.figure5(at)
    assert isinstance(shown, Shown)
    assert "missing" not in shown._repr_html_()
    rows, record = drawn(tmp_path / "out" / "figures" / "fig5")
    people = [row for row in rows if row["metric"] == "CPR"]
    assert {row["value"] for row in people} == {"1.0"}  # all answered right
    assert (record["dataset"], record["notebook"]) == ("toy", "cpr_study")


def test_what_cannot_be_made_says_so(converter: Converter, tmp_path: Path) -> None:
    silent = make_store(
        tmp_path / "data", corpus="celeba_hq", kind="image", clips=2, splits=("val",)
    )
    at = opened(converter, (silent,), tmp_path / "out")
    for number in (1, 3, 4, 7, 8, 9, 10):
        missing = getattr(paper_figures, f"figure{number}")(at)
        assert isinstance(missing, Missing)
        assert f"Fig. {number} is missing: split val of mini has no voice" in repr(missing)
    assert not (tmp_path / "out").exists()
    alone = paper_figures.figure6(at)
    assert isinstance(alone, Shown)
    assert "Fig. 6 (b) is missing" in repr(alone)
    nobody = dataclasses.replace(at, stores=(make_store(tmp_path / "data"),), avatars=())
    assert "prepare_data.ipynb -p dataset avatars" in repr(paper_figures.figure7(nobody))


def space_of(faces: Any, voices: Any) -> StyleSpace:
    """Two faces and two voices of each of two women and two men, at given places of the axes."""
    styles = [row for axes in (faces, voices) for axis in axes for row in [np.eye(8)[axis]] * 2]
    codes = np.tile(np.repeat(np.arange(4), 2), 2)
    return StyleSpace(
        styles=np.array(styles),
        kind=np.repeat([0, 1], 8),
        speaker=codes,
        speakers=("a", "b", "c", "d"),
        genders=("f", "f", "m", "m"),
        split="val",
    )


def test_numbers_of_the_style_space() -> None:
    together = {
        (r["task"], r["metric"]): r["value"]
        for r in matching.measures(space_of(range(4), range(4)))
    }
    assert together["styles", "silhouette by speaker"] == pytest.approx(1.0)
    assert together["styles", "modality gap"] == pytest.approx(0.0)
    assert together["styles", "cosine, face and voice of one person"] == pytest.approx(1.0)
    assert together["styles", "cosine, of two people of one sex"] == pytest.approx(0.0)
    assert together["face to voice", "R@1, gallery of single samples"] == 1.0
    # a point has 7 of its kind, one of them itself again: a = 6/7; of the other 8, b = 6/8
    assert together["styles", "silhouette by modality"] == pytest.approx((6 / 8 - 6 / 7) / (6 / 7))
    apart = space_of(range(4), range(4, 8))
    rows = {(r["task"], r["metric"]): r["value"] for r in matching.measures(apart)}
    assert rows["styles", "modality gap"] == pytest.approx(np.sqrt(8) / 4)
    assert rows["styles", "cosine, face and voice of one person"] == pytest.approx(0.0)
    assert rows["styles", "silhouette by modality"] == pytest.approx(1 / 7)


def test_the_map_keeps_neighbours_and_repeats() -> None:
    space = space_of(range(4), range(4))
    plane = matching.embed(space, seed=3)
    np.testing.assert_array_equal(plane, matching.embed(space, seed=3))
    distance = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    same = space.speaker[:, None] == space.speaker[None]
    assert distance[same].max() < distance[~same].min()
    few = dataclasses.replace(space, styles=space.styles[:3])
    with pytest.raises(DataError, match=r"t-SNE: got 3 styles; expected 6"):
        matching.embed(few)


def test_short_names_tell_models_apart(converter: Converter) -> None:
    later = Converter(loaded(step=9), name="later", vocoder=GriffinLim(iterations=2))
    models = [System("long", one, "0") for one in (converter, later, later)]
    names = [one.name for one in paper_figures._short_names(models)]
    assert names == ["xfavot, step 7", "xfavot, step 9, 2", "xfavot, step 9, 3"]
    assert paper_figures._short_names(models[:1])[0].name == "xfavot"


def test_parameters() -> None:
    cfg = Figures.resolve(others=" runs/a , runs/b", run_root="here", study="asked")
    assert cfg.asked.checkpoints == ("here", "runs/a", "runs/b")
    assert (cfg.asked.out, cfg.asked.form, cfg.asked.triplets) == ("asked", "faces", 30)
    assert cfg.corpora == ("mini",)
    with pytest.raises(ConfigError, match=r"study is ''; expected the study that was answered"):
        Figures.resolve(answers="folder")
    with pytest.raises(ConfigError, match="triplets is 0"):
        Figures.resolve(triplets=0)
    with pytest.raises(ConfigError, match="did you mean"):
        Figures.resolve(other="x")
