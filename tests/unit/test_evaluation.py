"""Evaluation: retrieval, what a conversion carries, classifiers that are kept, tidy tables."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.store_factory import make_store
from xfavot.config import ModelConfig, RunConfig
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import classifiers, learning, rows
from xfavot.evaluation.classifiers import (
    Classifiers,
    People,
    Reading,
    VoiceClassifier,
    crop,
    people_of,
    speakers_of,
)
from xfavot.evaluation.learning import Grid, Side, measures, random_difference, spread
from xfavot.evaluation.matching import draw_each, means, retrieval
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training.checkpoint import LoadedModel

SIZE, FRAMES = 16, 80


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("evaluation")
    return make_store(root, genders="ffmm", clips=3, faces=2, seconds=1.1)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "STEPS", {"face": 2, "voice": 2})
    monkeypatch.setattr(classifiers, "BATCH_SIZE", 4)
    monkeypatch.setattr(learning, "SOURCES", 4)
    monkeypatch.setattr(learning, "REFERENCES", 8)
    monkeypatch.setattr(learning, "MOST_CLIPS", 2)


def loaded(store: Store, path: Path, **train: Any) -> LoadedModel:
    torch.manual_seed(0)
    image = {"image_size": SIZE, "image_width": 4, "image_max_width": 8, "image_levels": 2}
    audio = {"mel_frames": FRAMES, "audio_width": 4, "audio_max_width": 8, "speakers": 4}
    frozen = {"f0_width": 4, "f0_channels": 4, "content_width": 8, "content_channels": 4}
    styles = {"style_dim": 8, "latent_dim": 4, "mapping_width": 8}
    model = ModelConfig(**image, **audio, **frozen, **styles)
    cfg = RunConfig(name="toy", model=model)
    loss = dataclasses.replace(cfg.loss, xm=0.0)
    cfg = dataclasses.replace(cfg, loss=loss, train=dataclasses.replace(cfg.train, **train))
    networks = {
        "nets": XFaVoT(model),
        "f0": F0Network.from_config(model),
        "content": ContentNetwork.from_config(model, depth=1),
    }
    return LoadedModel(
        **{name: net.requires_grad_(False).eval() for name, net in networks.items()},
        standardiser=mel_statistics([store], split="train"),
        config=cfg,
        speakers=speakers_of([store], ["train"]),
        step=7,
        path=path / "runs" / "toy" / "checkpoints" / "step_7",
    )


def people(store: Store, split: str) -> People:
    return people_of([store], split, speakers=speakers_of([store], ["val"]), image_size=SIZE)


def test_the_protocol_gives_every_row_and_keeps_classifiers(store: Store, tmp_path: Path) -> None:
    model, said = loaded(store, tmp_path), []
    found = learning.evaluate_learning(model, store, on_log=said.append)
    assert {row["task"] for row in found} == {
        *("judge of faces", "judge of voices", "face to voice", "voice to face"),
        *("i2i", "a2i", "z2i", "i2a", "a2a", "z2a"),
    }
    asked = {(row["task"], row["metric"]) for row in found if row["goal"]}
    for task in ("i2i", "a2i", "i2a", "a2a"):
        assert (task, "identity of the reference") in asked
    assert ("a2i", "diversity over the references, L1") in asked
    assert not any("pose" in row["metric"] for row in found), "the factory knows no pose"
    assert all(np.isfinite(row["value"]) and row["n"] > 0 for row in found)
    assert found[0]["step"] == 7
    assert found[0]["manifest"] == store.manifest_hash
    pairs = [row["n"] for row in found if row["metric"] == "sex of the reference, all pairs"]
    assert set(pairs) == {4 * 8 * 3 // 4}, "own pairs are left out"
    assert any("training" in line for line in said)

    (kept,) = (tmp_path / "runs" / "auxiliary").glob("judge_*")
    again: list[str] = []
    assert learning.evaluate_learning(model, [store], on_log=again.append) == found
    assert not any("training" in line for line in again)
    kept.write_bytes(b"short")
    with pytest.raises(WeightsError, match="delete that file"):
        learning.evaluate_learning(model, store)


def test_a_model_of_faces_alone_is_measured_on_faces(store: Store, tmp_path: Path) -> None:
    found = learning.evaluate_learning(loaded(store, tmp_path, modalities=("image",)), store)
    assert {row["task"] for row in found} == {"judge of faces", "i2i", "z2i"}


def test_a_store_without_both_sexes_is_refused(store: Store, tmp_path: Path) -> None:
    women = make_store(tmp_path, genders="ff", clips=3, seconds=1.1)
    with pytest.raises(DataError, match="women and men"):
        speakers_of([women], ("train", "val"))
    said: list[str] = []
    model = loaded(store, tmp_path)
    assert learning.measure_and_save(model, [women], on_log=said.append) is None
    assert "women and men" in said[0]
    assert not learning.results_folder(model).exists()


def test_people_are_those_of_the_split(store: Store) -> None:
    held_out = people(store, "val")
    assert held_out.speakers == ("toy/s1", "toy/s2", "toy/s3", "toy/s4")
    assert held_out.gender.tolist() == [0, 0, 1, 1]
    assert held_out.faces.x.shape == (4 * 2, 3, SIZE, SIZE)
    assert held_out.faces.speaker.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    expected = torch.tensor([20.0, 20.0, 10.0]) / 127.5 - 1  # colour(speaker 2, clip 2, face 1)
    torch.testing.assert_close(held_out.faces.x[5, :, 0, -1], expected)
    voices = held_out.voices(FRAMES)
    assert voices.x.shape == (8, 80, FRAMES)
    assert voices.gender.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert held_out.digest() != people(store, "train").digest()


def test_crop_places_and_reflection() -> None:
    clip = torch.arange(10.0).expand(80, 10)
    for frames, place, expected in (
        *((4, 0.0, [0, 1, 2, 3]), (4, 1.0, [6, 7, 8, 9])),
        (12, 0.5, [*range(10), 8, 7]),
    ):
        assert crop(clip, frames, place)[0].tolist() == expected


def test_retrieval_of_known_styles() -> None:
    speaker = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    gender = torch.tensor([0, 0, 1, 1])
    own = torch.eye(4)[speaker] + 0.01 * torch.randn(8, 4, generator=torch.Generator())
    speakers = {"face": speaker, "voice": speaker}
    perfect = retrieval({"face": own, "voice": 3 * own}, speakers, gender, seed=0)
    assert [row["value"] for row in perfect] == [1.0] * 8
    assert {row["met"] for row in perfect if row["goal"]} == {True}
    by_sex = torch.eye(2)[gender[speaker]] + 1e-3 * torch.eye(4)[speaker.flip(0)][:, :2]
    same = {"face": by_sex, "voice": by_sex}
    only_sex = retrieval(same, speakers, gender, seed=0)
    assert all(row["chance"] == (0.5 if "within" in row["metric"] else 0.25) for row in only_sex)


def test_means_and_draws_are_of_every_speaker() -> None:
    speaker = torch.tensor([1, 0, 1])
    style = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    half = 2**-0.5
    torch.testing.assert_close(means(style, speaker, 2), torch.tensor([[0.0, 1.0], [half, half]]))
    drawn = draw_each(speaker, 2, 50, torch.Generator().manual_seed(0))
    assert set(drawn[:, 0].tolist()) == {1}
    assert set(drawn[:, 1].tolist()) == {0, 2}


class Oracle(nn.Module):
    """Reads speaker, gender and pose from the first four pixels of a picture."""

    def forward(self, x: Tensor) -> Reading:
        first = x[:, 0, 0]  # (n, W)
        speaker = nn.functional.one_hot(first[:, 0].long(), 4).float()
        gender = nn.functional.one_hot(first[:, 1].long(), 2).float()
        return Reading(speaker, gender, first[:, 2:4], first[:, :1])


def picture(speaker: int, gender: int, pose: Tensor) -> Tensor:
    x = torch.zeros(3, 4, 4)
    x[0, 0] = torch.tensor([speaker, gender, *pose.tolist()])
    return x


def test_measures_of_a_known_grid() -> None:
    who, sex = torch.arange(4), torch.tensor([0, 0, 1, 1])
    pose = torch.tensor([[0.1, 0.2], [0.3, -0.4], [0.0, 0.5], [-0.6, 0.0]])
    faces = [[picture(r, int(sex[r]), pose[s] + 0.1) for r in range(4)] for s in range(4)]
    made = torch.stack([torch.stack(row) for row in faces])
    made[0, 1, 0, 0, 0] = 3  # one identity of twelve is wrong
    made[0, 2, 0, 0, 1] = 0  # one sex of eight across is wrong
    oracle: Any = Oracle()
    known = Classifiers(oracle, oracle, dict.fromkeys(("face/speaker", "face/gender"), 1.0), "")
    known.accuracy["face/pose"] = 0.0
    real = torch.stack([picture(n, int(sex[n]), pose[n]) for n in range(4)])
    side = Side(real, who, sex)
    grid = Grid("i2i", "face", "face", made, side, side, named=True, sought=True)
    found = {row["metric"]: row for row in measures(grid, known, pose=pose, random_pose=0.5)}
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


def test_spread_leaves_own_pairs_out() -> None:
    x = torch.tensor([[[0.0], [1.0], [5.0]], [[0.0], [2.0], [2.0]]])  # (S, R, 1)
    pairs = torch.ones(3, 3, dtype=torch.bool).triu(1)
    value, count = spread(x, pairs, torch.tensor([9, 2]), torch.tensor([0, 1, 2]))
    assert count == 3 + 1
    assert value == pytest.approx((1 + 5 + 4 + 2) / 4)


def test_random_difference_of_poses() -> None:
    pose = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [float("nan"), 0.0]])
    assert random_difference(pose) == pytest.approx((0.5 + 1.5 + 2.0) / 3)
    assert np.isnan(random_difference(pose[:1]))


def test_classifiers_learn_what_is_plain(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "BATCH_SIZE", 16)
    train = people(store, "train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        voice = VoiceClassifier(speakers=4)
        voice.calibrate(mel_statistics([store], split="train"))
        classifiers._optimise(voice, classifiers.voice_loss(train, FRAMES, "cpu"), steps=25)
    voice.eval()
    held_out = people(store, "val").voices(FRAMES)
    with torch.no_grad():
        heard = voice(held_out.x).gender.argmax(1)
    assert (heard == held_out.gender).float().mean() == 1.0


def test_augmentation_is_a_function_of_its_generator() -> None:
    x, mel = torch.rand(3, 3, 16, 16) * 2 - 1, torch.rand(3, 80, 24) - 3
    for change, sample in ((classifiers.augment_faces, x), (classifiers.augment_mels, mel)):
        one, two, other = (change(sample, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)
        assert one.shape == sample.shape


def test_rows_say_whether_a_goal_is_met() -> None:
    assert rows.row("a2i", "voice", "m", 0.5, 3)["met"] is None
    assert rows.row("a2i", "voice", "m", 0.5, 3, goal=0.5)["met"] is True
    assert rows.row("a2i", "voice", "m", 0.6, 3, goal=0.5, sense=rows.AT_MOST)["met"] is False
    with pytest.raises(DataError, match="finite"):
        rows.row("a2i", "voice", "m", float("nan"), 3)


def test_table_is_written_whole(tmp_path: Path) -> None:
    made = [
        {**rows.row("a2i", "voice", "identity", 1 / 3, 12, chance=0.25, goal=0.4), "step": 5},
        {**rows.row("i2i", "face", "diversity", 0.7, 12, goal=0.5), "step": 5},
    ]
    table = rows.save(made, tmp_path / "evaluation")
    text = " ".join(table.read_text(encoding="utf-8").split())
    assert "step 5" in text
    assert "1 of 2 goals met" in text
    assert "| a2i | voice | identity | 0.333 | 12 | 0.250 | | >= 0.4 | **no** |" in text
    with table.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0]["value"] == repr(1 / 3)
    assert (read[0]["judge"], read[0]["met"]) == ("", "False")
    assert sorted(p.name for p in table.parent.iterdir()) == ["learning.csv", "learning.md"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        rows.save(made, tmp_path / "file" / "below")
