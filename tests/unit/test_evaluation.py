"""Verification against scikit-learn, retrieval, the bootstrap, what was learnt, its classifiers."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Patch, refuses
from tests.unit import test_convert
from tests.unit.store_factory import make_store
from tests.unit.training_factory import few_steps, shared_store
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import classifiers, learning, matching, rows
from xfavot.evaluation.classifiers import Labelled, People, Reading
from xfavot.evaluation.learning import Grid, measures, random_difference, spread
from xfavot.training.checkpoint import LoadedModel

metrics = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_area_is_that_of_scikit_learn(ties: bool, weighed: bool) -> None:
    rng = np.random.default_rng(0)
    same = rng.random(3000) < 0.1
    score = (rng.normal(size=3000) + same).round(1 if ties else 16)
    given: Any = {"sample_weight": rng.integers(0, 4, 3000).astype(float) if weighed else None}
    *_, (area, equal) = matching.roc_measures(score, same, [*given.values()] if weighed else [])
    assert area == pytest.approx(metrics.roc_auc_score(same, score, **given), abs=1e-12)
    false, true, _ = metrics.roc_curve(same, score, **given, drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)
    nearest = np.argmin(np.abs(grid - (1 - np.interp(grid, false, true))))
    assert equal == pytest.approx(grid[nearest], abs=2e-5)


def test_curve_by_hand() -> None:
    score, same = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    whole, nothing = matching.roc_measures(score, same, [np.array([0.0, 1.0, 0.0, 1.0])])
    assert whole == (0.75, 0.5)
    assert np.isnan(nothing).all()
    assert matching.roc_measures(np.zeros(4), same) == [(0.5, 0.5)]
    assert matching.roc_measures(np.array([1.0, 0.0]), np.array([True, False])) == [(1.0, 0.0)]
    for bad, kinds in (([0.1, 0.2], [True] * 2), ([0.1, 0.2], [False] * 2), ([np.nan, 1], [1, 0])):
        with pytest.raises(DataError, match="pairs of one person"):
            matching.roc_measures(np.array(bad), np.array(kinds, bool))


def test_recall_at_k_by_hand() -> None:
    similarity, who = torch.tensor([[0.9, 0.5, 0.1]] * 3), torch.arange(3)
    allowed = torch.tensor([[True, True, True], [False, True, True], [True, False, True]])
    for k, mask, found in (
        (1, None, [True, False, False]),
        (2, None, [True, True, False]),
        (9, None, [True] * 3),
        (1, allowed, [True, True, False]),
        (2, allowed, [True] * 3),
    ):
        assert matching.hits(similarity, who, mask, k=k).tolist() == found


def named_people(count: int, each: int) -> tuple[list[str], dict[str, str]]:
    """The names of so many samples of so many people, and their sex, in turn."""
    who = [f"p{number:02}" for number in range(count) for _ in range(each)]
    return who, {name: "fm"[int(name[1:]) % 2] for name in who}


def space_of(faces: torch.Tensor, voices: torch.Tensor, people: int) -> matching.StyleSpace:
    """Styles of faces and of as many voices, each person's beside each other."""
    n = len(faces)
    styles = torch.nn.functional.normalize(torch.cat([faces, voices]).double(), dim=1).numpy()
    speaker = np.tile(np.repeat(np.arange(people), n // people), 2)
    kind, (_, gender) = np.repeat(["face", "voice"], n), named_people(people, 1)
    return matching.StyleSpace(styles, kind, speaker, [*gender], [*gender.values()])


def test_perfect_and_blind_vectors() -> None:
    rng = torch.Generator().manual_seed(0)
    centre = torch.randn(12, 32, generator=rng).repeat_interleave(3, 0)
    perfect = space_of(centre, centre, 12)
    good = matching.cross_modal_rows(perfect, seed=0)
    value = {(row["direction"], row["metric"]): row["value"] for row in good}
    assert value["", "verification AUC, all pairs"] == 1.0
    assert value["", "verification EER, pairs of one sex"] == 0.0
    assert value["face to voice", "R@1"] == value["voice to face", "R@5 within one sex"] == 1.0
    found = matching.retrieval(perfect, seed=0)
    assert [row["value"] for row in found] == [1.0] * 8
    assert {row["met"] for row in found if row["goal"]} == {True}
    for row in found:
        assert row["chance"] == pytest.approx(1 / 6 if "within" in row["metric"] else 1 / 12)
    faces, voices = torch.randn(2, 36, 32, generator=rng)
    for row in matching.cross_modal_rows(space_of(faces, voices, 12), seed=0):
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["ci_low"] < row["chance"] + 0.15
        assert row["people"] == 12
    chance = {r["metric"]: r["chance"] for r in good if r["direction"] == "face to voice"}
    assert chance == pytest.approx(
        {"R@1": 1 / 12, "R@5": 5 / 12, "R@1 within one sex": 1 / 6, "R@5 within one sex": 5 / 6}
    )


def test_sex_alone_separates_all_pairs_but_none_of_one_sex() -> None:
    who, gender = named_people(8, 2)
    vector = torch.tensor([[1.0, 0.0] if gender[name] == "f" else [0.0, 1.0] for name in who])
    rows = matching.cross_modal_rows(space_of(vector, vector, 8), seed=0)
    value = {row["metric"]: row["value"] for row in rows}
    assert value["verification AUC, all pairs"] > 0.75
    assert value["verification AUC, pairs of one sex"] == 0.5


def test_without_genders_only_all_pairs() -> None:
    score = np.eye(4) + 0.1 * np.arange(16).reshape(4, 4) / 16
    rows = matching.pair_rows(score, list("abcd"), list("abcd"), {}, seed=0)
    names = [f"verification {name}, all pairs" for name in ("AUC", "EER")]
    assert [row["metric"] for row in rows] == names
    assert (rows[0]["value"], rows[0]["n"]) == (1.0, 16)


def test_interval_of_a_mean_covers_and_grows_with_likeness_inside_people() -> None:
    rng = np.random.default_rng(0)
    who, _ = named_people(20, 10)
    own = dict(zip(sorted(set(who)), rng.normal(size=20), strict=True))
    widths = []
    for values in ([own[name] for name in who], list(rng.normal(size=200))):  # alike, apart
        found: Any = rows.ratio([(x, 1.0, one) for x, one in zip(values, who, strict=True)], seed=0)
        assert found["ci_low"] < np.mean(values) < found["ci_high"]
        widths.append(found["ci_high"] - found["ci_low"])
    assert widths[0] > 2 * widths[1]
    assert rows.ratio([(1, 2, "a"), (2, 8, "a")], seed=0)["ci_low"] is None
    assert rows.ratio([(1, 2, "a"), (2, 8, "b")], seed=0)["value"] == 0.3


SIZE, FRAMES = 16, 80


store = shared_store(genders="ffmm", clips=3, faces=2, seconds=1.1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few_steps(monkeypatch)


def loaded(store: Store, path: Path, **train: Any) -> LoadedModel:
    made = test_convert.loaded({"image_size": SIZE, "speakers": 4})
    cfg = made.config
    loss, changed = dataclasses.replace(cfg.loss, xm=0.0), dataclasses.replace(cfg.train, **train)
    return dataclasses.replace(
        made,
        standardiser=mel_statistics([store], split="train"),
        config=dataclasses.replace(cfg, loss=loss, train=changed),
        speakers=tuple(classifiers.speakers_of([store], ["train"])),
        path=path / "runs" / "toy" / "checkpoints" / "step_7",
    )


def people(store: Store, split: str) -> People:
    return classifiers.people_of([store], split, classifiers.speakers_of([store], ["val"]), SIZE)


def test_detail_sees_blur_and_the_grid_of_enlargement() -> None:
    real = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert learning.detail(0.5 * real, real)[0] == pytest.approx(0.25)
    blurred = torch.nn.functional.avg_pool2d(real, 3, stride=1, padding=1)
    sharp, lines, own = learning.detail(blurred, real)
    assert sharp < 0.2
    assert max(lines, own) < 1.5
    grid = torch.zeros(32, 32)
    grid[::4] = 1.0  # every fourth row
    _, lines, again = learning.detail(real + grid, real)
    assert lines > 2 * own
    assert again == own


def test_the_protocol_gives_every_row_and_keeps_classifiers(
    store: Store, tmp_path: Path, monkeypatch: Patch
) -> None:
    model, said = loaded(store, tmp_path), list[str]()
    how: dict[str, Any] = {"seed": 0, "device": "cpu", "on_log": said.append}
    found = learning.evaluate_learning(model, [store], **how)
    judged = {"judge of faces", "judge of voices", "face to voice", "voice to face"}
    assert {row["task"] for row in found} == judged | {"i2i", "a2i", "z2i", "i2a", "a2a", "z2a"}
    asked = {(row["task"], row["metric"]) for row in found if row["goal"]}
    assert asked >= {(t, "identity of the reference") for t in ("i2i", "a2i", "i2a", "a2a")}
    assert ("a2i", "diversity over the references, L1") in asked
    assert not any("pose" in row["metric"] for row in found), "the factory knows no pose"
    assert all(np.isfinite(row["value"]) and row["n"] > 0 for row in found)
    assert (found[0]["step"], found[0]["manifest"]) == (7, store.manifest_hash)
    pairs = [row["n"] for row in found if row["metric"] == "sex of the reference, all pairs"]
    assert set(pairs) == {4 * 8 * 3 // 4}, "own pairs are left out"
    assert any("training" in line for line in said)

    (kept,) = (tmp_path / "runs" / "auxiliary").glob("classifiers_*")
    said.clear()
    monkeypatch.chdir(tmp_path)
    packaged = dataclasses.replace(model, path=tmp_path / "package" / "weights" / "model")
    for one in (model, packaged):
        assert learning.evaluate_learning(one, [store], **how) == found
    assert not any("training" in line for line in said)
    kept.write_bytes(b"short")
    refuses(WeightsError, "delete it", learning.evaluate_learning, model, [store], **how)


@pytest.mark.parametrize(
    ("modality", "learnt"),
    [("image", {"judge of faces", "i2i", "z2i"}), ("audio", {"judge of voices", "a2a", "z2a"})],
)
def test_a_model_of_one_modality_and_a_store_of_women(
    store: Store, tmp_path: Path, modality: str, learnt: set[str]
) -> None:
    model, said = loaded(store, tmp_path, modalities=(modality,)), list[str]()
    women = make_store(tmp_path, genders="ff", clips=3, seconds=1.1)
    for data, tasks in ((store, learnt), (women, set[str]())):
        how: dict[str, Any] = {"seed": 0, "device": "cpu", "on_log": said.append}
        assert {row["task"] for row in learning.evaluate_learning(model, [data], **how)} == tasks
    assert "expected women and men" in said[-1]


def test_people_are_those_of_the_split(store: Store) -> None:
    held_out = people(store, "val")
    assert held_out.speakers == tuple(f"toy/s{n}" for n in range(1, 5))
    assert held_out.gender.tolist() == [0, 0, 1, 1]
    assert held_out.faces.x.shape == (4 * 2, 3, SIZE, SIZE)
    assert held_out.faces.speaker.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    expected = torch.tensor([20.0, 20.0, 10.0]) / 127.5 - 1  # colour(speaker 2, clip 2, face 1)
    torch.testing.assert_close(held_out.faces.x[5, :, 0, -1], expected)
    voices = held_out.voices(FRAMES)
    assert voices.x.shape == (8, 80, FRAMES)
    assert voices.gender.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(DataError, match="not stored at a multiple of 10 pixels"):
        classifiers.people_of([store], "val", classifiers.speakers_of([store], ["val"]), 10)


class Oracle(nn.Module):
    """Reads speaker, gender and pose from the first four pixels of a picture."""

    def forward(self, x: Tensor) -> Reading:
        first = x[:, 0, 0]  # (n, W)
        speaker, gender = (nn.functional.one_hot(first[:, n].long()).float() for n in (0, 1))
        return Reading(speaker, gender, first[:, 2:4], first[:, :1])


def picture(speaker: int, gender: int, pose: Tensor) -> Tensor:
    x = torch.zeros(3, 4, 4)
    x[0, 0] = torch.tensor([speaker, gender, *pose.tolist()])
    return x


def test_measures_of_a_known_grid() -> None:
    who, sex = torch.arange(4), torch.tensor([0, 0, 1, 1])
    pose = torch.tensor([[0.1, 0.2], [0.3, -0.4], [0.0, 0.5], [-0.6, 0.0]])
    faces = [picture(r, int(sex[r]), pose[s] + 0.1) for s in range(4) for r in range(4)]
    made = torch.stack(faces).unflatten(0, (4, 4))
    made[0, 1, 0, 0, 0] = 3  # one identity of twelve is wrong
    made[0, 2, 0, 0, 1] = 0  # one sex of eight across is wrong
    accuracy = {"face/speaker": 1.0, "face/gender": 1.0, "face/pose": 0.0}
    known: Any = SimpleNamespace(face=Oracle(), accuracy=accuracy)
    real = torch.stack([picture(n, int(sex[n]), pose[n]) for n in range(4)])
    side = Labelled(real, who, sex, pose)
    grid = Grid("face", "face", made, side, side)
    found = {row["metric"]: row for row in measures(grid, known, random_pose=0.5)}
    for metric, value in {
        "sex of the reference, all pairs": 11 / 12,
        "sex of the reference, cross-sex pairs": 7 / 8,
        "sex of the reference, same-sex pairs": 1.0,
        "identity of the reference": 11 / 12,
        "error of the source's pose": 0.1,
    }.items():
        assert found[metric]["value"] == pytest.approx(value)
    assert found["sex of the reference, all pairs"]["met"] is False
    for metric in ("error of pose over that of random faces", "diversity over the references, L1"):
        assert found[metric]["met"] is True


def test_differences_of_outputs_and_poses_by_hand() -> None:
    x = torch.tensor([[[0.0], [1.0], [5.0]], [[0.0], [2.0], [2.0]]])  # (S, R, 1)
    pairs = torch.ones(3, 3, dtype=torch.bool).triu(1)
    found = spread(x, pairs, torch.tensor([9, 2]), torch.tensor([0, 1, 2]))
    assert found == (pytest.approx((1 + 5 + 4 + 2) / 4), 3 + 1), "own pairs are left out"
    pose = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [float("nan"), 0.0]])
    assert random_difference(pose) == pytest.approx((0.5 + 1.5 + 2.0) / 3)
    assert np.isnan(random_difference(pose[:1]))


def test_classifiers_learn_what_is_plain(store: Store, monkeypatch: Patch) -> None:
    monkeypatch.setattr(classifiers, "BATCH_SIZE", 16)
    batch = partial(classifiers.voice_batch, people(store, "train"), FRAMES)
    statistics = mel_statistics([store], split="train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        voice = classifiers.VoiceClassifier(speakers=4, statistics=statistics)
        classifiers.fit(voice, batch, steps=25)
    held_out = people(store, "val").voices(FRAMES)
    heard = classifiers.read(voice.eval(), held_out.x).gender.argmax(1)
    assert torch.equal(heard, held_out.gender)


def test_table_is_written_whole(tmp_path: Path) -> None:
    first = rows.row("a2i", "voice", "identity", 1 / 3, 12, chance=0.25, goal=0.4)
    second = rows.row("i2i", "face", "diversity", 0.7, 12, goal=0.5)
    made, files = [{**first, "step": 5}, {**second, "step": 5}], tmp_path / "evaluation"
    text = " ".join(rows.markdown_table(made, [*rows.COLUMNS, "step"]).split())
    assert "| identity | 0.333 | 12 | 0.250 | | >= 0.4 | **no** | 5 |" in text
    rows.write_tables(files, {"a.csv": rows.csv_text(made, [*rows.COLUMNS, "step"])})
    read = pd.read_csv(files / "a.csv", dtype=str, keep_default_na=False)
    assert list(read.loc[0, ["value", "judge", "met"]]) == [repr(1 / 3), "", "False"]
    assert [path.name for path in files.iterdir()] == ["a.csv"]
    (tmp_path / "file").write_text("")
    refuses(
        DataError, "cannot be written", rows.write_tables, tmp_path / "file" / "below", {"a": ""}
    )
    refuses(DataError, "finite", rows.row, "a2i", "voice", "m", float("nan"), 3)
